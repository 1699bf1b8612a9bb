//! `watchpost demo`: the agent, a log that is being written and a receiver, all in this process, with nothing to
//! configure; an outage is played, and at the end both sides of every number are shown.
//!
//! It must leave nothing behind, and it must not claim anything that it did not count on both sides.

mod ask;
mod cost;
mod peer;
mod screen;
mod sheet;
mod sites;
mod stage;
mod timeline;
mod traffic;
mod writer;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Stdout};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use self::ask::Numbers;
use self::cost::Cost;
use self::peer::Peer;
use self::screen::{Ink, Palette, Phase, Screen, View, clock};
use self::sheet::{Facts, Outcome, Peak};
use self::stage::{Runner, Stage};
use self::timeline::{Event, Timeline};
use self::writer::{Order, Writer};
use super::{Failure, exit, grouped};

/// Between two looks at the numbers.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Between two looks at the disk.
const TRIM_INTERVAL: Duration = Duration::from_secs(30);
/// Once no more is written, how long the agent may go without shipping a line. A sender that waits after a failure
/// has that wait on top.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take in all: more than two of the sender's longest waits.
const SETTLE_TIMEOUT_MAX: Duration = Duration::from_secs(150);
/// A sender that is through with its backlog has at most these waiting: those of the last second.
const SERVING_BATCHES_MAX: u64 = 3;
/// The same shop every time.
const SEED: u64 = 20_240_229;

/// Where files of no lasting worth go, where TMPDIR names no other place.
const TEMPORARY_DIRECTORY: &str = "/tmp";

/// Runs the demo for `seconds`, or until SIGINT or SIGTERM, and prints the balance sheet.
///
/// # Errors
/// 70 when the account does not balance; 74 when the stage cannot be set, or stdout is gone.
pub fn run(seconds: Option<u64>, environment: &BTreeMap<String, String>) -> Result<(), Failure> {
    let (interrupts, heard) = mpsc::channel();
    let temporary = environment.get("TMPDIR").map_or(TEMPORARY_DIRECTORY, String::as_str);
    let stage = Stage::build(Path::new(temporary))?;
    let peer = Peer::start(stage.store(), interrupts)?;
    let cannot_write = |error| Failure::io(format!("cannot write {}", stage.log().display()), &error);
    let writer = Writer::start(&stage.log(), SEED).map_err(cannot_write)?;
    let agent = Runner::start(&stage, peer.address())?;
    let mut demo = Demo {
        screen: screen(environment),
        timeline: Timeline::new(seconds),
        begun: Instant::now(),
        heard,
        phase: Phase::Serving,
        numbers: None,
        resting_bytes: 0,
        peak: Peak::default(),
        outage: Duration::ZERO,
        outage_since: None,
        trim_due: Instant::now() + TRIM_INTERVAL,
        agent,
        writer,
        peer,
    };
    demo.introduce(&stage);
    demo.play()?;
    let facts = demo.finish()?;
    let palette = demo.screen.palette();
    demo.screen.say(&facts.render(palette));
    demo.screen.close().map_err(|error| Failure::io("cannot write to stdout", &error))?;
    drop(demo);
    stage.remove()?;
    match facts.outcome() {
        Outcome::Balanced | Outcome::LeftEarly { .. } => Ok(()),
        Outcome::Unbalanced(wrong) => {
            Err(Failure::new(exit::SOFTWARE, format!("the demo does not balance: {}", wrong.join("; "))))
        }
    }
}

/// Colours by <https://no-color.org>; a terminal that calls itself dumb is drawn on as if it were none.
fn screen(environment: &BTreeMap<String, String>) -> Screen<Stdout> {
    let is_dumb = environment.get("TERM").is_none_or(|term| term == "dumb");
    let is_terminal = io::stdout().is_terminal() && !is_dumb;
    let colored = is_terminal && environment.get("NO_COLOR").is_none_or(String::is_empty);
    Screen::new(io::stdout(), is_terminal, Palette { colored })
}

