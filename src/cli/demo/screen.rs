//! What is seen while the demo runs: a line that is drawn again and again on a terminal, plain lines elsewhere.
//!
//! It decides nothing; and it must leave a terminal as it found it.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::ask::Numbers;
use crate::cli::{grouped, size};

/// Between two plain lines where stdout is not a terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

/// Back to the first column, and no wrapping: a terminal that is too narrow shows the beginning of the line
/// instead of scrolling (DECAWM of the VT100).
const REDRAW: &str = "\r\x1b[?7l";
/// The rest of the old line goes, wrapping is back, and so is the cursor: what a key echoes must not open a line.
const REDRAWN: &str = "\x1b[K\x1b[?7h\r";
/// The line goes altogether.
const WIPE: &str = "\r\x1b[K";

/// Colours of the terminal, by their meaning here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ink {
    Good,
    Bad,
    Waiting,
    Quiet,
    Strong,
}

impl Ink {
    /// Select Graphic Rendition, ECMA-48.
    fn code(self) -> &'static str {
        match self {
            Ink::Good => "32",
            Ink::Bad => "1;31",
            Ink::Waiting => "33",
            Ink::Quiet => "2",
            Ink::Strong => "1",
        }
    }
}

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Palette {
    pub(super) colored: bool,
}

impl Palette {
    /// The text in a colour, or as it is.
    pub(super) fn paint(self, ink: Ink, text: &str) -> String {
        if self.colored { format!("\x1b[{}m{text}\x1b[0m", ink.code()) } else { text.to_owned() }
    }
}

/// What the demo is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Lines come, lines go.
    Serving,
    /// The receiver cannot be reached.
    Outage,
    /// It can again; what waited goes out.
    Draining,
    /// No more traffic; the last lines go out.
    Finishing,
}

impl Phase {
    fn words(self) -> (&'static str, Ink) {
        match self {
            Phase::Serving => ("serving", Ink::Good),
            Phase::Outage => ("OUTAGE", Ink::Bad),
            Phase::Draining => ("draining", Ink::Waiting),
            Phase::Finishing => ("finishing", Ink::Quiet),
        }
    }
}

/// The numbers of one moment.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) phase: Phase,
    pub(super) elapsed: Duration,
    pub(super) written: u64,
    /// What the waiting batches take on disk, beside what the spool has reserved.
    pub(super) spool_bytes: u64,
    pub(super) numbers: &'a Numbers,
    /// Access lines at the receiver.
    pub(super) received: u64,
}

impl View<'_> {
    /// All of it in one line; what matters most comes first, since a narrow terminal cuts the end.
    fn line(&self, palette: Palette) -> String {
        let numbers = self.numbers;
        let (word, ink) = self.phase.words();
        let rate = |qps: Option<f64>| qps.map_or_else(|| "-".to_owned(), |qps| format!("{qps:.0}"));
        let errors =
            numbers.error_rate_10s.map_or_else(|| "-".to_owned(), |share| format!("{:.1}", share * 100.0));
        let held = format!("{} held", grouped(numbers.held));
        let held = match self.phase {
            Phase::Outage | Phase::Draining => palette.paint(Ink::Waiting, &held),
            Phase::Serving | Phase::Finishing => held,
        };
        let balanced = match numbers.balanced {
            true => palette.paint(Ink::Good, "balanced"),
            false => palette.paint(Ink::Bad, "NOT BALANCED"),
        };
        let mut line = format!(
            "{} {:>5}  {:>3}/s {:>4} % err  read {} = {} shipped + {held}  spool {}, {}  receiver {}  {balanced}",
            palette.paint(ink, &format!("{word:<9}")),
            clock(self.elapsed),
            rate(numbers.qps_10s),
            errors,
            grouped(numbers.read),
            grouped(numbers.shipped),
            batches(numbers.spool_batches),
            size(self.spool_bytes),
            grouped(self.received),
        );
        if let (true, Some(wait_s)) = (numbers.retrying, numbers.next_try_in_s) {
            let _ = write!(line, "  next try in {wait_s:.0} s");
        }
        let _ = write!(line, "  written {}  1m {}/s", grouped(self.written), rate(numbers.qps_1m));
        line
    }
}

/// Minutes and seconds.
pub(super) fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

/// A number of batches, in words.
pub(super) fn batches(number: u64) -> String {
    format!("{} {}", grouped(number), if number == 1 { "batch" } else { "batches" })
}

/// The terminal, or whatever stdout is.
pub(super) struct Screen<W: Write> {
    out: W,
    is_terminal: bool,
    palette: Palette,
    line_shown: bool,
    plain_due: Option<Instant>,
    error: Option<io::Error>,
}

