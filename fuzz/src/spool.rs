//! Recovery of a spool from any bytes: raw ones, and records that are wrong in everything but their checksums.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use watchpost::clock::Now;
use watchpost::record::Stream;
use watchpost::spool::{
    AgentId, BatchState, Disk, FileInfo, Fresh, Labels, NewBatch, OpenError, Options, Spool, batch_body,
    segments,
};

use super::Input;

/// Segments of one spool.
const FILES_MAX: u64 = 8;
/// Batches that one input can describe, and more.
const BATCHES_MAX: usize = 100_000;

/// Files in memory. It never fails: what a failing disk does, the spool's own tests ask.
#[derive(Clone, Default)]
struct Memory(Rc<RefCell<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        self.0.borrow_mut().get_mut(name).map(act).ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Disk for Memory {
    fn list(&self) -> io::Result<Vec<FileInfo>> {
        let info = |(name, content): (&String, &Vec<u8>)| {
            let len = content.len() as u64;
            FileInfo { name: name.clone(), len, allocated: len.next_multiple_of(4096) }
        };
        Ok(self.0.borrow().iter().map(info).collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        match self.0.borrow_mut().insert(name.to_owned(), Vec::new()) {
            None => Ok(()),
            Some(_) => panic!("{name} was written over"),
        }
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.with(name, |content| content.extend_from_slice(bytes))
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.with(name, |_| ())
    }

    fn renew(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(name, |content| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            assert_eq!(content.get(from..from + bytes.len()), Some(bytes), "only the same bytes");
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let content = self.0.borrow_mut().remove(from).ok_or(io::ErrorKind::NotFound)?;
        match self.0.borrow_mut().insert(to.to_owned(), content) {
            None => Ok(()),
            Some(_) => panic!("{to} was written over"),
        }
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(name, |content| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
            let count = buffer.len().min(content.len() - from);
            buffer[..count].copy_from_slice(&content[from..from + count]);
            count
        })
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.with(name, |content| content.truncate(usize::try_from(len).unwrap_or(usize::MAX)))
    }

    fn unlink(&mut self, name: &str) -> io::Result<()> {
        self.0.borrow_mut().remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn reserve(&mut self, name: &str, _bytes: u64) -> io::Result<()> {
        self.with(name, |_| ())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

fn name(number: u64) -> String {
    format!("seg-{number:016x}.log")
}

/// A folder of segments as the input describes it.
fn folder(input: &mut Input<'_>) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let (mut number, mut content) = (1, Vec::new());
    while !input.is_empty() {
        match input.byte() % 8 {
            0 => {
                files.insert(name(number), std::mem::take(&mut content));
                number += 1 + u64::from(input.byte() % 3);
                if number > FILES_MAX {
                    break;
                }
            }
            1 => content.extend_from_slice(input.short()),
            2 if !content.is_empty() => {
                let at = usize::from(u16::from_le_bytes([input.byte(), input.byte()])) % content.len();
                content[at] ^= input.byte();
            }
            3 => content.truncate(content.len().saturating_sub(usize::from(input.byte()))),
            _ => record(input, number, &mut content),
        }
    }
    files.insert(name(number), content);
    files
}

/// Appends a record: of the format of `src/spool/format.rs`, with any numbers.
fn record(input: &mut Input<'_>, number: u64, content: &mut Vec<u8>) {
    let kind = input.byte() % 6;
    let (mut head, mut body) = (Vec::new(), Vec::new());
    match kind {
        1 => {
            put_numbers(&mut head, &[0x0001_0001], 4);
            put_numbers(&mut head, &[if input.byte() < 200 { number } else { input.number() }, 0], 8);
            prelude(input, &mut head);
            let count = input.byte() % 6;
            put_numbers(&mut head, &[u64::from(count)], 4);
            (0..count).for_each(|_| put_numbers(&mut head, &[input.number(), input.number()], 8));
        }
        2 => {
            prelude(input, &mut head);
            changes(input, &mut head);
        }
        3 => {
            put_numbers(&mut head, &[input.number()], 8);
            totals(input, &mut head);
            let count = input.byte() % 4;
            put_numbers(&mut head, &[u64::from(count)], 2);
            (0..count).for_each(|_| batch(input, &mut head, &mut body));
            changes(input, &mut head);
        }
        _ => head.extend_from_slice(input.short()),
    }
    let mut header = b"WPSL".to_vec();
    header.extend_from_slice(&[kind, u8::from(input.byte() > 250), 1, 0]);
    put_numbers(&mut header, &[u64::from(input.byte() > 250), input.number(), input.number()], 8);
    let durable_len = if input.byte() < 128 { content.len() as u64 } else { input.number() };
    let crc = u64::from(crc32fast::hash(&head));
    put_numbers(&mut header, &[durable_len, head.len() as u64, body.len() as u64, crc, 0], 4);
    let crc = u64::from(crc32fast::hash(&header));
    put_numbers(&mut header, &[crc], 4);
    for part in [header, head, body] {
        content.extend_from_slice(&part);
    }
    content.resize(content.len().next_multiple_of(8), 0);
}

fn put_numbers(out: &mut Vec<u8>, numbers: &[u64], bytes: usize) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()[..bytes]));
}

fn prelude(input: &mut Input<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&[7; 16]);
    put_numbers(out, &[input.number(), input.number()], 8);
    totals(input, out);
}

fn totals(input: &mut Input<'_>, out: &mut Vec<u8>) {
    (0..8).for_each(|_| put_numbers(out, &[input.number()], 8));
    let count = input.byte() % 4;
    out.push(count);
    for _ in 0..count {
        out.push(input.byte());
        put_numbers(out, &[input.number(), input.number()], 8);
    }
}

fn changes(input: &mut Input<'_>, out: &mut Vec<u8>) {
    let count = input.byte() % 4;
    put_numbers(out, &[u64::from(count)], 4);
    for _ in 0..count {
        put_short(out, input.short());
        out.push(input.byte() % 2);
        if out.last() == Some(&1) {
            put_short(out, input.short());
        }
    }
}

fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    put_numbers(out, &[bytes.len() as u64], 4);
    out.extend_from_slice(bytes);
}