/// Everything that runs, in the order in which it must end.
struct Demo {
    screen: Screen<Stdout>,
    timeline: Timeline,
    begun: Instant,
    heard: mpsc::Receiver<()>,
    phase: Phase,
    /// The agent's last answer; none before its first tick.
    numbers: Option<Numbers>,
    /// What the spool takes on disk while nothing waits: it reserves room ahead.
    resting_bytes: u64,
    peak: Peak,
    outage: Duration,
    outage_since: Option<Instant>,
    trim_due: Instant,
    agent: Runner,
    writer: Writer,
    peer: Peer,
}

impl Demo {
    /// What this is, what to open, and what will happen when.
    fn introduce(&mut self, stage: &Stage) {
        let palette = self.screen.palette();
        let page = palette.paint(Ink::Strong, &format!("http://{}/", self.agent.address()));
        let elsewhere = if self.agent.is_at_usual_address() { "" } else { " (the usual port is taken)" };
        self.screen.say(&format!(
            "watchpost demo: a pretended shop writes its access log, the agent follows it and ships every line\n\
             \n  open        {page}{elsewhere}\n  receiver    http://{}/stats, in place of Sumo Logic\n  \
             log         {}\n",
            self.peer.address(),
            stage.log().display()
        ));
        for (at, event) in self.timeline.program() {
            self.screen.say(&format!("  {:>5}  {}", clock(at), describe(event)));
        }
        let until = match self.timeline.period() {
            Some(period) => format!("  and again every {} minutes. ", clock(period)),
            None => "  ".to_owned(),
        };
        self.screen
            .say(&format!("\n{until}Ctrl-C ends it, with the balance sheet; nothing is left behind.\n"));
    }

    /// Lets everything happen at its time, until the end or a signal.
    fn play(&mut self) -> Result<(), Failure> {
        loop {
            while let Some(event) = self.timeline.due(self.begun.elapsed()) {
                if event == Event::End {
                    return Ok(());
                }
                self.act(event);
            }
            self.look();
            self.check_running()?;
            if self.is_interrupted() || self.screen.is_broken() {
                return Ok(());
            }
        }
    }

