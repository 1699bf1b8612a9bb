//! What the fuzz targets hold true: a function each, which takes any bytes and panics where a promise breaks.
//!
//! Nothing here asks whether a text is right; it asks what must hold of any text at all: that nothing
//! panics, that parts sum to totals, that what was written comes back, that no secret and no control
//! character gets out.

mod counters;
mod edges;
mod settings;
mod spool;
mod state;
mod text;

pub use counters::{haproxy, prometheus, stub_status};
pub use edges::{answer, guard, gz, redact, terminal};
pub use settings::settings;
pub use spool::spool;
pub use state::state;
pub use text::{access_line, escape, log_format, nginx_conf, regex_format, route, time, upstream};

/// Takes small values off the front of the input, zeros once it is used up.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Up to 255 bytes, with their count before them.
    fn short(&mut self) -> &'a [u8] {
        let count = self.byte();
        self.bytes(usize::from(count))
    }

    /// Mostly small, now and then one of the numbers at which arithmetic breaks.
    /// From 2^48 on the spool takes a number for damage; just below it, it could not count on.
    fn number(&mut self) -> u64 {
        let number = match self.byte() {
            255 => u64::MAX,
            254 => u64::MAX - u64::from(self.byte()),
            253 => i64::MAX as u64,
            252 => u64::from(u32::MAX),
            251 => 1 << 47,
            250 => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
            small => u64::from(small),
        };
        if (1 << 47..=1 << 48).contains(&number) { 1 << 47 } else { number }
    }
}

/// A text for people: on one line, and nothing in it acts upon a terminal.
fn assert_plain(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}
