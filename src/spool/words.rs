//! The words of the spool: what callers hand in and what they get back. Plain data, no I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use crate::record::{EpochMs, Loss, LossReason, Stream};

/// One change of the state: a key and its new value, or `None` to remove it.
pub type StateChange = (Vec<u8>, Option<Vec<u8>>);

/// Names one installation of the agent, from its first start on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AgentId(
    /// Random bytes, made once.
    pub [u8; 16],
);

impl fmt::Display for AgentId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The randomness of one start; the spool draws none itself.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// The agent's id, used where the spool is new.
    pub agent: AgentId,
    /// From which the nonces of this run's segments follow.
    pub nonce: u64,
}

/// Identity of a batch, the same after any crash. Its display is the `Idempotency-Key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchId {
    /// The installation.
    pub agent: AgentId,
    /// Which start of the agent made it; rises each time.
    pub epoch: u64,
    /// Number of the batch, from 1, without gaps.
    pub seq: u64,
}

impl fmt::Display for BatchId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}/{}", self.agent, self.epoch, self.seq)
    }
}

/// The `X-Sumo-*` values of a batch, kept with it since settings may change before it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// `X-Sumo-Category`.
    pub category: String,
    /// `X-Sumo-Name`.
    pub name: String,
    /// `X-Sumo-Host`.
    pub host: String,
    /// `X-Sumo-Fields`; empty for none.
    pub fields: String,
}

/// A batch to be kept until it is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBatch {
    /// The kind of its records.
    pub stream: Stream,
    /// Its headers.
    pub labels: Labels,
    /// When it was closed; information only.
    pub created_ms: EpochMs,
    /// Complete log lines in it; 0 for other streams.
    pub lines: u64,
    /// Records in it.
    pub records: u32,
    /// Bytes before compression.
    pub raw_bytes: u32,
    /// gzip, as it will be POSTed.
    pub body: Vec<u8>,
}

/// A durable batch that waits for delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingBatch {
    /// Its identity.
    pub id: BatchId,
    /// The kind of its records.
    pub stream: Stream,
    /// Its headers.
    pub labels: Labels,
    /// When it was closed.
    pub created_ms: EpochMs,
    /// Complete log lines in it.
    pub lines: u64,
    /// Records in it.
    pub records: u32,
    /// Bytes before compression.
    pub raw_bytes: u32,
    /// gzip, byte for byte what was appended.
    pub body: Vec<u8>,
}

/// The limits of a spool.
#[derive(Clone, Debug)]
pub struct Options {
    /// Cap of all its files together; at least [`BYTES_MAX_FLOOR`].
    pub bytes_max: u64,
    /// A segment is closed at this size; the spool takes less where the cap is small.
    pub segment_bytes: u64,
    /// Batches are refused while the file system has less free than this.
    pub free_bytes_min: u64,
}

/// The smallest cap.
pub const BYTES_MAX_FLOOR: u64 = 1 << 20;
/// The usual size of a segment.
pub const SEGMENT_BYTES_DEFAULT: u64 = 4 << 20;

impl Default for Options {
    fn default() -> Options {
        Options { bytes_max: 1 << 30, segment_bytes: SEGMENT_BYTES_DEFAULT, free_bytes_min: 0 }
    }
}

/// Why a spool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it.
    #[error("the spool in {} is in use by another process", path.display())]
    Locked {
        /// The spool's folder.
        path: PathBuf,
    },
    /// A symbolic link stands where a file of the spool should.
    #[error("refused to follow the symbolic link {name} in place of a file or folder of the spool")]
    Symlink {
        /// Which file.
        name: String,
    },
    /// A folder of the spool belongs to another user, who could change what is in it. Nothing was changed.
    #[error(
        "{name} belongs to user {owner}; run the agent as that user, or give it to the agent's (chown -R)"
    )]
    Foreign {
        /// Which folder.
        name: String,
        /// Its owner's number.
        owner: u32,
    },
    /// A newer release wrote it. Nothing was changed.
    #[error("{name} was written by a newer release")]
    NewerFormat {
        /// Which file.
        name: String,
    },
    /// Anything else.
    #[error("failed to {action}")]
    Io {
        /// What was being done, and to what.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(action: impl Into<String>, source: io::Error) -> OpenError {
        OpenError::Io { action: action.into(), source }
    }
}

/// What was refused, whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Returned {
    /// The batch.
    pub batch: Option<NewBatch>,
    /// The changes of the state.
    pub changes: Vec<StateChange>,
}

