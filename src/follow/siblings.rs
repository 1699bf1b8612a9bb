//! What rotation left beside a log: the other names in its directory, and which of them came after a file.
//!
//! Names choose who is looked at and break ties; they are never the truth. A plain file came after another if it was
//! born after it and not written to before it was. Compressing makes a file anew but keeps the time of the last
//! write, so that is what tells the age of a gzip file: one that is made late of an old log stays old. A gzip file
//! beside the plain file of which it is made is not looked at yet. Reads directories and heads, and remembers nothing.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FILES_MAX;
use super::files::{Files, Stat};
use super::identity::{Identity, is_prefix};
use super::open::{self, Rotated};
use super::watch::directory_of;

/// Names of a directory that are looked at for rotated and moved files: as many logs as are followed, and nine older
/// ones of each.
const LISTED_MAX: usize = 10 * FILES_MAX;

/// The names in directories, each listed once: thousands of logs of one directory may rotate at the same moment.
pub(super) struct Listings {
    files: Arc<dyn Files>,
    names: BTreeMap<PathBuf, BTreeSet<OsString>>,
    identities: BTreeMap<PathBuf, BTreeMap<Identity, Vec<PathBuf>>>,
}

/// A file beside a log, under a name that rotation may have given it.
pub(super) struct Sibling {
    pub(super) path: PathBuf,
    pub(super) stat: Stat,
}

impl Listings {
    /// Nothing is listed yet.
    pub(super) fn new(files: &Arc<dyn Files>) -> Listings {
        Listings { files: Arc::clone(files), names: BTreeMap::new(), identities: BTreeMap::new() }
    }

    /// The names that rotation may have made of `name`.
    fn rotated_names(&mut self, name: &Path) -> Vec<OsString> {
        let Some(base) = name.file_name() else { return Vec::new() };
        let directory = directory_of(name);
        let names = self.names.entry(directory.clone()).or_insert_with(|| {
            self.files.list(&directory, LISTED_MAX).unwrap_or_default().into_iter().collect()
        });
        let from_base = names.range::<OsStr, _>((Bound::Excluded(base), Bound::Unbounded));
        from_base
            .take_while(|name| name.as_bytes().starts_with(base.as_bytes()))
            .filter(|name| is_rotated_name(name.as_bytes(), base.as_bytes()))
            .cloned()
            .collect()
    }

    /// What rotation may have made of `name` and can be read, plain or gzip, the youngest first.
    pub(super) fn siblings(&mut self, name: &Path) -> Vec<Sibling> {
        let directory = directory_of(name);
        let names: BTreeSet<OsString> = self.rotated_names(name).into_iter().collect();
        let has_plain_twin = |name: &OsString| {
            name.as_bytes().strip_suffix(b".gz").is_some_and(|plain| names.contains(OsStr::from_bytes(plain)))
        };
        let mut siblings: Vec<Sibling> = names
            .iter()
            .filter(|name| !has_plain_twin(name))
            .map(|name| directory.join(name))
            .filter(|path| open::is_gzip_name(path) || !open::is_compressed_name(path))
            .filter_map(|path| Some(Sibling { stat: self.files.stat(&path).ok()?, path }))
            .filter(|sibling| sibling.stat.is_regular)
            .collect();
        siblings.sort_by(|left, right| age(right, left));
        siblings
    }

    /// A file beside `name` that another compressor than gzip made, written to no earlier than at `modified`.
    pub(super) fn otherwise_compressed(&mut self, name: &Path, modified: (i64, i64)) -> Option<PathBuf> {
        let directory = directory_of(name);
        let names = self.rotated_names(name);
        let paths = names.into_iter().map(|name| directory.join(name));
        paths
            .filter(|path| open::is_compressed_name(path) && !open::is_gzip_name(path))
            .find(|path| self.files.stat(path).is_ok_and(|stat| stat.modified >= modified))
    }

    /// The paths beside `name` that lead to a file.
    pub(super) fn of_identity(&mut self, name: &Path, identity: Identity) -> &[PathBuf] {
        let directory = directory_of(name);
        let paths = self.identities.entry(directory).or_insert_with_key(|directory| {
            let mut paths: BTreeMap<Identity, Vec<PathBuf>> = BTreeMap::new();
            for name in self.files.list(directory, LISTED_MAX).unwrap_or_default() {
                let path = directory.join(name);
                if let Some(identity) = open::identity_of(&*self.files, &path) {
                    paths.entry(identity).or_default().push(path);
                }
            }
            paths
        });
        paths.get(&identity).map_or(&[], Vec::as_slice)
    }
}

/// The file after which others are looked for.
pub(super) struct Elder {
    /// The name that it had, of which theirs are made.
    pub(super) name: PathBuf,
    /// Where it is now, if it has another name and that is known.
    pub(super) path: Option<PathBuf>,
    pub(super) identity: Identity,
    pub(super) modified: (i64, i64),
    /// It has its name still: what came after it can only be a copy of what it held since.
    pub(super) is_live: bool,
    /// Nothing was known of the name before it. A file that was compressed since may be older than it.
    pub(super) is_new: bool,
}

