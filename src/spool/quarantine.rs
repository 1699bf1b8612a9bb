//! What will never be sent and is kept for a look: refused batches and damaged bytes.
//!
//! Owns: the files in `quarantine/`, bounded in number and bytes, newest kept. Must never: be needed;
//! any error here only means that there is less to look at.

use std::io;

use crate::record::LossReason;

use super::disk::{Disk, QUARANTINE_PREFIX};
use super::format::BatchMeta;
use super::space::blocks;
use super::unread::Unread;
use super::walk::{read, segment_name};
use super::{Options, Spool};

const QUARANTINE_BYTES_MAX: u64 = 64 << 20;
/// The part of the cap that it may take.
pub(super) const QUARANTINE_DIVISOR: u64 = 16;
const QUARANTINE_FILES_MAX: usize = 256;
/// Of one damaged range, this many bytes are kept.
const DAMAGE_BYTES_MAX: u64 = 1 << 20;

/// The files in quarantine.
#[derive(Debug)]
pub(super) struct Quarantine {
    /// Name and bytes on the disk, oldest first.
    files: Vec<(String, u64)>,
    bytes_max: u64,
}

impl Quarantine {
    pub(super) fn find<D: Disk>(disk: &D, options: &Options) -> io::Result<Quarantine> {
        let listed = disk.list()?.into_iter();
        let mut files: Vec<(String, u64)> = listed
            .filter(|file| file.name.starts_with(QUARANTINE_PREFIX))
            .map(|file| (file.name, file.allocated))
            .collect();
        // Names begin with the epoch and the number, so that their order is that of time.
        files.sort();
        let bytes_max = QUARANTINE_BYTES_MAX.min(options.bytes_max / QUARANTINE_DIVISOR);
        Ok(Quarantine { files, bytes_max })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }

    fn keep<D: Disk>(&mut self, disk: &mut D, name: String, content: &[u8], room: u64) {
        let room = room.min(self.bytes_max);
        let bytes = blocks(content.len() as u64);
        if bytes > room || bytes == 0 || self.files.iter().any(|(kept, _)| *kept == name) {
            return;
        }
        while self.bytes() + bytes > room || self.files.len() >= QUARANTINE_FILES_MAX {
            if self.files.is_empty() || disk.unlink(&self.files[0].0).is_err() {
                return;
            }
            self.files.remove(0);
        }
        if disk.create(&name).is_err() {
            return;
        }
        let written = disk.append(&name, content).and_then(|()| disk.sync(&name));
        if written.is_ok() || disk.unlink(&name).is_err() {
            self.files.push((name, bytes));
        }
    }
}

impl<D: Disk> Spool<D> {
    /// Keeps the body of a lost batch: a gzip file, if it is not damaged.
    pub(super) fn keep_batch(&mut self, meta: &BatchMeta, reason: LossReason, body: &[u8]) {
        let (epoch, seq) = (meta.epoch, meta.seq);
        let name = format!("{QUARANTINE_PREFIX}{epoch:010}-{seq:016}-{}.gz", reason.name());
        let room = self.quarantine_room();
        self.quarantine.keep(&mut self.disk, name, body, room);
    }

    /// Keeps the damaged ranges that this start found, each once over all starts.
    pub(super) fn keep_damage(&mut self) {
        for range in self.recovery.damaged.clone() {
            let (number, offset) = (range.segment, range.offset);
            let why = if range.unread { "unread" } else { "damaged" };
            let name = format!("{QUARANTINE_PREFIX}segment-{number:016x}-{offset:08x}.{why}");
            let count = range.bytes.min(DAMAGE_BYTES_MAX);
            if let Ok(bytes) = read(&self.disk, &segment_name(number), offset, count, Unread::Zeros) {
                let room = self.quarantine_room();
                self.quarantine.keep(&mut self.disk, name, &bytes, room);
            }
        }
    }
}
