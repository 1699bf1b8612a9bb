//! The whole pipeline in a simulated world, driven by one number.
//!
//! A run is a function of its seed: the log directory, the disk of the spool, both clocks, the destination and the
//! moments at which the agent dies are simulated; following, windows, batches, spool and the sender's decisions are
//! the product. Faults first, then a time without any in which everything must drain, then the judge.
//!
//! ```text
//!  server ─► files ─► Pipeline ─► mailbox ─► destination
//!            clocks ──►  │  ▲                     │
//!            disk ◄──────┘  └── verdict ◄─────────┤
//!                  snapshot ─► oracle ◄───────────┘
//! ```

mod clock;
mod destination;
mod files;
mod life;
mod oracle;
mod run;
mod server;
mod swarm;
mod tests;
mod trace;
mod world;
