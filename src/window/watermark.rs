//! How far the log is complete: what each file has told, how late its lines come, and the second
//! up to which every line must have been read. It decides from what it is told; it reads no clock.

use std::collections::BTreeMap;

use super::FileProgress;
use super::ring::AHEAD_S_MAX;
use super::state::{Decoder, Encoder, Journal, Key, Mark};
use crate::record::EpochMs;

/// Least lateness: a second is never complete before it is over and the next poll has passed.
const LATENESS_MS_MIN: u64 = 1_000;
/// Greatest lateness: beyond it lines correct their second afterwards instead of holding up all.
const LATENESS_MS_MAX: u64 = 60_000;
/// A line later than this is not explained by buffering: a clock stepped, or old lines were appended.
const LATENESS_PLAUSIBLE_MS: i64 = 600_000;
/// A pause of the agent longer than this does not count as lateness of the log.
const PAUSE_MS_MAX: i64 = 1_000;
/// Learned lateness falls by one part in e over this time.
const LATENESS_DECAY_MS: u64 = 300_000;
/// How long a file that is behind and tells nothing new may hold up the watermark.
const WAITING_MS_MAX: i64 = 60_000;
/// One call counts as at most this much waiting, so that a stepped clock cannot use it up.
const WAITING_STEP_MS: i64 = 5_000;
/// The clock may step back this far while the watermark just waits for it.
const STEP_BACK_MS: EpochMs = 60_000;

/// One followed file.
#[derive(Debug, Default)]
struct File {
    flush_ms_hint: Option<u64>,
    learned_ms: u64,
    /// It was read to its end at the last advance.
    caught_up: bool,
    /// It was so at least once: what it tells from then on is news, not history.
    ever_caught_up: bool,
    newest_ms: Option<EpochMs>,
    /// It told something since the last advance.
    moved: bool,
    waiting_ms: i64,
    mark: Mark,
}

impl File {
    fn lateness_ms(&self) -> u64 {
        let seed = self.flush_ms_hint.map_or(0, |flush| flush.saturating_add(LATENESS_MS_MIN));
        self.learned_ms.max(seed).clamp(LATENESS_MS_MIN, LATENESS_MS_MAX)
    }

    /// Lets go of learned lateness as time passes; answers whether the one in force changed.
    fn forgive(&mut self, passed_ms: i64) -> bool {
        let before = self.lateness_ms();
        let passed_ms = passed_ms.unsigned_abs().min(LATENESS_DECAY_MS);
        self.learned_ms -= self.learned_ms * passed_ms / LATENESS_DECAY_MS;
        self.lateness_ms() != before
    }
}

/// The files and the second before which all is complete.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    files: BTreeMap<u32, File>,
    /// Seconds before this one are complete. `None` until the first advance can tell.
    pub(super) second: Option<i64>,
    /// Some file may still hold lines of seconds before the watermark.
    pub(super) behind: bool,
    /// Every file was read to its end at the last advance, and there was one.
    pub(super) live: bool,
    last_now: Option<EpochMs>,
}

impl Watermark {
    /// What nginx.conf says of the file's buffering.
    pub(super) fn set_file(&mut self, file: u32, flush_ms_hint: Option<u64>) {
        self.files.entry(file).or_default().flush_ms_hint = flush_ms_hint;
    }

    /// The file is no longer followed.
    pub(super) fn forget_file(&mut self, file: u32, journal: &mut Journal) {
        if let Some(gone) = self.files.remove(&file) {
            journal.remove(gone.mark, Key::File(file));
        }
    }

    /// Takes note of a line with a credible time. Answers whether it is history: a line from
    /// before the file's end was first reached.
    pub(super) fn note(&mut self, file: u32, read_at: EpochMs, time: EpochMs, journal: &mut Journal) -> bool {
        let state = self.files.entry(file).or_default();
        state.newest_ms = Some(state.newest_ms.map_or(time, |newest| newest.max(time)));
        state.moved = true;
        if state.caught_up
            && let Some(last_now) = self.last_now
        {
            // The line was not there at the last advance. A longer pause since is ours.
            let late_ms = read_at.min(last_now.saturating_add(PAUSE_MS_MAX)) - time;
            if late_ms <= LATENESS_PLAUSIBLE_MS && late_ms > state.learned_ms as i64 {
                state.learned_ms = (late_ms as u64).min(LATENESS_MS_MAX);
                journal.touch(&mut state.mark, Key::File(file));
            }
        }
        !state.ever_caught_up
    }