/// The files that rotation made of a name after it made one of `elder`, oldest first. Copies of one another, and of
/// the file that has the name now, are left out, and so is what `is_known` knows.
pub(super) fn younger(
    elder: &Elder,
    listings: &mut Listings,
    is_known: &dyn Fn(Identity) -> bool,
) -> Vec<(PathBuf, Rotated)> {
    let files = Arc::clone(&listings.files);
    let siblings = listings.siblings(&elder.name);
    let live = files.open(&elder.name).ok();
    let mut accepted: Vec<(PathBuf, Rotated)> = Vec::new();
    for (index, sibling) in siblings.iter().enumerate().rev() {
        if is_known(sibling.stat.identity) || !is_younger(sibling, elder) {
            continue;
        }
        let Ok(Some(rotated)) = open::open_rotated(&*files, &sibling.path) else { continue };
        if rotated.identity() != sibling.stat.identity {
            continue;
        }
        // Of two that are equal the older one counts.
        let is_copy_of = |at: usize, other: &Sibling| {
            at != index
                && (other.stat.size, at) > (sibling.stat.size, index)
                && !open::is_compressed_name(&other.path)
                && open::open_rotated(&*files, &other.path).is_ok_and(|other| {
                    other.is_some_and(|other| is_prefix(rotated.file(), other.file()).unwrap_or(false))
                })
        };
        let copies_live =
            live.as_ref().is_some_and(|live| is_prefix(rotated.file(), &**live).unwrap_or(false));
        let is_plain = matches!(rotated, Rotated::Plain(_));
        let copies_plain = is_plain && siblings.iter().enumerate().any(|(at, other)| is_copy_of(at, other));
        if !copies_live && !copies_plain {
            accepted.push((sibling.path.clone(), rotated));
        }
    }
    accepted
}

/// Whether a sibling was made after a file. What was read of it already says nothing here.
fn is_younger(sibling: &Sibling, elder: &Elder) -> bool {
    let Stat { identity, modified, .. } = sibling.stat;
    let by_name = elder.path.as_deref().and_then(|path| by_number(&sibling.path, path, &elder.name));
    let by_name = by_name.unwrap_or(Ordering::Equal);
    let (born, elder_born) = (identity.born_ns, elder.identity.born_ns);
    let is_plain = |path: &Path| !open::is_compressed_name(path);
    let tells_birth = born != 0 && elder_born != 0 && elder.path.as_deref().is_none_or(is_plain);
    if is_plain(&sibling.path) && tells_birth {
        let is_born_after = born > elder_born || (born == elder_born && by_name == Ordering::Greater);
        // A truncation follows the last write to the copy, in the same tick of the clock perhaps.
        let is_written_after = modified > elder.modified || (modified == elder.modified && !elder.is_live);
        return is_born_after && is_written_after;
    }
    if elder.is_new {
        return false;
    }
    match modified.cmp(&elder.modified) {
        Ordering::Less => false,
        Ordering::Equal => by_name == Ordering::Greater,
        Ordering::Greater => by_name != Ordering::Less,
    }
}

/// Older first: by the last write, then by birth, then by name (a higher number is older, a later date younger).
fn age(left: &Sibling, right: &Sibling) -> Ordering {
    let (a, b) = (left.stat, right.stat);
    a.modified
        .cmp(&b.modified)
        .then(a.identity.born_ns.cmp(&b.identity.born_ns))
        .then_with(|| by_suffix(left.path.as_os_str(), right.path.as_os_str()))
}

/// How two rotated names of the same log order, if both are numbered the same way; `Greater` is younger.
fn by_number(left: &Path, right: &Path, name: &Path) -> Option<Ordering> {
    let rest = |path: &Path| {
        let bytes = path.as_os_str().as_bytes().strip_prefix(name.as_os_str().as_bytes())?.get(1..)?;
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number: u64 = std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
        Some((digits, number))
    };
    let ((left_digits, left), (right_digits, right)) = (rest(left)?, rest(right)?);
    match (left_digits, right_digits) {
        // Numbers count from the youngest; dates count up.
        (1..=4, 1..=4) => Some(right.cmp(&left)),
        (8.., 8..) if left_digits == right_digits => Some(left.cmp(&right)),
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

/// Whether a path is what rotation makes of another.
pub(super) fn is_rotated_path(path: &Path, base: &Path) -> bool {
    is_rotated_name(path.as_os_str().as_bytes(), base.as_os_str().as_bytes())
}

/// Whether a name is what rotation makes of a base name: `access.log.1`, `access.log-20261123`.
fn is_rotated_name(name: &[u8], base: &[u8]) -> bool {
    matches!(name.strip_prefix(base), Some([b'.' | b'-', _, ..]))
}