    /// Waits until the next look is due; `true` when a signal came.
    fn is_interrupted(&self) -> bool {
        match self.heard.recv_timeout(LOOK_INTERVAL) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
        }
    }

    fn act(&mut self, event: Event) {
        match event {
            Event::Rotation => self.writer.order(Order::Rotate),
            Event::BackendFails => self.writer.order(Order::Failing(true)),
            Event::BackendRecovers => self.writer.order(Order::Failing(false)),
            Event::OutageBegins => {
                self.peer.set_reachable(false);
                self.outage_since = Some(Instant::now());
                self.phase = Phase::Outage;
            }
            Event::OutageEnds => self.end_outage(),
            Event::End => {}
        }
        self.screen.tell(self.begun.elapsed(), describe(event));
    }

    fn end_outage(&mut self) {
        if let Some(since) = self.outage_since.take() {
            self.peer.set_reachable(true);
            self.outage += since.elapsed();
            self.phase = Phase::Draining;
        }
    }

    /// Asks the agent, remembers what waited at the most, and shows it all.
    fn look(&mut self) {
        // An answer that does not come leaves the numbers as they were; the end waits for them to be right.
        if let Ok(Some(numbers)) = ask::numbers(self.agent.address()) {
            self.numbers = Some(numbers);
        }
        let now = Instant::now();
        if now >= self.trim_due {
            self.peer.trim_store();
            self.trim_due = now + TRIM_INTERVAL;
        }
        let Some(numbers) = &self.numbers else { return };
        let waits = matches!(self.phase, Phase::Outage | Phase::Draining);
        if !waits && numbers.spool_batches == 0 {
            self.resting_bytes = numbers.spool_bytes;
        }
        let spool_bytes = match numbers.spool_batches {
            0 => 0,
            _ => numbers.spool_bytes.saturating_sub(self.resting_bytes),
        };
        if waits && numbers.held > self.peak.lines {
            self.peak = Peak { lines: numbers.held, batches: numbers.spool_batches, bytes: spool_bytes };
        }
        if self.phase == Phase::Draining && !numbers.retrying && numbers.spool_batches <= SERVING_BATCHES_MAX
        {
            self.phase = Phase::Serving;
            let drained = format!("drained; at the most {} lines had waited", grouped(self.peak.lines));
            self.screen.tell(self.begun.elapsed(), &drained);
        }
        let view = View {
            phase: self.phase,
            elapsed: self.begun.elapsed(),
            written: self.writer.written().lines,
            spool_bytes,
            numbers,
            received: sheet::received(&self.peer.stats()),
        };
        self.screen.show(&view, now);
    }

    /// Nothing may end by itself.
    fn check_running(&mut self) -> Result<(), Failure> {
        if self.writer.has_ended() {
            self.writer.stop().map_err(|error| Failure::io("the log cannot be written", &error))?;
            return Err(Failure::new(exit::SOFTWARE, "the writer ended by itself"));
        }
        self.check_agent()?;
        if self.peer.has_ended() {
            self.peer.stop()?;
            return Err(Failure::new(exit::SOFTWARE, "the receiver ended by itself"));
        }
        Ok(())
    }

    fn check_agent(&mut self) -> Result<(), Failure> {
        if self.agent.has_ended() {
            self.agent.stop()?;
            return Err(Failure::new(exit::SOFTWARE, "the agent ended by itself"));
        }
        Ok(())
    }

    /// Ends everything in order, the writer first, and collects what each has counted.
    fn finish(&mut self) -> Result<Facts, Failure> {
        self.end_outage();
        // Before the writer ends, since the kernel forgets what a thread that is gone has cost.
        let cost = Cost::read();
        let elapsed = self.begun.elapsed();
        let written = self.writer.stop().map_err(|error| Failure::io("the log cannot be written", &error))?;
        self.phase = Phase::Finishing;
        let is_settled = self.settle(written.lines)?;
        self.agent.stop()?;
        let stats = self.peer.stop()?;
        let summarised = self.peer.summarised_requests()?;
        Ok(Facts {
            elapsed,
            written,
            numbers: self.numbers.clone().unwrap_or_default(),
            stats,
            summarised,
            outage: self.outage,
            peak: self.peak,
            cost,
            left_early: !is_settled,
        })
    }

    /// Waits until every line was read and shipped; `false` when somebody did not want to wait.
    fn settle(&mut self, lines: u64) -> Result<bool, Failure> {
        self.screen.tell(self.begun.elapsed(), "no more traffic; the last lines go out (Ctrl-C leaves them)");
        let mut shipped = 0;
        let mut deadline = Instant::now() + SETTLE_TIMEOUT;
        let last = Instant::now() + SETTLE_TIMEOUT_MAX;
        loop {
            self.look();
            self.check_agent()?;
            let nothing = Numbers::default();
            let numbers = self.numbers.as_ref().unwrap_or(&nothing);
            let is_settled = numbers.read == lines && numbers.held == 0;
            if is_settled || Instant::now() >= deadline {
                return Ok(true);
            }
            if numbers.shipped > shipped || numbers.next_try_in_s.is_some() {
                shipped = numbers.shipped;
                let wait = Duration::try_from_secs_f64(numbers.next_try_in_s.unwrap_or(0.0));
                deadline = (Instant::now() + SETTLE_TIMEOUT + wait.unwrap_or_default()).min(last);
            }
            if self.screen.is_broken() || self.is_interrupted() {
                return Ok(false);
            }
        }
    }
}

/// What happens, in words.
fn describe(event: Event) -> &'static str {
    match event {
        Event::Rotation => "the log is rotated: renamed, written on for a moment, begun anew",
        Event::BackendFails => "a backend fails: the error rate rises",
        Event::BackendRecovers => "the backend is well again",
        Event::OutageBegins => "the receiver goes away: lines wait in the spool, on disk",
        Event::OutageEnds => "the receiver is back: the sender tries again and the spool drains",
        Event::End => "the end, with the balance sheet",
    }
}
