//! Bit rot: every byte of a spool turned over, every length cut, sectors zeroed, segments swapped and doubled.
//!
//! What may be lost is worked out here from the whole spool's records, without recovery's help: a record
//! that is damaged costs its own batches and nothing else, and these are counted with their lines. Only
//! where nothing stands behind the damage that could vouch for it does the log go back to before it, as
//! after a torn write, and then says how many bytes that were.
//!
//! `WATCHPOST_TEST_ROT_MASKS=8` turns over more of every byte of the larger spool.

use std::ops::Range;

use crate::record::{Loss, LossReason};

use super::super::format::{Entry, Kind, decode_checkpoint};
use super::super::quarantine::QUARANTINE_DIVISOR;
use super::super::unread::Unread;
use super::super::walk::{Step, Walker, segment_name, segment_number};
use super::*;

type Files = Vec<(String, Vec<u8>)>;

const SECTOR_BYTES: usize = 512;
/// Of each byte of the larger spool, turned over by default.
const MASKS: [u8; 8] = [0x01, 0x80, 0xFF, 0x10, 0x02, 0x04, 0x20, 0x40];
const MASKS_DEFAULT: usize = 2;

/// A spool as it stands on a disk, and all that was ever put in it.
struct Written {
    files: Files,
    batches: BTreeMap<String, NewBatch>,
    records: Vec<Rec>,
}

/// One record of the whole spool.
struct Rec {
    file: usize,
    range: Range<usize>,
    durable_len: usize,
    lines: u64,
    kind: Kind,
    /// Number and lines of each batch.
    batches: Vec<(u64, u64)>,
    /// Settled up to, lines delivered, lines dropped; from the records that say so.
    settled: Option<(u64, u64, u64)>,
}

/// What the log says as of some record.
#[derive(Clone, Debug, Default)]
struct World {
    pending: Vec<u64>,
    lines: BTreeMap<u64, u64>,
    appended: u64,
    delivered: u64,
    dropped: u64,
}

fn fold(records: &[Rec]) -> World {
    let mut world = World::default();
    for record in records {
        world.appended = world.appended.max(record.lines);
        world.pending.extend(record.batches.iter().map(|(seq, _)| seq));
        world.lines.extend(record.batches.iter().copied());
        if let Some((settled, delivered, dropped)) = record.settled {
            world.pending.retain(|seq| *seq > settled);
            (world.delivered, world.dropped) = (delivered, dropped);
        }
    }
    world
}

fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::default();
    for (name, content) in files {
        disk.put(name, content);
    }
    disk
}

fn records(files: &Files) -> Vec<Rec> {
    let disk = disk_of(files);
    let mut records = Vec::new();
    for (file, (name, content)) in files.iter().enumerate() {
        let number = segment_number(name).unwrap();
        let mut walker = Walker::new(&disk, number, content.len() as u64, Unread::Fails);
        loop {
            let record = match walker.step().unwrap() {
                Step::Record(record) => record,
                Step::End => break,
                Step::Damaged { .. } => panic!("{name} is damaged before anything was done to it"),
            };
            let kind = record.header.kind().unwrap().unwrap();
            let (mut batches, mut settled) = (Vec::new(), None);
            match kind {
                Kind::Entry => {
                    let entry = Entry::decode(&record.head, record.header.body_len).unwrap();
                    batches = entry.batches.iter().map(|meta| (meta.seq, meta.lines)).collect();
                    let totals = entry.totals;
                    settled = Some((entry.settled, totals.delivered.lines, totals.dropped_lines));
                }
                Kind::Checkpoint => {
                    let (prelude, _) = decode_checkpoint(&record.head).unwrap();
                    let totals = prelude.totals;
                    settled = Some((prelude.settled, totals.delivered.lines, totals.dropped_lines));
                }
                Kind::Segment | Kind::Seal => {}
            }
            let range = record.offset as usize..walker.offset() as usize;
            let (durable_len, lines) = (record.header.durable_len as usize, record.header.lines);
            records.push(Rec { file, range, durable_len, lines, kind, batches, settled });
        }
    }
    records
}

