//! Finding and opening files: what a pattern names, what may be read, and where a moved file went.
//!
//! Nothing here blocks on a FIFO or a device, and identity is always that of the opened file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{Files, LogFile};
use super::identity::{Identity, Tail, read_full_at};
use super::position::Position;
use super::watch::directory_of;
use crate::mutant::{Mutant, is_on};
use super::{Blocked, FILES_MAX};

/// How far back a line start is looked for when a file is taken up at its end.
const LINE_START_SEARCH_BYTES: u64 = 64 * 1024;

/// Names of a directory that are looked at for rotated and moved files: as many logs as are followed, and nine older ones of each.
const LISTED_MAX: usize = 10 * FILES_MAX;

/// First bytes of a gzip member (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Endings of the names that compressors give. The name tells before the first bytes can: rotation makes the
/// file first and compresses into it then.
const COMPRESSED_ENDINGS: [&[u8]; 6] = [b"gz", b"bz2", b"xz", b"zst", b"lz4", b"Z"];

/// An open regular file.
pub(super) struct Opened {
    pub(super) file: Box<dyn LogFile>,
    pub(super) identity: Identity,
}

/// Why a path is not read.
pub(super) struct Refusal {
    pub(super) state: &'static str,
    pub(super) message: String,
}

/// The paths of a pattern, and those that could not be listed. A plain path is named whether it exists or not.
pub(super) fn expand(files: &dyn Files, pattern: &str) -> (Vec<PathBuf>, Vec<(PathBuf, Blocked)>) {
    if !pattern.contains(['*', '?', '[']) {
        return (vec![PathBuf::from(pattern)], Vec::new());
    }
    let unlisted = |(path, error): (PathBuf, io::Error)| {
        let blocked =
            Blocked { state: "unreadable", message: error.to_string(), start_at: None, unlisted: true };
        (path, blocked)
    };
    let (paths, problems) = files.expand(pattern);
    (paths, problems.into_iter().map(unlisted).collect())
}

/// Identity of what a path leads to now; `None` where there is nothing.
pub(super) fn identity_of(files: &dyn Files, path: &Path) -> Option<Identity> {
    files.stat(path).ok().map(|stat| stat.identity)
}

/// Opens a path for reading if it leads to a regular file of text.
pub(super) fn open(files: &dyn Files, path: &Path) -> Result<Opened, Refusal> {
    let stat = files.stat(path).map_err(|error| refusal(&error))?;
    if !stat.is_regular {
        return Err(not_a_file());
    }
    if is_compressed_name(path) {
        return Err(compressed("compressed, as its name says; only plain text is followed"));
    }
    let file = files.open(path).map_err(|error| refusal(&error))?;
    // It may have become another file since the look above.
    let stat = file.stat().map_err(|error| refusal(&error))?;
    if !stat.is_regular {
        return Err(not_a_file());
    }
    let mut magic = [0; 2];
    let read = read_full_at(&*file, &mut magic, 0).map_err(|error| refusal(&error))?;
    if read == 2 && magic == GZIP_MAGIC {
        return Err(compressed("compressed; only plain text is followed (leave gzip out of access_log)"));
    }
    Ok(Opened { file, identity: stat.identity })
}

fn not_a_file() -> Refusal {
    Refusal { state: "not_a_file", message: "not a regular file".to_owned() }
}

fn compressed(message: &str) -> Refusal {
    Refusal { state: "compressed", message: message.to_owned() }
}

fn is_compressed_name(path: &Path) -> bool {
    path.extension().is_some_and(|ending| COMPRESSED_ENDINGS.contains(&ending.as_bytes()))
}

fn refusal(error: &io::Error) -> Refusal {
    let state = if error.kind() == io::ErrorKind::NotFound { "missing" } else { "unreadable" };
    Refusal { state, message: error.to_string() }
}

/// Whether the file still holds the bytes that were read up to a saved position.
pub(super) fn agrees(file: &dyn LogFile, saved: &Position) -> bool {
    let size = file.stat().map_or(0, |stat| stat.size);
    if is_on(Mutant::TrustsInode) || is_on(Mutant::TrustsOffset) {
        return size >= saved.offset;
    }
    size >= saved.offset
        && saved.head.matches(file).unwrap_or(false)
        && Tail::read(file, saved.offset).is_ok_and(|tail| tail.hash() == saved.tail_hash)
}

/// The start of the line in which `size` falls, or `size` where none is near.
pub(super) fn line_start_before(file: &dyn LogFile, size: u64) -> u64 {
    let length = size.min(LINE_START_SEARCH_BYTES);
    let mut bytes = vec![0; length as usize];
    match read_full_at(file, &mut bytes, size - length) {
        Ok(read) if read == bytes.len() => match memchr::memrchr(b'\n', &bytes) {
            Some(index) => size - length + index as u64 + 1,
            None if length == size => 0,
            None => size,
        },
        // Shorter than it was a moment ago: begin where it begins now.
        _ => 0,
    }
}

