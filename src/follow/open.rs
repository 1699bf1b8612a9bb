//! Opening files: what a pattern names, what may be read, and whether it holds what was read before.
//!
//! Nothing here blocks on a FIFO or a device, and identity is always that of the opened file.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Blocked;
use super::files::{Files, LogFile, is_absence};
use super::gz::GzFile;
use super::identity::{Identity, Tail, first_line, read_full_at};
use super::position::Position;
use super::watch::directory_of;
use crate::mutant::{Mutant, is_on};

/// How far back a line start is looked for when a file is taken up at its end.
const LINE_START_SEARCH_BYTES: u64 = 64 * 1024;

/// First bytes of a gzip member (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What to say of a log whose bytes are compressed.
pub(super) const COMPRESSED: &str = "compressed; only plain text is followed (leave gzip out of access_log)";

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
        let blocked = Blocked { state: "unreadable", message: error.to_string(), unlisted: true };
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
    if is_gzip(&*file).map_err(|error| refusal(&error))? {
        return Err(compressed(COMPRESSED));
    }
    Ok(Opened { file, identity: stat.identity })
}

/// Whether a file begins as a gzip member does.
pub(super) fn is_gzip(file: &dyn LogFile) -> io::Result<bool> {
    let mut magic = [0; 2];
    Ok(read_full_at(file, &mut magic, 0)? == magic.len() && magic == GZIP_MAGIC)
}

fn not_a_file() -> Refusal {
    Refusal { state: "not_a_file", message: "not a regular file".to_owned() }
}

fn compressed(message: &str) -> Refusal {
    Refusal { state: "compressed", message: message.to_owned() }
}

/// Opens a rotated file, plain or gzip; `None` for what is no log. One that is no longer there is an error.
pub(super) fn open_rotated(files: &dyn Files, path: &Path) -> io::Result<Option<Rotated>> {
    if !is_gzip_name(path) {
        return match open(files, path) {
            Ok(opened) => Ok(Some(Rotated::Plain(opened))),
            Err(Refusal { state: "missing", .. }) => Err(io::ErrorKind::NotFound.into()),
            Err(Refusal { state: "unreadable", message }) => Err(io::Error::other(message)),
            Err(_) => Ok(None),
        };
    }
    let file = files.open(path)?;
    let stat = file.stat()?;
    Ok(stat.is_regular.then(|| Rotated::Gzip(Box::new(GzFile::new(file)), stat.identity)))
}

/// An open file that rotation may have made.
pub(super) enum Rotated {
    Plain(Opened),
    Gzip(Box<GzFile>, Identity),
}

impl Rotated {
    pub(super) fn identity(&self) -> Identity {
        match self {
            Rotated::Plain(opened) => opened.identity,
            Rotated::Gzip(_, identity) => *identity,
        }
    }

    pub(super) fn file(&self) -> &dyn LogFile {
        match self {
            Rotated::Plain(opened) => &*opened.file,
            Rotated::Gzip(file, _) => &**file,
        }
    }

    pub(super) fn into_opened(self) -> Opened {
        match self {
            Rotated::Plain(opened) => opened,
            Rotated::Gzip(file, identity) => Opened { file, identity },
        }
    }
}

/// Whether a name is one that gzip gives.
pub(super) fn is_gzip_name(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.as_bytes() == b"gz")
}

/// Whether a name is one that a compressor gives.
pub(super) fn is_compressed_name(path: &Path) -> bool {
    path.extension().is_some_and(|ending| COMPRESSED_ENDINGS.contains(&ending.as_bytes()))
}

fn refusal(error: &io::Error) -> Refusal {
    let state = if is_absence(error) { "missing" } else { "unreadable" };
    Refusal { state, message: error.to_string() }
}

/// Whether the file still holds the bytes that were read up to a saved position. A compressed file that is damaged
/// before it does not; any other error says nothing.
pub(super) fn agrees(file: &dyn LogFile, saved: &Position) -> io::Result<bool> {
    match holds(file, saved) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
        answer => answer,
    }
}

fn holds(file: &dyn LogFile, saved: &Position) -> io::Result<bool> {
    let size = file.stat()?.size;
    if size < saved.offset || is_on(Mutant::TrustsInode) || is_on(Mutant::TrustsOffset) {
        return Ok(size >= saved.offset);
    }
    // The head may reach further than what was read; a file that ends between the two has only lost what was not. Where
    // nothing was read the first line must do.
    let begins_alike = match size < u64::from(saved.head.length) {
        true => saved.offset > 0 || (size > 0 && begins_like(file, saved)?),
        false => saved.head.matches(file)?,
    };
    Ok(begins_alike && Tail::read(file, saved.offset)?.hash() == saved.tail_hash)
}

/// Whether a file begins with what was read elsewhere. One that is too short for the head must have the same first
/// line; an empty one has none.
pub(super) fn begins_like(file: &dyn LogFile, saved: &Position) -> io::Result<bool> {
    // One that begins with a hole has no head.
    if saved.head.length > 0 && file.stat()?.size >= u64::from(saved.head.length) {
        return saved.head.matches(file);
    }
    Ok(first_line(file)?.is_some_and(|key| key == saved.first_line))
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