fn segment_files(disk: &SimDisk) -> Files {
    let names = disk.names().into_iter().filter(|name| segment_number(name).is_some());
    names.map(|name| (name.clone(), disk.content(&name))).filter(|(_, content)| !content.is_empty()).collect()
}

impl Written {
    fn new(files: Files, batches: BTreeMap<String, NewBatch>) -> Written {
        let records = records(&files);
        Written { files, batches, records }
    }

    /// The golden spool. What was put in it is read from it, which other tests hold to be true.
    fn golden() -> Written {
        let files = golden::read();
        let disk = disk_of(&files);
        let mut batches = BTreeMap::new();
        for view in segments(&disk).unwrap().into_iter().flat_map(|view| view.batches) {
            let body = batch_body(&disk, &view).unwrap().unwrap();
            let batch = NewBatch {
                stream: view.stream,
                labels: view.labels,
                created_ms: view.created_ms,
                lines: view.lines,
                records: view.records,
                raw_bytes: view.raw_bytes,
                body,
            };
            batches.insert(view.id.to_string(), batch);
        }
        Written::new(files, batches)
    }

    /// Three runs over many small segments: every stream, several batches in one commit, state that
    /// changes and goes, deliveries, refusals, a split, losses found elsewhere. The end is sealed or not.
    fn rich(sealed: bool) -> Written {
        let disk = SimDisk::default();
        let mut random = fastrand::Rng::with_seed(11);
        let mut batches = BTreeMap::new();
        let mut put = |id: String, batch: NewBatch| assert_eq!(batches.insert(id, batch), None);
        for run in 0..3u8 {
            let options = Options { segment_bytes: 1024, ..small() };
            let mut spool = Spool::open(disk.clone(), options, at(0), FRESH).unwrap();
            for step in 0..3u8 {
                for _ in 0..=u8::from(step == 1) {
                    let body: Vec<u8> = (0..random.usize(0..80)).map(|_| random.u8(..)).collect();
                    let mut batch = batch(random.u64(0..50), &body);
                    batch.stream = Stream::ALL[random.usize(0..Stream::ALL.len())];
                    batch.labels.fields = format!("run={run},step={step}");
                    let value = (step != 2).then(|| vec![run, step]);
                    let change = vec![(vec![b'k', step % 2], value)];
                    let id = spool.append(Some(batch.clone()), change).unwrap().unwrap();
                    put(id.to_string(), batch);
                }
                spool.commit(at(1)).unwrap();
                let front = spool.oldest().unwrap();
                match (run, step) {
                    (0 | 2, 1) => spool.ack(front.id.seq, at(2)).unwrap(),
                    (0, 2) => spool.lose(front.id.seq, LossReason::Refused, at(2)).unwrap(),
                    (1, 2) => {
                        let half = front.body.len() / 2;
                        let parts = vec![
                            batch(front.lines / 2, &front.body[..half]),
                            batch(front.lines / 2, &front.body[half..]),
                        ];
                        let ids = spool.split(front.id.seq, parts.clone(), at(2)).unwrap();
                        ids.into_iter().zip(parts).for_each(|(id, part)| put(id.to_string(), part));
                    }
                    (1, 0) => spool.record_loss(LossReason::Truncated, Loss { lines: 0, bytes: 77 }),
                    _ => {}
                }
            }
            if sealed || run == 0 {
                spool.close(at(3)).unwrap();
            }
        }
        Written::new(segment_files(&disk), batches)
    }

    /// Up to where the last file is known to have been durable.
    fn known(&self) -> usize {
        let last = self.files.len() - 1;
        let known = self.records.iter().filter(|record| record.file == last).map(|r| r.durable_len).max();
        known.unwrap_or(0)
    }

    /// Whether nothing stands behind a record that could vouch for it.
    fn is_tail(&self, record: &Rec) -> bool {
        record.file + 1 == self.files.len() && record.range.start >= self.known()
    }

    fn lines_of(&self, seq: u64) -> u64 {
        self.records.iter().flat_map(|r| &r.batches).find(|(number, _)| *number == seq).unwrap().1
    }