/// Whether nothing can be said of a saved file yet: it, or its directory, may not be read, or the directory is
/// missing or empty, as that of a file system which is not mounted yet.
pub(super) fn is_out_of_reach(files: &dyn Files, saved: &Position) -> bool {
    match files.list(&directory_of(&saved.path), 1) {
        Ok(names) => {
            names.is_empty()
                || (identity_of(files, &saved.path) == Some(saved.identity)
                    && files.open(&saved.path).is_err())
        }
        Err(_) => true,
    }
}

/// Looks in the directory of a saved position for the same file under another name.
pub(super) fn find_sibling(saved: &Position, listings: &mut Listings) -> Option<(PathBuf, Opened)> {
    let files = Arc::clone(&listings.files);
    for path in listings.of_identity(&saved.path, saved.identity) {
        if let Ok(opened) = open(&*files, path)
            && opened.identity == saved.identity
            // Without a birth the inode alone says too little; with one it is the file, truncated or not.
            && (saved.identity.born_ns != 0 || agrees(&*opened.file, saved))
        {
            return Some((path.clone(), opened));
        }
    }
    None
}

/// The names in directories, each listed once: thousands of logs of one directory may rotate at the same moment.
pub(super) struct Listings {
    files: Arc<dyn Files>,
    names: BTreeMap<PathBuf, BTreeSet<OsString>>,
    identities: BTreeMap<PathBuf, BTreeMap<Identity, Vec<PathBuf>>>,
}

impl Listings {
    /// Nothing is listed yet.
    pub(super) fn new(files: &Arc<dyn Files>) -> Listings {
        Listings { files: Arc::clone(files), names: BTreeMap::new(), identities: BTreeMap::new() }
    }

    /// The paths that rotation may have made of `name`.
    fn rotated(&mut self, name: &Path) -> Vec<PathBuf> {
        let Some(base) = name.file_name() else { return Vec::new() };
        let directory = directory_of(name);
        let names = self.names.entry(directory.clone()).or_insert_with(|| {
            self.files.list(&directory, LISTED_MAX).unwrap_or_default().into_iter().collect()
        });
        let from_base = names.range::<OsStr, _>((Bound::Excluded(base), Bound::Unbounded));
        from_base
            .take_while(|name| name.as_bytes().starts_with(base.as_bytes()))
            .filter(|name| is_rotated_name(name.as_bytes(), base.as_bytes()))
            .map(|name| directory.join(name))
            .collect()
    }

    /// The paths beside `name` that lead to a file.
    fn of_identity(&mut self, name: &Path, identity: Identity) -> &[PathBuf] {
        let directory = directory_of(name);
        let paths = self.identities.entry(directory).or_insert_with_key(|directory| {
            let mut paths: BTreeMap<Identity, Vec<PathBuf>> = BTreeMap::new();
            for name in self.files.list(directory, LISTED_MAX).unwrap_or_default() {
                let path = directory.join(name);
                if let Some(identity) = identity_of(&*self.files, &path) {
                    paths.entry(identity).or_default().push(path);
                }
            }
            paths
        });
        paths.get(&identity).map_or(&[], Vec::as_slice)
    }
}

/// The files that rotation made of `name` after the file of `known` was born, oldest first: their names begin with
/// it, and they do not begin with the bytes of `known`, which a copy of it would.
///
/// Where the filesystem keeps no birth times there are none.
pub(super) fn younger_siblings(
    name: &Path,
    known: &Position,
    listings: &mut Listings,
) -> Vec<(PathBuf, Opened)> {
    let files = Arc::clone(&listings.files);
    let is_younger = |identity: &Identity| {
        identity.device == known.identity.device && identity.born_ns > known.identity.born_ns
    };
    let mut younger: Vec<(PathBuf, Opened)> = listings
        .rotated(name)
        .into_iter()
        .filter(|_| known.identity.born_ns != 0)
        .filter_map(|path| {
            let identity = identity_of(&*files, &path).filter(is_younger)?;
            let opened = open(&*files, &path).ok().filter(|opened| opened.identity == identity)?;
            let is_copy = known.head.length > 0 && known.head.matches(&*opened.file).unwrap_or(true);
            (!is_copy).then_some((path, opened))
        })
        .collect();
    younger.sort_by_key(|(_, opened)| opened.identity.born_ns);
    younger
}

/// Whether a name is what rotation makes of a base name: `access.log.1`, `access.log-20261123`.
fn is_rotated_name(name: &[u8], base: &[u8]) -> bool {
    matches!(name.strip_prefix(base), Some([b'.' | b'-', _, ..]))
}
