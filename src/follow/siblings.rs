//! What rotation left beside a log: the other names in its directory, and which of them came after a file.
//!
//! Where rotation counts its names, two of them tell which file is older, whatever a clock said. Otherwise a plain file came after another if it was born after it and is no older file that was restored. To
//! compress makes a file anew but keeps the time of the last write, so that is what tells the age of a gzip file. A
//! gzip file beside the plain file of which it is made is not looked at yet. Names choose who is looked at; that they
//! are of one log, the bytes must say.
//!
//! A rotation moves several names one after the other. What is concluded from the absence of a file is concluded from a
//! [steady](Listings::is_steady) look only. Reads directories and heads, and remembers nothing.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FILES_MAX;
use super::files::{Files, LogFile, Stat, is_absence};
use super::identity::{HEAD_BYTES_MAX, Head, Identity, is_prefix, same_bytes};
use super::open::{self, Rotated};
use super::watch::directory_of;

/// Names of a directory that are looked at for rotated and moved files: as many logs as are followed, and nine older
/// ones of each.
const LISTED_MAX: usize = 10 * FILES_MAX;

/// Looks at a directory until two of them agree; where it changes faster than that, the next scan looks again.
const LOOKS_MAX: u32 = 4;

/// The files in directories, each looked at once a scan: thousands of logs of one directory may rotate at the same
/// moment.
pub(super) struct Listings {
    files: Arc<dyn Files>,
    listed: BTreeMap<PathBuf, Listing>,
}

/// What a directory held.
#[derive(Default)]
struct Listing {
    stats: BTreeMap<OsString, Stat>,
    paths: BTreeMap<Identity, Vec<PathBuf>>,
    /// Names of which nothing could be learned.
    unknown: BTreeSet<OsString>,
    /// Two looks in a row found the same files under the same names.
    is_steady: bool,
}

/// A file beside a log, under a name that rotation may have given it.
#[derive(Clone, Debug)]
pub(super) struct Sibling {
    pub(super) path: PathBuf,
    pub(super) stat: Stat,
}

impl Listing {
    fn look(files: &dyn Files, directory: &Path) -> Listing {
        let mut last = Listing::default();
        for look in 0..LOOKS_MAX {
            let Ok(listing) = Listing::look_once(files, directory) else { return Listing::default() };
            let is_steady = look > 0 && listing.files().eq(last.files()) && listing.unknown == last.unknown;
            last = Listing { is_steady, ..listing };
            if is_steady {
                break;
            }
        }
        for (name, stat) in &last.stats {
            last.paths.entry(stat.identity).or_default().push(directory.join(name));
        }
        last
    }

    fn look_once(files: &dyn Files, directory: &Path) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for name in files.list(directory, LISTED_MAX)? {
            match files.stat(&directory.join(&name)) {
                Ok(stat) => drop(listing.stats.insert(name, stat)),
                Err(error) if is_absence(&error) => {}
                Err(_) => drop(listing.unknown.insert(name)),
            }
        }
        Ok(listing)
    }

    fn files(&self) -> impl Iterator<Item = (&OsString, Identity)> {
        self.stats.iter().map(|(name, stat)| (name, stat.identity))
    }
}

impl Listings {
    /// Nothing is listed yet.
    pub(super) fn new(files: &Arc<dyn Files>) -> Listings {
        Listings { files: Arc::clone(files), listed: BTreeMap::new() }
    }

    fn of(&mut self, directory: &Path) -> &Listing {
        if !self.listed.contains_key(directory) {
            let listing = Listing::look(&*self.files, directory);
            self.listed.insert(directory.to_owned(), listing);
        }
        &self.listed[directory]
    }

    /// Whether all that rotation left of `name` was seen, and nothing moved while it was looked at.
    pub(super) fn is_steady(&mut self, name: &Path) -> bool {
        let listing = self.of(&directory_of(name));
        let base = name.file_name().unwrap_or_default();
        let is_rotated = |other: &OsString| is_rotated_name(other.as_bytes(), base.as_bytes());
        listing.is_steady && !listing.unknown.iter().any(is_rotated)
    }