fn batch(input: &mut Input<'_>, out: &mut Vec<u8>, body: &mut Vec<u8>) {
    put_numbers(out, &[input.number(), input.number()], 8);
    out.push(if input.byte() < 250 { 1 + input.byte() % 4 } else { input.byte() });
    put_numbers(out, &[input.number(), input.number()], 8);
    let own = input.short();
    let told = if input.byte() < 240 { own.len() as u64 } else { input.number() };
    let crc = if input.byte() < 240 { u64::from(crc32fast::hash(own)) } else { input.number() };
    put_numbers(out, &[input.number(), input.number(), told, crc], 4);
    (0..4).for_each(|_| put_short(out, &input.short()[..]));
    body.extend_from_slice(own);
}

/// A spool opens, offers only bytes that stand in it, comes to an end, and goes on working.
pub fn spool(data: &[u8]) {
    let disk = Memory::default();
    let files = folder(&mut Input(data));
    *disk.0.borrow_mut() = files.clone();
    look(&disk);
    let now = Now { wall: 1_700_000_000_000, monotonic: Instant::now() };
    let later = Now { monotonic: now.monotonic + Duration::from_secs(100), ..now };
    let options = Options { bytes_max: 1 << 20, segment_bytes: 4096, ..Options::default() };
    let fresh = Fresh { agent: AgentId([9; 16]), nonce: 0x5EED };
    let mut spool = match Spool::open(disk.clone(), options.clone(), now, fresh) {
        Ok(spool) => spool,
        Err(OpenError::NewerFormat { .. }) => {
            assert!(*disk.0.borrow() == files, "refused, and changed all the same");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let mut last = 0;
    for count in 0.. {
        assert!(count < BATCHES_MAX, "it never ends");
        let Some(batch) = spool.oldest() else { break };
        assert!(batch.id.seq > last, "{} after {last}", batch.id.seq);
        last = batch.id.seq;
        let stands =
            |content: &Vec<u8>| content.windows(batch.body.len().max(1)).any(|part| part == batch.body);
        assert!(batch.body.is_empty() || files.values().any(stands), "bytes that nobody wrote");
        spool.ack(batch.id.seq, now).expect("the disk never fails");
    }
    let new = NewBatch {
        stream: Stream::AccessLines,
        labels: Labels::default(),
        created_ms: 0,
        lines: 1,
        records: 1,
        raw_bytes: 8,
        body: b"next".to_vec(),
    };
    if let Ok(Some(id)) = spool.append(Some(new), vec![]) {
        spool.commit(later).expect("the disk never fails");
        let offered = spool.oldest().map(|batch| (batch.id, batch.body));
        assert_eq!(offered, Some((id, b"next".to_vec())), "{:?} {:?}", spool.recovered(), spool.status());
        spool.ack(id.seq, later).expect("the disk never fails");
    }
    spool.close(later).expect("the disk never fails");
    look(&disk);
    let mut again = Spool::open(disk, options, later, fresh).expect("what this release wrote, it reads");
    assert_eq!(again.oldest(), None);
}

/// What `watchpost spool ls` and `cat` do.
fn look(disk: &Memory) {
    for batch in segments(disk).into_iter().flatten().flat_map(|view| view.batches) {
        let body = batch_body(disk, &batch).expect("the disk never fails");
        assert!(body.is_some() || batch.state != BatchState::Pending);
    }
}