impl<W: Write> Screen<W> {
    pub(super) fn new(out: W, is_terminal: bool, palette: Palette) -> Screen<W> {
        Screen { out, is_terminal, palette, line_shown: false, plain_due: None, error: None }
    }

    pub(super) fn palette(&self) -> Palette {
        self.palette
    }

    /// Text that stays.
    pub(super) fn say(&mut self, text: &str) {
        let wipe = if std::mem::take(&mut self.line_shown) { WIPE } else { "" };
        self.put(&format!("{wipe}{text}\n"));
    }

    /// Something happened: said with its time, and the numbers of that moment follow.
    pub(super) fn tell(&mut self, elapsed: Duration, text: &str) {
        let time = self.palette.paint(Ink::Quiet, &format!("{:>7}", clock(elapsed)));
        self.say(&format!("{time}  {text}"));
        self.plain_due = None;
    }

    /// The numbers: drawn over the last ones on a terminal, every two seconds elsewhere.
    pub(super) fn show(&mut self, view: &View<'_>, now: Instant) {
        if self.is_terminal {
            self.put(&format!("{REDRAW}{}{REDRAWN}", view.line(self.palette)));
            self.line_shown = true;
        } else if self.plain_due.is_none_or(|due| now >= due) {
            self.put(&format!("{}\n", view.line(self.palette)));
            self.plain_due = Some(now + PLAIN_INTERVAL);
        }
    }

    /// Whether stdout is gone.
    pub(super) fn is_broken(&self) -> bool {
        self.error.is_some()
    }

    /// Removes the line, if there is one.
    ///
    /// # Errors
    /// What kept it from writing, now or before.
    pub(super) fn close(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.line_shown) {
            self.put(WIPE);
        }
        self.error.take().map_or(Ok(()), Err)
    }

    fn put(&mut self, text: &str) {
        if self.error.is_none() {
            self.error = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).err();
        }
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Palette = Palette { colored: false };

    fn numbers() -> Numbers {
        Numbers {
            read: 1_230,
            shipped: 980,
            held: 250,
            balanced: true,
            qps_10s: Some(151.4),
            error_rate_10s: Some(0.0042),
            spool_batches: 1,
            ..Numbers::default()
        }
    }

    fn view(numbers: &Numbers) -> View<'_> {
        View {
            phase: Phase::Outage,
            elapsed: Duration::from_secs(68),
            written: 1_240,
            spool_bytes: 12_595,
            numbers,
            received: 980,
        }
    }

    #[test]
    fn the_line_holds_the_account() {
        let mut numbers = numbers();
        let expected = "OUTAGE     1:08  151/s  0.4 % err  read 1,230 = 980 shipped + 250 held  \
                        spool 1 batch, 12.3 KiB  receiver 980  balanced  written 1,240  1m -/s";
        assert_eq!(view(&numbers).line(PLAIN), expected);
        (numbers.balanced, numbers.retrying, numbers.next_try_in_s) = (false, true, Some(3.6));
        let line = view(&numbers).line(PLAIN);
        assert!(line.contains("NOT BALANCED  next try in 4 s"), "{line}");
        let shown: String = line.chars().take(80).collect();
        assert!(shown.contains("250 held"), "a terminal of 80 columns shows the account: {shown}");
    }

    #[test]
    fn a_terminal_is_redrawn_and_left_clean() {
        let mut out = Vec::new();
        let numbers = numbers();
        let mut screen = Screen::new(&mut out, true, Palette { colored: true });
        let now = Instant::now();
        screen.show(&view(&numbers), now);
        screen.tell(Duration::from_secs(9), "something happened");
        screen.show(&view(&numbers), now);
        drop(screen);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert_eq!(text.matches("\x1b[?7l").count(), text.matches("\x1b[?7h").count());
        assert!(text.contains("something happened\n") && text.ends_with(WIPE), "{text:?}");
    }

    #[test]
    fn elsewhere_there_are_plain_lines_now_and_then() {
        let mut out = Vec::new();
        let numbers = numbers();
        let mut screen = Screen::new(&mut out, false, PLAIN);
        let now = Instant::now();
        for tenth in 0..50 {
            screen.show(&view(&numbers), now + Duration::from_millis(tenth * 100));
        }
        screen.tell(Duration::from_secs(5), "something happened");
        screen.show(&view(&numbers), now + Duration::from_secs(5));
        drop(screen);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.lines().count(), 3 + 1 + 1, "{text}");
        assert!(!text.contains('\x1b') && !text.contains('\r'), "{text:?}");
    }

    #[test]
    fn a_closed_pipe_is_remembered() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut screen = Screen::new(Closed, false, PLAIN);
        screen.say("hello");
        assert!(screen.is_broken());
        assert_eq!(screen.close().expect_err("it is gone").kind(), io::ErrorKind::BrokenPipe);
    }
}