    /// The names that rotation may have made of `name`, and their files.
    fn rotated(&mut self, name: &Path) -> BTreeMap<OsString, Stat> {
        let Some(base) = name.file_name() else { return BTreeMap::new() };
        let listing = self.of(&directory_of(name));
        let from_base = listing.stats.range::<OsStr, _>((Bound::Excluded(base), Bound::Unbounded));
        from_base
            .take_while(|(name, _)| name.as_bytes().starts_with(base.as_bytes()))
            .filter(|(name, _)| is_rotated_name(name.as_bytes(), base.as_bytes()))
            .map(|(name, stat)| (name.clone(), *stat))
            .collect()
    }

    /// What rotation may have made of `name` and can be read, plain or gzip, the youngest first.
    pub(super) fn siblings(&mut self, name: &Path) -> Vec<Sibling> {
        let directory = directory_of(name);
        let rotated = self.rotated(name);
        let has_plain_twin = |name: &OsString| {
            let plain = name.as_bytes().strip_suffix(b".gz");
            plain.is_some_and(|plain| rotated.contains_key(OsStr::from_bytes(plain)))
        };
        let mut siblings: Vec<Sibling> = rotated
            .iter()
            .filter(|(name, stat)| stat.is_regular && !has_plain_twin(name))
            .map(|(name, stat)| Sibling { path: directory.join(name), stat: *stat })
            .filter(|Sibling { path, .. }| open::is_gzip_name(path) || !open::is_compressed_name(path))
            .collect();
        siblings.sort_by(|left, right| age(right, left));
        siblings
    }

    /// A file beside `name` that another compressor than gzip made, written to no earlier than at `modified`.
    pub(super) fn otherwise_compressed(&mut self, name: &Path, modified: (i64, i64)) -> Option<PathBuf> {
        let directory = directory_of(name);
        let rotated = self.rotated(name).into_iter().map(|(name, stat)| (directory.join(name), stat));
        let is_other = |path: &Path| open::is_compressed_name(path) && !open::is_gzip_name(path);
        rotated
            .filter(|(path, stat)| is_other(path) && stat.modified >= modified)
            .map(|(path, _)| path)
            .next()
    }

    /// The file that had the name itself.
    pub(super) fn named(&mut self, name: &Path) -> Option<Identity> {
        let stats = &self.of(&directory_of(name)).stats;
        name.file_name().and_then(|name| stats.get(name)).map(|stat| stat.identity)
    }

    /// The paths beside `name` that lead to a file.
    pub(super) fn of_identity(&mut self, name: &Path, identity: Identity) -> &[PathBuf] {
        self.of(&directory_of(name)).paths.get(&identity).map_or(&[], Vec::as_slice)
    }
}

/// The file after which others are looked for.
pub(super) struct Elder {
    /// The name that it had, of which theirs are made.
    pub(super) name: PathBuf,
    pub(super) identity: Identity,
    pub(super) modified: (i64, i64),
    /// It has its name still: what came after it can only be a copy of what it held since.
    pub(super) is_live: bool,
    /// Nothing was known of the name before it. A file that was compressed since may be older than it.
    pub(super) is_new: bool,
}

/// The files that rotation made of a name after it made one of an elder.
#[derive(Default)]
pub(super) struct Younger {
    /// Oldest first.
    pub(super) found: Vec<(Sibling, Rotated)>,
    /// Of which nothing can be said now, with the reason.
    pub(super) unread: Vec<(PathBuf, io::Error)>,
    /// The file that has the name now cannot be read: they may be copies of it.
    pub(super) is_blind: bool,
}

/// What rotation made of a name after it made one of `elder`, which has the number `id`. Copies of one another, and of
/// the file that has the name now, are left out, and so is what has a number or `is_read` elsewhere.
pub(super) fn younger(
    elder: &Elder,
    id: u64,
    listings: &mut Listings,
    number_of: &dyn Fn(Identity) -> Option<u64>,
    is_read: &dyn Fn(&Stat) -> bool,
) -> Younger {
    let files = Arc::clone(&listings.files);
    let siblings = listings.siblings(&elder.name);
    let elder_path = listings
        .of_identity(&elder.name, elder.identity)
        .iter()
        .find(|path| is_rotated_path(path, &elder.name))
        .cloned();
    // What is counted, or dated, before a file that was known earlier was there when that was found.
    let is_named_before_known = |sibling: &Sibling| {
        let is_earlier = |identity: Identity| number_of(identity).is_some_and(|number| number < id);
        let mut known = siblings.iter().filter(|other| is_earlier(other.stat.identity));
        known.any(|known| {
            let by_name = by_name(&sibling.path, &known.path, &elder.name);
            matches!(by_name, Some(ByName::Count(Ordering::Less) | ByName::Date(Ordering::Less)))
        })
    };
    let live = files.open(&elder.name);
    let is_blind = live.as_ref().is_err_and(|error| !is_absence(error));
    let live = live.ok();
    let mut younger = Younger { is_blind, ..Younger::default() };
    for (index, sibling) in siblings.iter().enumerate().rev() {
        if number_of(sibling.stat.identity).is_some()
            || is_read(&sibling.stat)
            || !is_younger(sibling, elder, elder_path.as_deref())
            || is_named_before_known(sibling)
        {
            continue;
        }
        match original(&*files, live.as_deref(), &siblings, index) {
            Ok(Some(rotated)) => younger.found.push((sibling.clone(), rotated)),
            Ok(None) => {}
            Err(error) => younger.unread.push((sibling.path.clone(), error)),
        }
    }
    younger
}

