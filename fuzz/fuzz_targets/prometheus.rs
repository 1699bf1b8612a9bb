//! One fuzz target, by name; what it holds true is in `fuzz/src`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| watchpost_fuzz::prometheus(data));
