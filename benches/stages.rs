//! The stages that a line passes on its way, each by itself: how many nanoseconds a line costs there.
//!
//! Owns the table of stages; see benches/README.md for what each means and how to run them. It must never
//! assert on a time: a slow machine is no defect.

mod corpus;

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use watchpost::batch::redact::Redactor;
use watchpost::batch::{Added, Batch, Builder, line};
use watchpost::clock::Now;
use watchpost::follow::{Flow, Follower, HostFiles, Options as FollowOptions};
use watchpost::record::Stream;
use watchpost::spool::{AgentId, DirDisk, Fresh, Labels, NewBatch, Options as SpoolOptions, Spool};
use watchpost::window::{Options as WindowOptions, Request, Windows};
use watchpost_parsers::routes::Routes;
use watchpost_parsers::{Format, Parser, route};

use corpus::{Corpus, read_at, recommended_format, requests};

/// Uncompressed bytes of a batch: what the agent takes where the settings say nothing.
const BATCH_BYTES_MAX: u32 = 1_000_000;
/// Runs one stage without the statistics, for instruction counts: `--lines COUNT STAGE`.
const LINES_FLAG: &str = "--lines";

/// Puts so many lines through a stage and answers how long that took, without what stands around it.
type Run = Box<dyn FnMut(u64) -> Duration>;

/// Prepares a stage.
type Prepare = fn(&Corpus) -> Run;

/// Every stage with what prepares it.
const STAGES: &[(&str, Prepare)] = &[
    ("split", split),
    ("follow", follow),
    ("parse combined", |corpus| parse(&corpus.combined, Format::combined())),
    ("parse recommended", |corpus| parse(&corpus.recommended, recommended_format())),
    ("parse json", |corpus| parse(&corpus.json, Format::json())),
    ("route", route),
    ("routes", routes),
    ("observe", observe),
    ("redact", redact),
    ("record", record),
    ("take combined", |corpus| take(&corpus.combined, Format::combined(), Timed::Taking)),
    ("take recommended", |corpus| take(&corpus.recommended, recommended_format(), Timed::Taking)),
    ("take json", |corpus| take(&corpus.json, Format::json(), Timed::Taking)),
    ("gzip", |corpus| take(&corpus.recommended, recommended_format(), Timed::Closing)),
    ("spool", spool),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let corpus = Corpus::read();
    if let [_, flag, count, name, ..] = arguments.as_slice()
        && flag == LINES_FLAG
    {
        let count = count.parse().expect("a number of lines");
        let (_, prepare) = STAGES.iter().find(|(stage, _)| stage == name).expect("the name of a stage");
        println!("{name}: {:?} for {count} lines", prepare(&corpus)(count));
        return;
    }
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let mut group = criterion.benchmark_group("line");
    group.throughput(Throughput::Elements(1));
    for (name, prepare) in STAGES {
        let mut run = None;
        group.bench_function(*name, |bencher| {
            let run = run.get_or_insert_with(|| prepare(&corpus));
            bencher.iter_custom(run);
        });
    }
    group.finish();
    criterion.final_summary();
}

/// Gives the items one after the other, over and over, and times the whole.
fn over<T: 'static>(items: Vec<T>, mut work: impl FnMut(&T) + 'static) -> Run {
    let mut next = 0;
    Box::new(move |count| {
        let started = Instant::now();
        for _ in 0..count {
            work(&items[next]);
            next = if next + 1 == items.len() { 0 } else { next + 1 };
        }
        started.elapsed()
    })
}

fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| line.iter().chain(b"\n")).copied().collect()
}

/// Whole passes over something of `lines` lines; answers for `count` of them.
fn passes(lines: usize, mut pass: impl FnMut() + 'static) -> Run {
    Box::new(move |count| {
        let number = count.div_ceil(lines as u64);
        let started = Instant::now();
        (0..number).for_each(|_| pass());
        started.elapsed().mul_f64(count as f64 / (number * lines as u64) as f64)
    })
}

fn split(corpus: &Corpus) -> Run {
    let text = joined(&corpus.recommended);
    passes(corpus.recommended.len(), move || {
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', &text) {
            black_box(&text[start..newline]);
            start = newline + 1;
        }
    })
}

fn follow(corpus: &Corpus) -> Run {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    std::fs::write(&path, joined(&corpus.recommended)).expect("a file");
    let patterns = vec![path.display().to_string()];
    passes(corpus.recommended.len(), move || {
        let _keep = &folder;
        let options = FollowOptions { patterns: patterns.clone(), first_start_at_end: false };
        let mut follower = Follower::new(Arc::new(HostFiles), options, std::iter::empty(), true);
        let now = Instant::now();
        follower.scan(now);
        for id in follower.ids() {
            while follower
                .turn(id, u64::MAX, now, &mut |line| {
                    black_box(line);
                    Flow::Continue
                })
                .more
            {}
        }
    })
}

fn parse(lines: &[Vec<u8>], format: Format) -> Run {
    let mut parser = Parser::new(format);
    over(lines.to_vec(), move |line| {
        let _ = black_box(parser.parse(line));
    })
}

fn route(corpus: &Corpus) -> Run {
    let mut text = String::new();
    over(requests(&corpus.recommended, recommended_format()), move |request| {
        text.clear();
        route::route(request.method.as_deref(), request.target.as_deref(), &mut text);
        black_box(&text);
    })
}

fn routes(corpus: &Corpus) -> Run {
    let mut routes = Routes::new();
    over(requests(&corpus.recommended, recommended_format()), move |request| {
        black_box(routes.of(request.method.as_deref(), request.target.as_deref()));
    })
}