/// Opens a sibling that is no copy of another, nor of the file that is `live` under the name.
fn original(
    files: &dyn Files,
    live: Option<&dyn LogFile>,
    siblings: &[Sibling],
    index: usize,
) -> io::Result<Option<Rotated>> {
    let sibling = &siblings[index];
    let Some(rotated) = open::open_rotated(files, &sibling.path)? else { return Ok(None) };
    if rotated.identity() != sibling.stat.identity {
        return Err(io::Error::other("another file has this name since it was looked for"));
    }
    if let Some(live) = live
        && is_prefix(rotated.file(), live)?
    {
        return Ok(None);
    }
    if matches!(rotated, Rotated::Gzip(..)) {
        return Ok(Some(rotated));
    }
    for (at, other) in siblings.iter().enumerate() {
        // Of two that are equal the older one counts.
        let is_packed = open::is_gzip_name(&other.path);
        let may_be_original =
            at != index && (is_packed || (other.stat.size, at) > (sibling.stat.size, index));
        if !may_be_original {
            continue;
        }
        let Some(other) = open::open_rotated(files, &other.path)? else { continue };
        let is_copy = if is_packed {
            begins_packed(rotated.file(), other.file())?
        } else {
            is_prefix(rotated.file(), other.file())?
        };
        if is_copy {
            return Ok(None);
        }
    }
    Ok(Some(rotated))
}

/// Whether a file is kept of what was packed later. Of a long one the head must do: the rest would have to be unpacked.
fn begins_packed(file: &dyn LogFile, packed: &dyn LogFile) -> io::Result<bool> {
    let head = Head::read(file)?;
    let size = file.stat()?.size;
    Ok(head.length > 0
        && head.matches(packed)?
        && (size >= HEAD_BYTES_MAX as u64 || same_bytes(file, packed, size)?))
}

/// Whether a sibling was made after a file. What was read of it already says nothing here.
fn is_younger(sibling: &Sibling, elder: &Elder, elder_path: Option<&Path>) -> bool {
    // A copy of what an elder held may have come under any name before the elder lost its own.
    let elder_path = elder_path.filter(|_| !elder.is_live);
    let by_name = elder_path.and_then(|path| by_name(&sibling.path, path, &elder.name));
    if let Some(ByName::Count(order)) = by_name {
        return order.is_gt();
    }
    let by_date = matches!(by_name, Some(ByName::Date(Ordering::Greater)));
    let Stat { identity, modified, .. } = sibling.stat;
    let (born, elder_born) = (identity.born_ns, elder.identity.born_ns);
    let is_plain = |path: &Path| !open::is_compressed_name(path);
    if is_plain(&sibling.path) && born != 0 && elder_born != 0 && elder_path.is_none_or(is_plain) {
        // A truncation follows the last write to the copy, in the same tick of the clock perhaps. A file that was
        // written to before it was born is an old one that somebody unpacked, or the clock was set back.
        let is_of_its_time =
            if elder.is_live { modified > elder.modified } else { modified >= nanoseconds(born) || by_date };
        return (born > elder_born || (born == elder_born && by_date)) && is_of_its_time;
    }
    !elder.is_new && (modified > elder.modified || (modified == elder.modified && by_date))
}

/// A time since the epoch, in seconds and nanoseconds.
pub(super) fn nanoseconds(time_ns: u64) -> (i64, i64) {
    const SECOND_NS: u64 = 1_000_000_000;
    ((time_ns / SECOND_NS).cast_signed(), (time_ns % SECOND_NS).cast_signed())
}