    /// The clock lies so far behind what was known (the last advance, the watermark, the start
    /// of observation: one of them survives a restart) that it must have stepped back.
    pub(super) fn stepped_back(&self, now: EpochMs, observed_from: i64) -> bool {
        let second = self.second.unwrap_or(observed_from).max(observed_from);
        let known = self.last_now.map_or(second * 1000, |last| last.max(second * 1000));
        now < known - STEP_BACK_MS
    }

    /// Forgets the times of a clock that stepped back to `now`.
    pub(super) fn restart(&mut self, now: EpochMs) {
        self.second = None;
        for file in self.files.values_mut() {
            file.newest_ms = file.newest_ms.filter(|newest| *newest <= now);
        }
    }

    /// Moves the watermark. `newest_second` is the newest second of the ring.
    pub(super) fn advance(
        &mut self,
        now: EpochMs,
        progress: &[FileProgress],
        newest_second: Option<i64>,
        journal: &mut Journal,
    ) {
        let passed_ms = self.last_now.map_or(0, |last| now - last).max(0);
        self.last_now = Some(now);
        self.live = !progress.is_empty() && progress.iter().all(|file| file.caught_up);
        let mut bound_ms = Some(now - LATENESS_MS_MIN as i64);
        for told in progress {
            let file = self.files.entry(told.file).or_default();
            if file.forgive(passed_ms) {
                journal.touch(&mut file.mark, Key::File(told.file));
            }
            file.caught_up = told.caught_up;
            file.ever_caught_up |= told.caught_up;
            let still = !told.caught_up && !file.moved;
            file.waiting_ms = if still { file.waiting_ms + passed_ms.min(WAITING_STEP_MS) } else { 0 };
            file.moved = false;
            let reached = if told.caught_up || file.waiting_ms > WAITING_MS_MAX {
                Some(now)
            } else {
                file.newest_ms.map(|newest| newest.min(now))
            };
            let bound = reached.map(|reached| reached - file.lateness_ms() as i64);
            bound_ms = bound_ms.zip(bound).map(|(least, bound)| least.min(bound));
        }
        self.move_to(bound_ms.map(|bound| bound.div_euclid(1000)), newest_second);
    }

    /// Never back, and never so far behind the newest event that the ring cannot follow.
    fn move_to(&mut self, bound: Option<i64>, newest_second: Option<i64>) {
        let pushed = newest_second.map(|newest| newest - AHEAD_S_MAX);
        let reached = match (self.second, bound) {
            (Some(second), Some(bound)) => Some(second.max(bound)),
            (second, bound) => second.or(bound),
        };
        // Without a bound (a file was opened and told nothing yet) only a push moves it.
        self.second = match (reached, pushed) {
            (Some(reached), Some(pushed)) => Some(reached.max(pushed)),
            (reached, _) => reached,
        };
        self.behind = match (bound, self.second) {
            (Some(bound), Some(second)) => bound < second,
            _ => true,
        };
    }

    /// The largest lateness in force.
    pub(super) fn lateness_ms(&self) -> u64 {
        self.files.values().map(File::lateness_ms).max().unwrap_or(LATENESS_MS_MIN)
    }

    /// The durable value of a file.
    pub(super) fn encode(&self, file: u32) -> Option<Vec<u8>> {
        let mut encoder = Encoder::new();
        encoder.unsigned(self.files.get(&file)?.learned_ms);
        Some(encoder.finish())
    }

    /// The value of a file was handed out.
    pub(super) fn saved(&mut self, file: u32) {
        self.files.get_mut(&file).into_iter().for_each(|file| file.mark = Mark::saved());
    }

