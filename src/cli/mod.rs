//! The commands that ask or show something and end; each writes to what it is given and decides no exit code.
//!
//! Must never touch a running agent's state: they read.

/// `watchpost status`: the running agent, in the terminal.
pub mod status;