/// Older first: by the last write, then by birth, then by name (a higher number is older, a later date younger).
fn age(left: &Sibling, right: &Sibling) -> Ordering {
    let (a, b) = (left.stat, right.stat);
    a.modified
        .cmp(&b.modified)
        .then(a.identity.born_ns.cmp(&b.identity.born_ns))
        .then_with(|| by_suffix(left.path.as_os_str(), right.path.as_os_str()))
}

/// What two rotated names of the same log say of their order; `Greater` is younger.
enum ByName {
    /// Rotation counts from the youngest, and needs no clock for it.
    Count(Ordering),
    /// The clock had that date, and may have been set since.
    Date(Ordering),
}

/// How two rotated names order, if both are made the same way and differ.
fn by_name(left: &Path, right: &Path, name: &Path) -> Option<ByName> {
    let rest = |path: &Path| {
        let bytes = path.as_os_str().as_bytes().strip_prefix(name.as_os_str().as_bytes())?.get(1..)?;
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number: u64 = std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
        Some((digits, number))
    };
    let ((left_digits, left), (right_digits, right)) = (rest(left)?, rest(right)?);
    match (left_digits, right_digits) {
        _ if left == right => None,
        (1..=4, 1..=4) => Some(ByName::Count(right.cmp(&left))),
        (8.., 8..) if left_digits == right_digits => Some(ByName::Date(left.cmp(&right))),
        _ => None,
    }
}

/// The order of two names where nothing better is known.
fn by_suffix(left: &OsStr, right: &OsStr) -> Ordering {
    let shared = left.as_bytes().iter().zip(right.as_bytes()).take_while(|(a, b)| a == b).count();
    let number = |name: &OsStr| {
        let digits = name.as_bytes()[shared..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    };
    let (a, b) = (number(left), number(right));
    b.cmp(&a).then_with(|| right.cmp(left))
}

/// The name of the log of which rotation made this one, as far as counts, dates and the ending of gzip tell.
pub(super) fn base_of(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    let digits = bytes.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = bytes.strip_suffix(b".gz").or(match &bytes[..bytes.len() - digits] {
        [rest @ .., b'.' | b'-'] if digits > 0 => Some(rest),
        _ => None,
    });
    match rest {
        Some(rest) if !rest.is_empty() && !rest.ends_with(b"/") => {
            base_of(Path::new(OsStr::from_bytes(rest)))
        }
        _ => path,
    }
}

/// The paths of which rotation may have made this one.
pub(super) fn bases_of(path: &Path) -> impl Iterator<Item = &Path> {
    let bytes = path.as_os_str().as_bytes();
    let name = memchr::memrchr(b'/', bytes).map_or(0, |slash| slash + 1);
    let ends = (name + 1..bytes.len().saturating_sub(1)).filter(|end| matches!(bytes[*end], b'.' | b'-'));
    ends.map(|end| Path::new(OsStr::from_bytes(&bytes[..end])))
}

/// Whether a path is what rotation makes of another.
pub(super) fn is_rotated_path(path: &Path, base: &Path) -> bool {
    is_rotated_name(path.as_os_str().as_bytes(), base.as_os_str().as_bytes())
}

/// Whether a name is what rotation makes of a base name: `access.log.1`, `access.log-20261123`.
fn is_rotated_name(name: &[u8], base: &[u8]) -> bool {
    matches!(name.strip_prefix(base), Some([b'.' | b'-', _, ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_rotation_makes_of_a_base_has_it_among_its_bases() {
        for name in ["/l/a.log.1", "/l/a.log-2026.gz", "/l/a.log.bak"] {
            let name = Path::new(name);
            assert!(bases_of(name).any(|base| base == Path::new("/l/a.log")), "{name:?}");
            assert!(bases_of(name).all(|base| is_rotated_path(name, base)), "{name:?}");
        }
        assert_eq!(bases_of(Path::new("/l.d/.a")).count(), 0);
    }

    #[test]
    fn bases_are_found_behind_counts_dates_and_gzip() {
        for name in ["a.log", "a.log.1", "a.log.12.gz", "a.log-20261123", "a.log-20261123.1.gz"] {
            assert_eq!(base_of(&Path::new("/logs").join(name)), Path::new("/logs/a.log"), "{name}");
        }
        for name in ["/logs/7", "/logs/a.log.bak", ".gz", "a-b.log"] {
            assert_eq!(base_of(Path::new(name)), Path::new(name));
        }
    }
}
