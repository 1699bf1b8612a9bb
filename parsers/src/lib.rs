//! Text to values: nginx formats and lines. No I/O, no panic.
#![no_std]
extern crate alloc;