/// Why nothing was taken. Each carries back what was handed in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No room now; there will be once batches are delivered.
    #[error("the spool is full")]
    Full(Box<Returned>),
    /// The disk fails; see [`super::Spool::retry`].
    #[error("the spool cannot write to its disk")]
    Degraded(Box<Returned>),
    /// It will never fit: over [`super::Spool::batch_bytes_max`], or a state over its limit.
    #[error("the batch or the state is too large for the spool")]
    TooLarge(Box<Returned>),
}

impl Refused {
    /// What was handed in.
    pub fn returned(self) -> Returned {
        match self {
            Refused::Full(returned) | Refused::Degraded(returned) | Refused::TooLarge(returned) => *returned,
        }
    }
}

/// The disk refuses: nothing since the last commit is durable, all of it is still in memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the spool cannot write to its disk: {reason}")]
pub struct Degraded {
    /// What failed and why.
    pub reason: String,
}

/// Why a batch was not settled for good.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// It is not the oldest pending batch; nothing was done.
    #[error("batch {seq} is not the oldest one")]
    NotOldest {
        /// The number given.
        seq: u64,
    },
    /// There is no room for the parts of a split; nothing was done.
    #[error("the spool is full")]
    Full,
    /// It is settled in memory and will be on disk once the disk works; a crash before that offers the
    /// same batch again.
    #[error(transparent)]
    Degraded(#[from] Degraded),
}

/// What was delivered since the first start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Log lines in them.
    pub lines: u64,
    /// Bytes as sent.
    pub bytes: u64,
    /// Bytes before compression.
    pub raw_bytes: u64,
}

/// How the spool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpoolState {
    /// It takes batches.
    Ok,
    /// The last batch was refused for want of room.
    Full,
    /// The disk fails, for this reason. It takes no batches, or gives none.
    Degraded(String),
}

/// The spool at one moment. Always: `appended_lines == delivered.lines + lines + dropped_lines`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolStatus {
    /// Batches held, durable or waiting in memory for the next commit.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Log lines in them.
    pub lines: u64,
    /// Bytes of all files, reserved ones and the quarantine included.
    pub bytes: u64,
    /// The cap of `bytes`.
    pub bytes_max: u64,
    /// When the oldest held batch was closed.
    pub oldest_created_ms: Option<EpochMs>,
    /// How it is.
    pub state: SpoolState,
    /// Bytes in quarantine.
    pub quarantine_bytes: u64,
    /// Delivered since the first start.
    pub delivered: Delivered,
    /// Log lines of all batches appended since the first start; a split counts once.
    pub appended_lines: u64,
    /// Batches that had been appended and were lost since.
    pub dropped_batches: u64,
    /// Their log lines.
    pub dropped_lines: u64,
    /// All losses since the first start, those of `dropped_lines` and those found elsewhere.
    pub lost: BTreeMap<LossReason, Loss>,
}

/// Bytes of a segment that could not be understood and had been durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// The number in the segment's file name.
    pub segment: u64,
    /// First damaged byte.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// They stand in a segment that the device refused to too many starts, and not wrong bytes but none.
    pub unread: bool,
}

/// What a start found on the disk, for one line of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments that hold something.
    pub segments: u64,
    /// Batches that wait for delivery.
    pub batches: u64,
    /// Log lines in them.
    pub lines: u64,
    /// Bytes of a write that a crash cut short; nothing in them had been promised.
    pub torn_tail_bytes: u64,
    /// Bytes at the end of the log that were whole and are not what was written: bit rot, no crash cuts
    /// like that. The log goes back to before them, as after a torn write: their lines are read again.
    pub rotten_tail_bytes: u64,
    /// Losses that this start discovered and counted.
    pub lost: Vec<(LossReason, Loss)>,
    /// Damage, lost batches or not; the first [`DAMAGED_RANGES_MAX`].
    pub damaged: Vec<DamagedRange>,
    /// Whether the last segment could not be made durable and its batches are written anew.
    pub salvaged: bool,
}

/// Damaged ranges told apart in a [`Recovery`].
pub const DAMAGED_RANGES_MAX: usize = 16;

/// Batches, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) batches: u64,
    pub(super) records: u64,
    pub(super) lines: u64,
}

impl Sums {
    pub(super) fn add(&mut self, other: Sums) {
        self.batches += other.batches;
        self.records += other.records;
        self.lines += other.lines;
    }

    pub(super) fn subtract(&mut self, other: Sums) {
        self.batches = self.batches.saturating_sub(other.batches);
        self.records = self.records.saturating_sub(other.records);
        self.lines = self.lines.saturating_sub(other.lines);
    }
}

/// The disk's refusal, and when it is asked again.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) reason: String,
    pub(super) backoff_ms: u64,
    pub(super) next_retry: Instant,
}
