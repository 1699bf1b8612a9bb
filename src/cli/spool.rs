//! `watchpost spool ls | cat`: what waits on disk, read-only, while the agent runs or not.

use std::io::{self, BufWriter, Write};

use super::{Failure, chain, exit, grouped, printable, printable_json, size};
use crate::agent::spool_directory;
use crate::batch::decompress;
use crate::config::Config;
use crate::spool::{BatchState, BatchView, DirDisk, OpenError, SegmentView, batch_body, segments};

/// Lists every segment and every batch in it.
///
/// # Errors
/// 69 where there is no spool, 74 or 77 where it cannot be read.
pub fn list(config: &Config) -> Result<(), Failure> {
    let (_, segments) = open(config)?;
    let mut out = BufWriter::new(io::stdout());
    write_list(&mut out, &segments).and_then(|()| out.flush()).or_else(ignore_closed_pipe)
}

/// Prints the records of every batch that waits, or of one batch by its number: the same JSON as is sent, with what a
/// terminal would act upon escaped.
///
/// # Errors
/// As [`list`]; 69 where there is no such batch, 74 where one is damaged.
pub fn cat(config: &Config, seq: Option<u64>) -> Result<(), Failure> {
    let (disk, segments) = open(config)?;
    let batches = segments.iter().flat_map(|segment| &segment.batches);
    let wanted: Vec<&BatchView> = match seq {
        Some(seq) => batches.filter(|batch| batch.id.seq == seq).collect(),
        None => batches.filter(|batch| batch.state == BatchState::Pending).collect(),
    };
    if let (Some(seq), true) = (seq, wanted.is_empty()) {
        let message = format!("batch {seq} is not in the spool; `watchpost spool ls` lists those that are");
        return Err(Failure::new(exit::UNAVAILABLE, message));
    }
    let mut out = BufWriter::new(io::stdout());
    let mut damaged = Vec::new();
    for batch in wanted {
        let body =
            batch_body(&disk, batch).map_err(|error| Failure::io("the spool cannot be read", &error))?;
        match body.and_then(|body| decompress(&body, batch.raw_bytes as usize)) {
            Some(records) => {
                out.write_all(printable_json(&records).as_bytes()).or_else(ignore_closed_pipe)?
            }
            None => damaged.push(batch.id.seq.to_string()),
        }
    }
    out.flush().or_else(ignore_closed_pipe)?;
    if damaged.is_empty() {
        return Ok(());
    }
    Err(Failure::new(exit::IO, format!("damaged or gone meanwhile: batch {}", damaged.join(", "))))
}

fn open(config: &Config) -> Result<(DirDisk, Vec<SegmentView>), Failure> {
    let path = spool_directory(config);
    // Behind a directory that may not be entered there may well be a spool.
    let exists = path.try_exists().map_err(|error| {
        let what =
            format!("the spool at {} cannot be read; try as root or as the agent's user", path.display());
        Failure::io(what, &error)
    })?;
    if !exists {
        let message = format!(
            "there is no spool at {}: no agent ran with this WATCHPOST_STATE_DIR yet",
            path.display()
        );
        return Err(Failure::new(exit::UNAVAILABLE, message));
    }
    let unreadable = |error: OpenError| {
        let code = match &error {
            OpenError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                exit::PERMISSION
            }
            _ => exit::IO,
        };
        Failure::new(code, format!("the spool at {}: {}", path.display(), chain(&error)))
    };
    let disk = DirDisk::open_read_only(&path).map_err(unreadable)?;
    let segments = segments(&disk).map_err(unreadable)?;
    Ok((disk, segments))
}

fn write_list(out: &mut impl Write, segments: &[SegmentView]) -> io::Result<()> {
    let mut pending = (0u64, 0u64, 0u64);
    for segment in segments {
        let sealed = if segment.sealed { "sealed" } else { "open" };
        write!(out, "{}  {}  {sealed}", segment.name, size(segment.bytes))?;
        if let Some(epoch) = segment.epoch {
            write!(out, "  epoch {epoch}")?;
        }
        if segment.damaged_bytes > 0 {
            write!(out, "  {} damaged", size(segment.damaged_bytes))?;
        }
        writeln!(out)?;
        for batch in &segment.batches {
            write_batch(out, batch)?;
            if batch.state == BatchState::Pending {
                pending.0 += 1;
                pending.1 += batch.lines;
                pending.2 += u64::from(batch.body_bytes);
            }
        }
    }
    let (batches, lines, bytes) = pending;
    writeln!(
        out,
        "waiting: {} batches, {} log lines, {} compressed",
        grouped(batches),
        grouped(lines),
        size(bytes)
    )
}

fn write_batch(out: &mut impl Write, batch: &BatchView) -> io::Result<()> {
    let state = match batch.state {
        BatchState::Pending => "waits",
        BatchState::Settled => "settled",
        BatchState::Damaged => "DAMAGED",
    };
    let created = jiff::Timestamp::from_millisecond(batch.created_ms).map_or_else(
        |_| batch.created_ms.to_string(),
        |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    );
    writeln!(
        out,
        "  {:>8}  {created}  {state:<7}  {:>9} records  {:>9} lines  {:>10}  {}",
        batch.id.seq,
        grouped(u64::from(batch.records)),
        grouped(batch.lines),
        size(u64::from(batch.body_bytes)),
        printable(batch.labels.category.as_bytes())
    )
}

/// `spool cat | head` ends early, which is no failure.
fn ignore_closed_pipe(error: io::Error) -> Result<(), Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(Failure::io("stdout cannot be written", &error))
}
