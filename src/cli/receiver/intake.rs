//! What the receiver does with a body: decode, know again, keep, count. In this order, all or nothing.
//!
//! A batch that could not be kept must be neither counted nor known again, or its repetition would be lost.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, StatusCode, header};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use serde::Serialize;

use super::fleet::Fleet;

/// The largest body, as sent and decoded. Sumo recommends at most 1 MB decoded.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Idempotency keys that are known again; the oldest is forgotten first. About 40 MB when full.
const KEYS_MAX: usize = 1_000_000;
/// Categories with a count and a file of their own; further ones share [`OTHER_CATEGORY`].
const CATEGORIES_MAX: usize = 1000;
/// Longest category, in characters, as Sumo has it; what is longer is cut.
const CATEGORY_CHARACTERS_MAX: usize = 1024;
/// Longest name of a category's file, in bytes, without its ending.
const FILE_NAME_BYTES_MAX: usize = 120;
/// Where the categories beyond the limit go.
const OTHER_CATEGORY: &str = "_other";
/// The category of a request that names none.
const NO_CATEGORY: &str = "uncategorized";

/// Why the receiver cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// Listening beyond this machine must be asked for.
    #[error("{0} is not a loopback address, and remote senders were not allowed")]
    NotLoopback(SocketAddr),
    /// Not a status code that can answer a request.
    #[error("{0} is no status code from 200 to 999")]
    Status(u16),
    /// Not a share.
    #[error("{0} is no share from 0 to 1")]
    FailRate(f64),
    /// The address cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The store directory cannot be made.
    #[error("cannot use the store directory {}", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The server ended by itself.
    #[error("cannot go on serving")]
    Serve(#[source] io::Error),
}

/// What has come in. `GET /stats` answers with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// POSTs that were answered with success, duplicates included.
    pub requests: u64,
    /// Records taken in, each once: lines of a decoded body that are not empty.
    pub records: u64,
    /// Decoded bytes taken in.
    pub bytes: u64,
    /// Bytes taken in as they came, compressed.
    pub compressed_bytes: u64,
    /// Repetitions of a known key with the same bytes; neither kept nor counted again.
    pub duplicates: u64,
    /// A known key with other bytes, which must never happen; kept and counted.
    pub conflicts: u64,
    /// POSTs that were answered with anything but success.
    pub rejected: u64,
    /// Of those, batches that were taken in before the answer was withheld.
    pub lost_answers: u64,
    /// Records by category.
    pub by_category: BTreeMap<String, u64>,
}

/// One POST.
pub(super) struct Post<'a> {
    category: String,
    host: String,
    encoding: String,
    key: Option<&'a [u8]>,
    body: &'a [u8],
}

impl<'a> Post<'a> {
    pub(super) fn new(headers: &'a HeaderMap, body: &'a [u8]) -> Post<'a> {
        let text = |name: &str| {
            let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
            value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let category = text("x-sumo-category").unwrap_or_else(|| NO_CATEGORY.to_owned());
        Post {
            category: category.chars().take(CATEGORY_CHARACTERS_MAX).collect(),
            host: text("x-sumo-host").unwrap_or_default().chars().take(CATEGORY_CHARACTERS_MAX).collect(),
            encoding: text(header::CONTENT_ENCODING.as_str()).unwrap_or_default().to_ascii_lowercase(),
            key: headers.get("idempotency-key").map(|value| value.as_bytes()),
            body,
        }
    }

    /// The decoded body, bounded.
    fn decoded(&self) -> Result<Vec<u8>, Rejection> {
        let limit = BODY_BYTES_MAX as u64 + 1;
        let mut decoded = Vec::new();
        let read = match self.encoding.as_str() {
            "gzip" | "x-gzip" => MultiGzDecoder::new(self.body).take(limit).read_to_end(&mut decoded),
            // What HTTP calls deflate is zlib (RFC 9110, section 8.4.1.2).
            "deflate" => ZlibDecoder::new(self.body).take(limit).read_to_end(&mut decoded),
            "" | "identity" => self.body.take(limit).read_to_end(&mut decoded),
            _ => {
                let said = "the encoding is none of gzip, deflate, identity".to_owned();
                return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, said));
            }
        };
        match read {
            Ok(_) if decoded.len() > BODY_BYTES_MAX => {
                let said = format!("a decoded body has at most {BODY_BYTES_MAX} bytes");
                Err((StatusCode::PAYLOAD_TOO_LARGE, said))
            }
            Ok(_) => Ok(decoded),
            Err(error) => Err((StatusCode::BAD_REQUEST, format!("the body cannot be decoded: {error}"))),
        }
    }
}

/// Status and words for a POST that is not taken in.
type Rejection = (StatusCode, String);

