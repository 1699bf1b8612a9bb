//! Known bugs of this kind of program, one switch each: the tests of the tests.
//!
//! A hook in the code asks whether the bug is on. Outside of tests the answer is a constant `false`, so that a
//! release holds none of them. In tests the simulation turns one on at a time and must find it. A mutant must never
//! be more than a line or two at its place, or it would be a second program.

/// A bug that some program of this kind had.
#[cfg_attr(not(test), allow(dead_code, reason = "some hooks stand in code of the tests alone"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A batch is offered, and its position counts, before it is synced.
    UnsyncedBatch,
    /// An answer is acted upon before it is on disk, so that a crash repeats many batches.
    UnsyncedAnswer,
    /// A segment goes as soon as its batches were offered.
    UnlinksBeforeAnswer,
    /// A sync that failed is tried again on the same file, and believed.
    RetriesFailedSync,
    /// A start writes on behind the torn end of the last segment.
    AppendsBehindTornTail,
    /// The position becomes durable before the lines do.
    PositionBeforeLines,
    /// The position covers a line that has not ended yet.
    PositionInsideLine,
    /// A renamed file is closed at its end, though its writers hold it still.
    ClosesAtFirstEnd,
    /// The line without an end in a file that is closed is dropped.
    DropsPartialLine,
    /// A line that pauses is handed out in two.
    EmitsPausedLine,
    /// 401 and its like are believed.
    GivesUpOnHold,
    /// 5xx is believed after some tries.
    GivesUpOnRetry,
    /// Too large is an end, not a reason to halve.
    DropsTooLarge,
    /// A new file is durable, and its name is not.
    ForgetsDirectorySync,
    /// A file is known by its inode alone.
    TrustsInode,
    /// A file that was rewritten is read on from the old offset.
    TrustsOffset,
    /// A line is counted though the batch refused it.
    CountsRefusedLine,
    /// A line that was counted while it waited is counted again when it is shipped.
    CountsTwice,
    /// How far counting is ahead of shipping is not durable.
    ForgetsPlaceOfCounting,
    /// Summaries are closed by the record of the lines, and written by the next one.
    ClosesSummariesEarly,
    /// Counts begin at zero with each start.
    ForgetsWindows,
    /// The same batch has another key after a restart.
    ChangesKey,
    /// What the full spool refuses is let go.
    DropsWhenFull,
    /// That a file was seen is not durable before its first line is.
    ForgetsBirths,
    /// A delivered batch is not counted.
    ForgetsDelivered,
    /// The cap is not looked at.
    IgnoresCap,
}

#[cfg(test)]
impl Mutant {
    /// Every bug.
    pub(crate) const ALL: [Mutant; 26] = [
        Mutant::UnsyncedBatch,
        Mutant::UnsyncedAnswer,
        Mutant::UnlinksBeforeAnswer,
        Mutant::RetriesFailedSync,
        Mutant::AppendsBehindTornTail,
        Mutant::PositionBeforeLines,
        Mutant::PositionInsideLine,
        Mutant::ClosesAtFirstEnd,
        Mutant::DropsPartialLine,
        Mutant::EmitsPausedLine,
        Mutant::GivesUpOnHold,
        Mutant::GivesUpOnRetry,
        Mutant::DropsTooLarge,
        Mutant::ForgetsDirectorySync,
        Mutant::TrustsInode,
        Mutant::TrustsOffset,
        Mutant::CountsRefusedLine,
        Mutant::CountsTwice,
        Mutant::ForgetsPlaceOfCounting,
        Mutant::ClosesSummariesEarly,
        Mutant::ForgetsWindows,
        Mutant::ChangesKey,
        Mutant::DropsWhenFull,
        Mutant::ForgetsBirths,
        Mutant::ForgetsDelivered,
        Mutant::IgnoresCap,
    ];
}

/// Whether a bug is on.
#[cfg(not(test))]
pub(crate) const fn is_on(_mutant: Mutant) -> bool {
    false
}

#[cfg(test)]
pub(crate) use switch::{is_on, with};

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether a bug is on in this thread.
    pub(crate) fn is_on(mutant: Mutant) -> bool {
        ON.get() == Some(mutant)
    }

    /// Runs something with a bug, in this thread alone. A panic inside leaves it on: catch it there.
    pub(crate) fn with<T>(mutant: Option<Mutant>, run: impl FnOnce() -> T) -> T {
        let before = ON.replace(mutant);
        let result = run();
        ON.set(before);
        result
    }
}