    /// Opens, uses and opens again a spool of these files, where these records were damaged.
    fn judge(&self, files: &Files, damaged: &[usize]) -> Result<Verdict, String> {
        let tail = damaged.iter().copied().find(|index| self.is_tail(&self.records[*index]));
        let mut worlds = vec![(fold(&self.records), false)];
        if let Some(tail) = tail {
            worlds.push((fold(&self.records[..tail]), true));
        }
        let may_go: Vec<u64> = damaged
            .iter()
            .flat_map(|index| self.records[*index].batches.iter().map(|(seq, _)| *seq))
            .collect();
        let outcome = self.use_spool(files)?;
        let mut why = String::new();
        for (world, went_back) in worlds {
            match outcome.holds(self, &world, &may_go, went_back) {
                Ok(missing) => return Ok(Verdict { went_back, missing, rotten: outcome.rotten }),
                Err(text) => why = format!("{why}\n{text}"),
            }
        }
        Err(format!("{why}\n{outcome:?}"))
    }

    /// Looks, opens, delivers all, goes on, opens again: with the checks that hold whatever was damaged.
    fn use_spool(&self, files: &Files) -> Result<Outcome, String> {
        let disk = disk_of(files);
        look(&disk)?;
        let mut spool = Spool::open(disk.clone(), small(), at(0), FRESH).map_err(|e| e.to_string())?;
        let recovery = spool.recovered().clone();
        let start = spool.status();
        let mut offered = Vec::new();
        while let Some(batch) = spool.oldest() {
            self.is_as_written(&batch)?;
            offered.push(batch.id.seq);
            spool.ack(batch.id.seq, at(0)).map_err(|e| e.to_string())?;
        }
        let end = spool.status();
        for status in [&start, &end] {
            let known = status.delivered.lines + status.lines + status.dropped_lines;
            check!(status.appended_lines == known, "lines do not balance: {status:?}");
            check!(status.quarantine_bytes <= (1 << 20) / QUARANTINE_DIVISOR, "quarantine: {status:?}");
        }
        check!(end.batches == 0 && end.lines == 0, "batches are held and not offered: {end:?}");
        let id = spool.append(Some(batch(1, b"next")), vec![]).map_err(|e| e.to_string())?.unwrap();
        check!(!self.batches.contains_key(&id.to_string()), "{id} was used before");
        spool.commit(at(1)).map_err(|e| e.to_string())?;
        let next = spool.oldest().map(|batch| batch.body);
        check!(next == Some(b"next".to_vec()), "the new batch is not offered, but {next:?}");
        spool.ack(id.seq, at(1)).map_err(|e| e.to_string())?;
        let last = spool.status();
        drop(spool);
        look(&disk)?;
        let again = open(&disk);
        let same = again.status().lost == last.lost && again.status().delivered == last.delivered;
        check!(same, "{:?} at the next start, {last:?} before", again.status());
        check!(again.recovered().lost.is_empty(), "lost once more: {:?}", again.recovered());
        let rotten = recovery.rotten_tail_bytes > 0;
        Ok(Outcome { torn_tail_bytes: recovery.torn_tail_bytes, rotten, start, end, offered })
    }

    fn is_as_written(&self, offered: &super::super::PendingBatch) -> Result<(), String> {
        let key = offered.id.to_string();
        let Some(batch) = self.batches.get(&key) else { return Err(format!("{key} was never written")) };
        let same = batch.body == offered.body
            && batch.labels == offered.labels
            && (batch.stream, batch.created_ms) == (offered.stream, offered.created_ms)
            && (batch.lines, batch.records, batch.raw_bytes)
                == (offered.lines, offered.records, offered.raw_bytes);
        check!(same, "{key} is offered as {offered:?}, written as {batch:?}");
        Ok(())
    }
}

