//! The sender: takes one batch at a time, posts it to a Sumo Logic HTTP source, and says what became of it.
//!
//! It owns the network side of delivery: the HTTP client, the Sumo dialect (headers, status codes),
//! the backoff, and the `delivery` part of `/status`. It sees bytes, never metrics or lines.
//! It must never give up on a batch that the destination has not refused for good, never change the
//! bytes or the key of a batch between attempts, never have two requests under way, never follow a
//! redirect, and never let any part of the destination's path be seen in a text.
//!
//! ```text
//! pipeline ── offer(Outgoing) ──► Mailbox ──► run ──► HTTP source
//!     ▲                             │ ▲          │
//!     └── take_verdict, on_verdict ─┘ └─ judge ──┘
//! ```

mod answer;
mod backoff;
mod client;
mod delivery;
mod destination;
mod dialect;
mod mailbox;
mod reach;
mod redact;
mod sender;

#[cfg(test)]
mod tests;

pub use answer::{Answer, Decision, REFUSALS_MAX, classify, decide, retry_after};
pub use backoff::{Backoff, BackoffLimits};
pub use delivery::{DeliveryState, DeliveryStatus};
pub use destination::SenderError;
pub use mailbox::{Mailbox, Outgoing, Verdict};
pub use reach::{Reachability, check_destination, check_with};
#[cfg(fuzzing)]
pub use redact::cleaned;
pub use sender::{SenderLimits, SenderOptions, run};