/// The receiver's memory and its store.
pub(super) struct Intake {
    stats: Stats,
    keys: Keys,
    store: Option<PathBuf>,
    random: fastrand::Rng,
    fleet: Fleet,
}

impl Intake {
    pub(super) fn new(store: Option<PathBuf>, seed: u64) -> Result<Intake, ReceiverError> {
        if let Some(path) = &store {
            fs::create_dir_all(path).map_err(|source| ReceiverError::Store { path: path.clone(), source })?;
        }
        let random = fastrand::Rng::with_seed(seed);
        let (stats, keys, fleet) = (Stats::default(), Keys::new(KEYS_MAX), Fleet::default());
        Ok(Intake { stats, keys, store, random, fleet })
    }

    pub(super) fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// What the agents tell together.
    pub(super) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// POSTs answered with success so far.
    pub(super) fn accepted(&self) -> u64 {
        self.stats.requests
    }

    /// Draws whether this request is one of the given share.
    pub(super) fn fails(&mut self, share: f64) -> bool {
        self.random.f64() < share
    }

    /// Counts a POST that is answered with an error.
    pub(super) fn reject(&mut self) {
        self.stats.rejected += 1;
    }

    /// Counts a POST that is answered with a status by order and not taken in.
    pub(super) fn answer_by_order(&mut self, success: bool) {
        if success {
            self.stats.requests += 1;
        } else {
            self.stats.rejected += 1;
        }
    }

    /// Keeps and counts a batch, unless it is known. `answered` is false when the sender will not learn of it.
    pub(super) fn take(&mut self, post: &Post<'_>, answered: bool) -> Result<(), Rejection> {
        let hashes = post.key.map(|key| (hash(key), hash(post.body)));
        let known = hashes.and_then(|(key, _)| self.keys.body_of(key));
        let repeated = known.is_some() && known == hashes.map(|(_, body)| body);
        if repeated {
            self.stats.duplicates += 1;
        } else {
            let decoded = post.decoded()?;
            let records = decoded.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64;
            let category = self.category(&post.category);
            if let Some(store) = &self.store {
                keep(store, &category, &decoded).map_err(|error| {
                    (StatusCode::INTERNAL_SERVER_ERROR, format!("the records cannot be stored: {error}"))
                })?;
            }
            self.fleet.take(&post.host, &decoded);
            if let Some((key, body)) = hashes {
                self.keys.remember(key, body);
            }
            self.stats.conflicts += u64::from(known.is_some());
            self.stats.records += records;
            self.stats.bytes += decoded.len() as u64;
            self.stats.compressed_bytes += post.body.len() as u64;
            *self.stats.by_category.entry(category).or_default() += records;
        }
        if answered {
            self.stats.requests += 1;
        } else {
            self.stats.rejected += 1;
            self.stats.lost_answers += 1;
        }
        Ok(())
    }

    /// The category to count and store under.
    fn category(&self, asked: &str) -> String {
        let known = &self.stats.by_category;
        if known.contains_key(asked) || known.len() < CATEGORIES_MAX {
            asked.to_owned()
        } else {
            OTHER_CATEGORY.to_owned()
        }
    }
}

/// Appends records to a category's file, whole or not at all.
fn keep(store: &Path, category: &str, decoded: &[u8]) -> io::Result<()> {
    if decoded.is_empty() {
        return Ok(());
    }
    let path = store.join(file_name(category));
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let length_before = file.metadata()?.len();
    let ending: &[u8] = if decoded.ends_with(b"\n") { b"" } else { b"\n" };
    let written = file.write_all(decoded).and_then(|()| file.write_all(ending));
    if written.is_err() {
        // The batch will come again; half of it must not stay. Should this fail too, the first error tells more.
        let _ = file.set_len(length_before);
    }
    written
}

/// A category as the name of a file: `watchpost/nginx/access` is `watchpost_nginx_access.ndjson`.
pub(super) fn file_name(category: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let mut name: String = category.chars().map(safe).take(FILE_NAME_BYTES_MAX).collect();
    if name.starts_with('.') {
        name.replace_range(..1, "_");
    }
    name + ".ndjson"
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The hashes of bodies by the hash of their key, up to a number, oldest out.
pub(super) struct Keys {
    bodies: HashMap<u64, u64>,
    order: VecDeque<u64>,
    keys_max: usize,
}

impl Keys {
    pub(super) fn new(keys_max: usize) -> Keys {
        Keys { bodies: HashMap::new(), order: VecDeque::new(), keys_max }
    }

    pub(super) fn body_of(&self, key: u64) -> Option<u64> {
        self.bodies.get(&key).copied()
    }

    pub(super) fn remember(&mut self, key: u64, body: u64) {
        if self.bodies.insert(key, body).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > self.keys_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.bodies.remove(&oldest);
        }
    }
}