/// What `watchpost spool ls` and `cat` do.
fn look(disk: &SimDisk) -> Result<(), String> {
    for view in segments(disk).map_err(|e| e.to_string())? {
        for batch in view.batches {
            let body = batch_body(disk, &batch).map_err(|e| e.to_string())?;
            check!(body.is_some() || batch.state != BatchState::Pending, "{batch:?} has no body");
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Outcome {
    torn_tail_bytes: u64,
    rotten: bool,
    start: super::super::SpoolStatus,
    end: super::super::SpoolStatus,
    offered: Vec<u64>,
}

/// What a damage cost.
#[derive(Debug)]
struct Verdict {
    /// Whether the log went back to before the damage.
    went_back: bool,
    /// Batches that were counted as corrupted.
    missing: Vec<u64>,
    /// Whether recovery told the tail from a torn write.
    rotten: bool,
}

impl Outcome {
    /// Whether this is that world but for some of the batches that may go, and these are counted.
    fn holds(
        &self,
        written: &Written,
        world: &World,
        may_go: &[u64],
        went_back: bool,
    ) -> Result<Vec<u64>, String> {
        check!(!went_back || self.torn_tail_bytes > 0, "it went back and does not say so");
        let kept: Vec<u64> = self.offered.clone();
        let missing: Vec<u64> = world.pending.iter().copied().filter(|seq| !kept.contains(seq)).collect();
        let expected: Vec<u64> = world.pending.iter().copied().filter(|s| !missing.contains(s)).collect();
        check!(kept == expected, "offered {kept:?}, not {expected:?}");
        check!(missing.iter().all(|seq| may_go.contains(seq)), "{missing:?} are missing, not of {may_go:?}");
        check!(self.end.appended_lines == world.appended, "appended, not {world:?}");
        let lines: u64 = missing.iter().map(|seq| written.lines_of(*seq)).sum();
        check!(self.end.dropped_lines == world.dropped + lines, "{lines} lines dropped after {world:?}");
        let corrupted = self.end.lost.get(&LossReason::Corrupted).copied().unwrap_or_default();
        check!(corrupted.lines == lines, "{corrupted:?} corrupted, not {lines} lines");
        check!(self.end.delivered.lines == world.appended - self.end.dropped_lines, "delivered");
        check!(self.start.delivered.lines == world.delivered, "{} delivered", self.start.delivered.lines);
        Ok(missing)
    }
}

/// What a row of damages cost in all.
#[derive(Debug, Default)]
struct Tally {
    cases: usize,
    counted: usize,
    went_back: usize,
    unseen: usize,
}

impl Tally {
    fn add(&mut self, what: &str, verdict: Result<Verdict, String>) {
        let verdict = verdict.unwrap_or_else(|why| panic!("{what}: {why}"));
        self.cases += 1;
        self.counted += usize::from(!verdict.missing.is_empty());
        self.went_back += usize::from(verdict.went_back);
        self.unseen += usize::from(verdict.went_back && !verdict.rotten);
    }
}

fn flip_all(written: &Written, masks: &[u8]) -> Tally {
    let mut tally = Tally::default();
    for (index, record) in written.records.iter().enumerate() {
        for offset in record.range.clone() {
            for mask in masks {
                let mut files = written.files.clone();
                files[record.file].1[offset] ^= mask;
                let what = format!("{} at {offset} ^ {mask:#04x} in {:?}", files[record.file].0, record.kind);
                tally.add(&what, written.judge(&files, &[index]));
            }
        }
    }
    tally
}

#[test]
fn any_bit_of_the_golden_spool_may_flip() {
    let masks: Vec<u8> = (0..8).map(|bit| 1 << bit).collect();
    let tally = flip_all(&Written::golden(), &masks);
    println!("golden spool, every bit: {tally:?}");
    assert!(tally.counted > 0 && tally.went_back > 0, "{tally:?}");
}

#[test]
fn any_byte_of_a_rich_spool_may_rot() {
    let count: Option<usize> =
        std::env::var("WATCHPOST_TEST_ROT_MASKS").ok().and_then(|text| text.parse().ok());
    let masks = &MASKS[..count.unwrap_or(MASKS_DEFAULT).clamp(1, MASKS.len())];
    for sealed in [true, false] {
        let written = Written::rich(sealed);
        assert!(written.files.len() >= 3, "{} segments", written.files.len());
        // A sealed end is the easier half.
        let masks = if sealed && count.is_none() { &masks[1..] } else { masks };
        let tally = flip_all(&written, masks);
        println!("rich spool, sealed {sealed}, {} segments: {tally:?}", written.files.len());
        assert!(tally.counted > 0, "{tally:?}");
    }
}

/// Every record from the cut on is gone. In an older segment they are counted; at the end of the log
/// nothing can tell a cut from a write that never happened.
#[test]
fn any_file_may_be_cut_at_any_length() {
    for written in [Written::golden(), Written::rich(false)] {
        let mut tally = Tally::default();
        for (index, (name, content)) in written.files.iter().enumerate() {
            for len in 0..content.len() {
                let mut files = written.files.clone();
                files[index].1.truncate(len);
                let gone = |r: &Rec| r.file == index && r.range.end > len;
                let damaged: Vec<usize> =
                    (0..written.records.len()).filter(|at| gone(&written.records[*at])).collect();
                let what = format!("{name} cut to {len}");
                let verdict = match index + 1 == written.files.len() {
                    true => written.judge_end(&files, damaged[0]),
                    false => written.judge(&files, &damaged),
                };
                tally.add(&what, verdict);
            }
        }
        println!("cuts: {tally:?}");
    }
}

impl Written {
    /// The end of the log is gone from a record on, with all that had vouched for it.
    fn judge_end(&self, files: &Files, from: usize) -> Result<Verdict, String> {
        let mut outcome = self.use_spool(files)?;
        // A cut between two records leaves no trace.
        outcome.torn_tail_bytes = 1;
        match outcome.holds(self, &fold(&self.records[..from]), &[], true) {
            Ok(missing) => Ok(Verdict { went_back: true, missing, rotten: outcome.rotten }),
            Err(text) => Err(format!("{text}\n{outcome:?}")),
        }
    }
}

#[test]
fn any_sector_may_read_as_zeros() {
    for written in [Written::golden(), Written::rich(true), Written::rich(false)] {
        let mut tally = Tally::default();
        for (index, (name, content)) in written.files.iter().enumerate() {
            for start in (0..content.len()).step_by(SECTOR_BYTES) {
                let end = (start + SECTOR_BYTES).min(content.len());
                let mut files = written.files.clone();
                files[index].1[start..end].fill(0);
                let hit = |r: &Rec| r.file == index && r.range.start < end && r.range.end > start;
                let damaged: Vec<usize> =
                    (0..written.records.len()).filter(|at| hit(&written.records[*at])).collect();
                let what = format!("{name} zeroed from {start}");
                let verdict = match written.vouched(&damaged) {
                    true => written.judge(&files, &damaged),
                    false => {
                        written.judge(&files, &damaged).or_else(|_| written.judge_end(&files, damaged[0]))
                    }
                };
                tally.add(&what, verdict);
            }
        }
        println!("sectors: {tally:?}");
    }
}

impl Written {
    /// Whether a record that stays says that the damaged ones were durable.
    fn vouched(&self, damaged: &[usize]) -> bool {
        let last = self.files.len() - 1;
        let stays = |at: &usize| self.records[*at].file == last && !damaged.contains(at);
        let known = (0..self.records.len()).filter(stays).map(|at| self.records[at].durable_len).max();
        damaged.iter().all(|at| {
            let record = &self.records[*at];
            record.file < last || record.range.start < known.unwrap_or(0)
        })
    }
}

/// A segment is where its first record says, whatever the file is called.
#[test]
fn segments_under_each_others_names_lose_nothing() {
    for written in [Written::golden(), Written::rich(true), Written::rich(false)] {
        let count = written.files.len();
        for (first, second) in (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))) {
            let mut files = written.files.clone();
            let content = std::mem::take(&mut files[first].1);
            files[first].1 = std::mem::replace(&mut files[second].1, content);
            let verdict = written.judge(&files, &[]);
            verdict.unwrap_or_else(|why| panic!("{} and {}: {why}", files[first].0, files[second].0));
        }
    }
}

/// A copy beside the segment costs nothing; in the place of another it costs that one's records.
#[test]
fn a_doubled_segment_is_read_once() {
    for written in [Written::golden(), Written::rich(true), Written::rich(false)] {
        let count = written.files.len();
        for from in 0..count {
            for number in [0, 500] {
                let mut files = written.files.clone();
                files.push((segment_name(number), files[from].1.clone()));
                let verdict = written.judge(&files, &[]);
                verdict.unwrap_or_else(|why| panic!("{} also as {number}: {why}", files[from].0));
            }
            for over in (0..count).filter(|over| *over != from) {
                let mut files = written.files.clone();
                files[over].1 = files[from].1.clone();
                let gone: Vec<usize> =
                    (0..written.records.len()).filter(|at| written.records[*at].file == over).collect();
                let verdict = match over + 1 == count {
                    true => written.judge_end(&files, gone[0]),
                    false => written.judge(&files, &gone),
                };
                verdict.unwrap_or_else(|why| panic!("{} over {}: {why}", files[from].0, files[over].0));
            }
        }
    }
}

/// The negative control: with no checksum checked, wrong bytes are offered and the judge sees it.
#[test]
fn without_checksums_the_judge_goes_red() {
    let written = Written::rich(true);
    let pending = fold(&written.records).pending;
    let holds = |record: &Rec| record.batches.iter().any(|(seq, _)| pending.contains(seq));
    let at = written.records.iter().position(holds).unwrap();
    let Rec { file, ref range, .. } = written.records[at];
    let mut red = 0;
    for offset in range.clone().rev().skip(8).take(64) {
        let mut files = written.files.clone();
        files[file].1[offset] ^= 0x20;
        written.judge(&files, &[at]).unwrap_or_else(|why| panic!("with checksums: {why}"));
        let _blind = blind::Blind::new();
        red += usize::from(written.judge(&files, &[at]).is_err());
    }
    assert!(red >= 16, "only {red} of 64 flipped bytes were seen");
}

/// Rot in the last record of an unclean stop: its lines are read again, and the bytes are counted.
#[test]
fn rot_at_the_very_end_is_told_from_a_torn_write() {
    let written = Written::rich(false);
    let last = written.records.last().unwrap();
    let check = |change: fn(&mut Vec<u8>, &Range<usize>), rotten: u64| {
        let mut files = written.files.clone();
        change(&mut files[last.file].1, &last.range);
        let disk = disk_of(&files);
        let mut spool = open(&disk);
        let recovery = spool.recovered().clone();
        assert_eq!(recovery.rotten_tail_bytes, rotten, "{recovery:?}");
        assert!(recovery.torn_tail_bytes > 0, "{recovery:?}");
        let expected = Loss { lines: 0, bytes: rotten };
        let lost: Vec<(LossReason, Loss)> =
            if rotten > 0 { vec![(LossReason::Corrupted, expected)] } else { vec![] };
        assert_eq!(recovery.lost, lost);
        assert_eq!(spool.status().lost.get(&LossReason::Corrupted).copied().unwrap_or_default(), expected);
        assert_eq!(spool.status().quarantine_bytes > 0, rotten > 0);
        drain(&mut spool);
        assert_balanced(&spool);
    };
    check(|content, range| content[range.start + 60] ^= 1, last.range.len() as u64);
    check(|content, range| content.truncate(range.end - 9), 0);
    check(|content, range| content[range.clone()].fill(0), 0);
}

/// A number from which none can be counted on would end the log, or begin it again below itself.
#[test]
fn a_file_of_the_highest_number_is_not_taken_for_a_segment() {
    for number in [u64::MAX, u64::MAX - 1] {
        let mut files = Written::golden().files;
        files.push((segment_name(number), b"anything".to_vec()));
        let disk = disk_of(&files);
        let mut spool = open(&disk);
        assert_eq!(drain(&mut spool).len(), 4);
        assert_eq!(disk.content(&segment_name(number)), b"anything");
    }
}
