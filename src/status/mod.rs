//! The status port: what the agent knows about itself, as JSON, as Prometheus text and as a page.
//!
//! Read in this order: `snapshot` (the words), `board` (the latest one), `health` (when it is bad), `json` and `metrics`
//! (how it is said), `guard` (who may ask), `server` (the connections). Must never change anything: it only reads what the
//! pipeline has published, and nothing imports it but the code that assembles the agent.

mod board;
mod guard;
mod health;
mod json;
mod metrics;
mod parts;
mod server;
mod snapshot;

pub use board::Board;
#[cfg(fuzzing)]
pub use guard::admits;
pub use health::{DELIVERY_BAD_STATES, FILE_UNREADABLE, SPOOL_BAD_STATES};
pub use server::{CONNECTIONS_MAX, Options, serve};
pub use snapshot::{
    AgentStatus, FileStatus, Ledger, LedgerLines, LossStatus, Rendered, Snapshot, SourceStatus, SpoolStatus,
};
