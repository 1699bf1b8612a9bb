//! What a seed switches on: each run has a random subset of the faults, so that rare pairs of them meet.

use std::time::Duration;

/// The kinds of fault and the sizes of one run.
#[derive(Clone, Debug)]
pub(super) struct Swarm {
    /// Steps before the faults stop.
    pub(super) steps: u32,
    /// The longest time between two steps.
    pub(super) pause_max: Duration,
    /// Logs that the server writes.
    pub(super) logs: usize,
    pub(super) format: LineFormat,
    /// Lines that are no lines of the format, and long ones, in 256.
    pub(super) rubbish_share: u8,
    pub(super) long_share: u8,
    /// Bursts that fill batches.
    pub(super) bursts: bool,
    /// Lines written in two pieces, the second of which may never come.
    pub(super) pieces: bool,
    pub(super) rotations: Vec<Rotation>,
    /// Rotated names are counted up (`a.log.1`, `a.log.2`) or carry a stamp.
    pub(super) counted_names: bool,
    /// The server acts in the middle of a tick, too.
    pub(super) interleaved: bool,
    pub(super) short_reads: bool,
    pub(super) read_errors: bool,
    pub(super) granularity_ms: i64,
    pub(super) wall_jumps: bool,
    pub(super) kills: bool,
    pub(super) power_cuts: bool,
    pub(super) stops: bool,
    pub(super) reloads: bool,
    pub(super) disk_errors: bool,
    /// Syncs fail and lie afterwards.
    pub(super) sync_failures: bool,
    /// A disk this small, for a part of the run.
    pub(super) disk_bytes: Option<u64>,
    /// What the spool leaves free of it.
    pub(super) free_bytes_min: u64,
    pub(super) answers: Vec<Fault>,
    /// Of 256 answers, so many are not what they should be.
    pub(super) answer_fault_share: u8,
    /// Bodies over this are too large for the destination.
    pub(super) raw_bytes_max: Option<u64>,
    pub(super) batch_max_bytes: u32,
    pub(super) flush_interval: Duration,
    pub(super) summary_interval: Duration,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFormat {
    Fixed,
    Json,
}

/// What happens to a log when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotation {
    /// Renamed; the new file is made at once, writers follow later.
    RenameAndCreate,
    /// Renamed; the new file is made by the writers when they are told.
    RenameAndReopen,
    /// Removed; writers follow later.
    Unlink,
    /// Cut to nothing where it stands.
    Truncate,
}

/// What can go wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No connection.
    Unreachable,
    /// The request is lost on its way.
    RequestLost,
    /// The destination has the batch, and its answer is lost.
    AnswerLost,
    /// An answer that passes: 408, 429, 5xx.
    Passing,
    /// The same with `Retry-After`.
    RetryAfter,
    /// 400.
    Refusal,
    /// Only a person can change it: 3xx, 401, 403, 404.
    Hold,
    /// 413.
    TooLarge,
    /// 200 with a complaint.
    Warning,
}

const FAULTS: [Fault; 9] = [
    Fault::Unreachable,
    Fault::RequestLost,
    Fault::AnswerLost,
    Fault::Passing,
    Fault::RetryAfter,
    Fault::Refusal,
    Fault::Hold,
    Fault::TooLarge,
    Fault::Warning,
];

const ROTATIONS: [Rotation; 4] =
    [Rotation::RenameAndCreate, Rotation::RenameAndReopen, Rotation::Unlink, Rotation::Truncate];

impl Swarm {
    /// Draws the options of a run.
    pub(super) fn draw(random: &mut fastrand::Rng) -> Swarm {
        let one_of = |random: &mut fastrand::Rng, of: u32| random.u32(0..of) == 0;
        Swarm {
            steps: random.u32(15..70),
            pause_max: Duration::from_millis([300, 2_000, 12_000, 45_000][random.usize(0..4)]),
            logs: random.usize(1..=3),
            format: if one_of(random, 3) { LineFormat::Json } else { LineFormat::Fixed },
            rubbish_share: [0, 20][random.usize(0..2)],
            long_share: [0, 40][random.usize(0..2)],
            bursts: one_of(random, 4),
            pieces: random.bool(),
            rotations: subset(random, &ROTATIONS),
            counted_names: random.bool(),
            interleaved: random.bool(),
            short_reads: one_of(random, 4),
            read_errors: one_of(random, 6),
            granularity_ms: [1, 4, 10][random.usize(0..3)],
            wall_jumps: one_of(random, 6),
            kills: random.bool(),
            power_cuts: one_of(random, 3),
            stops: one_of(random, 4),
            reloads: one_of(random, 6),
            disk_errors: one_of(random, 4),
            sync_failures: one_of(random, 4),
            disk_bytes: one_of(random, 5).then(|| random.u64(40_000..160_000)),
            free_bytes_min: [0, 16_384][random.usize(0..2)],
            answers: subset(random, &FAULTS),
            answer_fault_share: [20, 80, 200][random.usize(0..3)],
            raw_bytes_max: one_of(random, 6).then(|| random.u64(800..6_000)),
            batch_max_bytes: [4_000, 10_000, 100_000][random.usize(0..3)],
            flush_interval: Duration::from_millis([100, 1_000, 5_000][random.usize(0..3)]),
            summary_interval: Duration::from_secs([1, 10][random.usize(0..2)]),
        }
    }
}

/// Half of the time nothing, else each member with even chances.
fn subset<T: Copy>(random: &mut fastrand::Rng, all: &[T]) -> Vec<T> {
    if random.u32(0..4) == 0 {
        return Vec::new();
    }
    all.iter().copied().filter(|_| random.bool()).collect()
}