    /// Takes back a file. What it told before stands; what it tells next is not history.
    pub(super) fn restore(&mut self, file: u32, value: &[u8]) -> Option<()> {
        let mut decoder = Decoder::new(value)?;
        let learned_ms = decoder.unsigned()?.min(LATENESS_MS_MAX);
        decoder.finish()?;
        let state = File { learned_ms, ever_caught_up: true, mark: Mark::saved(), ..File::default() };
        self.files.insert(file, state);
        Some(())
    }

    /// Marks every file as changed.
    pub(super) fn touch_all(&mut self, journal: &mut Journal) {
        for (file, state) in &mut self.files {
            journal.touch(&mut state.mark, Key::File(*file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: EpochMs = 1_700_000_000_000;

    fn progress(caught_up: bool) -> [FileProgress; 1] {
        [FileProgress { file: 1, caught_up }]
    }

    #[test]
    fn follows_the_clock_when_read_to_the_end_and_the_events_when_not() {
        let mut watermark = Watermark::default();
        watermark.advance(T, &[], None, &mut Journal::default());
        assert_eq!(watermark.second, Some(T / 1000 - 1));
        let mut behind = Watermark::default();
        behind.advance(T, &progress(false), None, &mut Journal::default());
        assert_eq!((behind.second, behind.behind), (None, true));
        behind.note(1, T, T - 500_000_000, &mut Journal::default());
        behind.advance(T, &progress(false), Some(T / 1000 - 500_000), &mut Journal::default());
        assert_eq!((behind.second, behind.behind), (Some(T / 1000 - 500_001), false));
        behind.advance(T, &progress(true), None, &mut Journal::default());
        assert_eq!((behind.second, behind.live), (Some(T / 1000 - 1), true));
    }

    #[test]
    fn learns_lateness_holds_and_lets_go_of_it() {
        let mut watermark = Watermark::default();
        let mut journal = Journal::default();
        watermark.note(1, T, T - 30_000, &mut journal);
        watermark.advance(T, &progress(true), None, &mut Journal::default());
        assert_eq!(watermark.lateness_ms(), 1_000, "history teaches nothing");
        watermark.note(1, T + 500, T - 4_500, &mut journal);
        watermark.advance(T + 500, &progress(true), None, &mut Journal::default());
        assert_eq!((watermark.lateness_ms(), watermark.behind), (4_999 + 1 - 8, true));
        assert_eq!(watermark.second, Some(T / 1000 - 1), "never back");
        for step in 1..4_000 {
            watermark.advance(T + step * 1_000, &progress(true), None, &mut Journal::default());
        }
        assert_eq!(watermark.lateness_ms(), 1_000);
        watermark.note(1, T + 4_000_000, T + 3_300_000, &mut journal);
        assert_eq!(watermark.lateness_ms(), 1_000, "no buffer holds a line for 11 minutes");
        watermark.set_file(1, Some(5_000));
        assert_eq!(watermark.lateness_ms(), 6_000);
        watermark.set_file(1, Some(u64::MAX));
        assert_eq!(watermark.lateness_ms(), 60_000);
    }

    #[test]
    fn a_pause_of_the_agent_is_not_lateness_of_the_log() {
        let mut watermark = Watermark::default();
        watermark.advance(T, &progress(true), None, &mut Journal::default());
        watermark.note(1, T + 40_000, T + 1_000, &mut Journal::default());
        assert_eq!(watermark.lateness_ms(), 1_000);
    }

    #[test]
    fn a_silent_file_holds_it_up_for_a_minute_only() {
        let mut watermark = Watermark::default();
        watermark.advance(T, &[], None, &mut Journal::default());
        for step in 1..=70 {
            watermark.advance(T + step * 1_000, &progress(false), None, &mut Journal::default());
            let expected = if step <= 60 { T / 1000 - 1 } else { T / 1000 + step - 1 };
            assert_eq!(watermark.second, Some(expected), "{step}");
        }
    }

    #[test]
    fn the_newest_event_pulls_it_along() {
        let mut watermark = Watermark::default();
        watermark.note(1, T, T - 86_400_000, &mut Journal::default());
        watermark.advance(T, &progress(false), Some(T / 1000), &mut Journal::default());
        assert_eq!((watermark.second, watermark.behind), (Some(T / 1000 - AHEAD_S_MAX), true));
    }
}