fn observe(corpus: &Corpus) -> Run {
    let mut windows = Windows::new(WindowOptions::default(), 0);
    let requests = requests(&corpus.recommended, recommended_format());
    let rows = requests.into_iter().map(|request| (request, Cell::new(0))).collect();
    over(rows, move |(request, row)| {
        let request = Request {
            time_ms: request.time_ms,
            status: request.status,
            bytes_sent: request.bytes_sent,
            request_time_ms: request.request_time_ms,
            vhost: request.vhost.as_deref(),
            route: request.route.as_bytes(),
            route_row: row.get(),
        };
        row.set(windows.observe(1, read_at(), &request));
    })
}

fn redact(corpus: &Corpus) -> Run {
    let redactor = Redactor::new(&[]);
    let mut masked = Vec::new();
    over(corpus.recommended.clone(), move |line| {
        black_box(redactor.mask(line, &mut masked));
    })
}

fn record(corpus: &Corpus) -> Run {
    let mut out = Vec::new();
    over(corpus.recommended.clone(), move |line| {
        out.clear();
        line::write(&mut out, read_at(), line, line::Marks::default(), BATCH_BYTES_MAX as usize);
        black_box(&out);
    })
}

/// What the clock sees of taking lines until a batch is full, and closing it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Timed {
    Taking,
    Closing,
}

/// What the agent does with a line, in its order: parse, mask, put into the batch, find the route, count.
struct Taker {
    parser: Parser,
    redactor: Redactor,
    masked: Vec<u8>,
    builder: Builder,
    routes: Routes,
    windows: Windows,
}

impl Taker {
    fn new(format: Format) -> Taker {
        Taker {
            parser: Parser::new(format),
            redactor: Redactor::new(&[]),
            masked: Vec::new(),
            builder: Builder::new(BATCH_BYTES_MAX),
            routes: Routes::new(),
            windows: Windows::new(WindowOptions::default(), 0),
        }
    }

    fn take(&mut self, line: &[u8]) {
        let Ok(parsed) = self.parser.parse(line) else { return };
        let text = self.redactor.mask(line, &mut self.masked).unwrap_or(line);
        let timestamp = parsed.time_ms.unwrap_or(read_at());
        let limit = BATCH_BYTES_MAX as usize - 1;
        let write = |out: &mut Vec<u8>| {
            line::write(out, timestamp, text, line::Marks::default(), limit);
        };
        if self.builder.add(1, write) != Added::Yes {
            return;
        }
        let known = self.routes.of(parsed.method, parsed.target);
        let request = Request {
            time_ms: parsed.time_ms,
            status: parsed.status.unwrap_or(0),
            bytes_sent: parsed.bytes_sent.unwrap_or(0),
            request_time_ms: parsed.request_time_ms,
            vhost: parsed.vhost,
            route: known.route,
            route_row: *known.note,
        };
        *known.note = self.windows.observe(1, read_at(), &request);
    }
}

fn take(lines: &[Vec<u8>], format: Format, timed: Timed) -> Run {
    let lines = lines.to_vec();
    let mut taker = Taker::new(format);
    let mut next = 0;
    Box::new(move |count| {
        let mut left = count;
        let (mut taking, mut closing) = (Duration::ZERO, Duration::ZERO);
        // The cost of a batch is shared by the lines in it, also where fewer were asked for.
        let mut batches_lines = 0;
        while left > 0 {
            let started = Instant::now();
            while left > 0 && !taker.builder.is_nearly_full() {
                taker.take(&lines[next]);
                next = if next + 1 == lines.len() { 0 } else { next + 1 };
                left -= 1;
            }
            taking += started.elapsed();
            if taker.builder.is_nearly_full() || (left == 0 && timed == Timed::Closing) {
                batches_lines += taker.builder.lines();
                let started = Instant::now();
                black_box(taker.builder.close());
                closing += started.elapsed();
            }
        }
        match timed {
            Timed::Taking => taking,
            Timed::Closing => closing.mul_f64(count as f64 / batches_lines.max(1) as f64),
        }
    })
}

/// A full batch, as the agent makes it of recommended lines.
fn full_batch(corpus: &Corpus) -> Batch {
    let mut taker = Taker::new(recommended_format());
    let mut lines = corpus.recommended.iter().cycle();
    while !taker.builder.is_nearly_full() {
        taker.take(lines.next().expect("the corpus has lines"));
    }
    taker.builder.close().expect("it has lines")
}

/// Append and commit of a full batch, which ends with an fsync; delivery, outside of the time, keeps it small.
fn spool(corpus: &Corpus) -> Run {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DirDisk::open(&folder.path().join("spool")).expect("a spool's folder");
    let fresh = Fresh { agent: AgentId([1; 16]), nonce: 1 };
    let mut spool = Spool::open(disk, SpoolOptions::default(), Now::read(), fresh).expect("a spool");
    let batch = full_batch(corpus);
    Box::new(move |count| {
        let _keep = &folder;
        let number = count.div_ceil(batch.lines);
        let mut total = Duration::ZERO;
        for _ in 0..number {
            let new = NewBatch {
                stream: Stream::AccessLines,
                labels: Labels { category: "watchpost/nginx/access".to_owned(), ..Labels::default() },
                created_ms: read_at(),
                lines: batch.lines,
                records: batch.records,
                raw_bytes: batch.raw_bytes,
                body: batch.body.clone(),
            };
            let started = Instant::now();
            spool.append(Some(new), Vec::new()).expect("there is room");
            spool.commit(Now::read()).expect("the disk works");
            total += started.elapsed();
            let held = spool.oldest().expect("just committed");
            spool.ack(held.id.seq, Now::read()).expect("the oldest");
        }
        total.mul_f64(count as f64 / (number * batch.lines) as f64)
    })
}
