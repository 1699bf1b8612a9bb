//! A destination that misbehaves on command: it plays a list of acts in order, then a standing act if there is one,
//! and otherwise behaves. It keeps every request, so that nothing lost and nothing repeated can be shown.
//!
//! Threads and blocking sockets, and rustls where TLS is asked for; never the code under test.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::support::wait_out;

/// The part of every address that must be seen nowhere.
pub(crate) const CANARY: &str = "ZaVnC4dhaV2cAnArY";
/// Acts that need a request are for requests of this category; others are answered at once.
const AIM: &str = "watchpost/nginx/access";
/// How soon a blocked connection notices that the server ends or changed its certificate.
const READ_INTERVAL: Duration = Duration::from_millis(50);

/// When an act begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// At once; nothing is read.
    Accept,
    /// When the first bytes are there, whatever they are.
    Hello,
    /// When the head of a request is there; its body is read afterwards.
    Head,
    /// When half of its body is there.
    MidBody,
    /// When the whole request is there.
    Body,
}

/// How an act ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The connection serves the next request.
    Keep,
    /// The connection is closed, unannounced.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing more is read or written.
    Hang,
}

/// One behaviour.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    phase: Phase,
    after: Duration,
    say: Vec<u8>,
    again: Option<(Vec<u8>, Duration)>,
    then: Then,
}

impl Act {
    pub(crate) fn new(phase: Phase, say: impl Into<Vec<u8>>, then: Then) -> Act {
        Act { phase, after: Duration::ZERO, say: say.into(), again: None, then }
    }

    /// The same, only so much later.
    pub(crate) fn after(self, after: Duration) -> Act {
        Act { after, ..self }
    }

    /// The same, and then these bytes for ever, with a pause between.
    pub(crate) fn for_ever(self, bytes: impl Into<Vec<u8>>, pause: Duration) -> Act {
        Act { again: Some((bytes.into(), pause)), ..self }
    }
}

/// A whole answer; the connection stays.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Act {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    Act::new(Phase::Body, text, Then::Keep)
}

/// One request that arrived whole.
#[derive(Clone, Debug)]
struct Seen {
    head: String,
    body: Vec<u8>,
    at: Instant,
    /// A whole head with a 2xx went out, and the connection was not reset behind it.
    accepted: bool,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        header(&self.head, name).unwrap_or_default()
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = head.lines().filter_map(|line| line.split_once(": "));
    pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// What all requests together show.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// The lines that were accepted, in the order of arrival, each batch once.
    pub(crate) lines: Vec<String>,
    /// The events that were accepted.
    pub(crate) events: Vec<String>,
    /// Requests whose key was seen before.
    pub(crate) repeats: u64,
    /// Requests whose key was seen before with another body or other headers.
    pub(crate) conflicts: u64,
    /// Requests whose key had been accepted before.
    pub(crate) needless: u64,
}

#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Act>>,
    standing: Mutex<Option<Act>>,
    seen: Mutex<Vec<Seen>>,
    tls: Mutex<Option<Arc<ServerConfig>>>,
    /// Raised to close what is idle.
    generation: AtomicU64,
    connections: AtomicU64,
    said_bytes: AtomicU64,
    stop: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The next act, if it begins in one of these phases.
    fn next(&self, is_due: impl Fn(Phase) -> bool) -> Option<Act> {
        let mut script = lock(&self.script);
        match script.front() {
            Some(act) if is_due(act.phase) => script.pop_front(),
            Some(_) => None,
            None => lock(&self.standing).clone().filter(|act| is_due(act.phase)),
        }
    }

    fn awaits_connection(&self) -> bool {
        let first = lock(&self.script).front().cloned();
        first.or_else(|| lock(&self.standing).clone()).is_some_and(|act| is_of_connection(act.phase))
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn is_of_connection(phase: Phase) -> bool {
    matches!(phase, Phase::Accept | Phase::Hello)
}

/// The server; it ends with its handle.
pub(crate) struct FaultServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl FaultServer {
    /// A server that behaves.
    pub(crate) fn start() -> FaultServer {
        FaultServer::at("127.0.0.1:0".parse().expect("an address"))
    }

    pub(crate) fn at(address: SocketAddr) -> FaultServer {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let mut server = FaultServer { address, shared: Arc::default(), thread: None };
        server.listen(listener);
        server
    }

    fn listen(&mut self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        self.thread = Some(std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.is_over() {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
        }));
    }

    /// Goes away with every connection; nobody listens any more.
    pub(crate) fn leave(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then sees that it is over.
        let woken = TcpStream::connect(self.address);
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }

    /// Listens again, where it did.
    pub(crate) fn come_back(&mut self) {
        self.shared.stop.store(false, Ordering::Relaxed);
        self.close_idle();
        self.listen(TcpListener::bind(self.address).expect("the port is free again"));
    }

    /// The URL to send to, for a name or an address of this host.
    pub(crate) fn url(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}/receiver/v1/http/{CANARY}", self.address.port())
    }

    /// Plays these acts in order, each once, before anything else.
    pub(crate) fn play(&self, acts: impl IntoIterator<Item = Act>) {
        lock(&self.shared.script).extend(acts);
    }

    /// Plays this act over and over, until it is mended.
    pub(crate) fn stand(&self, act: Act) {
        *lock(&self.shared.standing) = Some(act);
    }

    /// Behaves from now on.
    pub(crate) fn mend(&self) {
        *lock(&self.shared.standing) = None;
    }

    /// Speaks TLS with this certificate from now on, or plain HTTP with none. Idle connections are closed.
    pub(crate) fn set_tls(&self, tls: Option<Arc<ServerConfig>>) {
        *lock(&self.shared.tls) = tls;
        self.close_idle();
    }

    /// Closes every connection on which no request is under way.
    pub(crate) fn close_idle(&self) {
        self.shared.generation.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Bytes of answers so far.
    pub(crate) fn said_bytes(&self) -> u64 {
        self.shared.said_bytes.load(Ordering::Relaxed)
    }

    /// Acts that were not played yet.
    pub(crate) fn acts_left(&self) -> usize {
        lock(&self.shared.script).len()
    }

    /// How long the agent waited before each repeat of the latest batch of lines.
    pub(crate) fn waits(&self) -> Vec<Duration> {
        let seen = lock(&self.shared.seen);
        let lines: Vec<&Seen> = seen.iter().filter(|seen| seen.header("x-sumo-category") == AIM).collect();
        let key = lines.last().map(|seen| seen.header("idempotency-key"));
        let same: Vec<&&Seen> =
            lines.iter().filter(|seen| Some(seen.header("idempotency-key")) == key).collect();
        same.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
    }

    pub(crate) fn audit(&self) -> Audit {
        let mut audit = Audit::default();
        let mut first: BTreeMap<String, Seen> = BTreeMap::new();
        let mut accepted: BTreeMap<String, ()> = BTreeMap::new();
        for seen in lock(&self.shared.seen).iter() {
            let key = seen.header("idempotency-key").to_owned();
            assert!(!key.is_empty(), "a request without a key: {}", seen.head);
            if let Some(before) = first.get(&key) {
                audit.repeats += 1;
                audit.conflicts += u64::from(before.head != seen.head || before.body != seen.body);
                audit.needless += u64::from(accepted.contains_key(&key));
            }
            first.entry(key.clone()).or_insert_with(|| seen.clone());
            if seen.accepted && accepted.insert(key, ()).is_none() {
                let (records, field) = match seen.header("x-sumo-category") {
                    AIM => (&mut audit.lines, "log"),
                    "watchpost/events" => (&mut audit.events, "message"),
                    _ => continue,
                };
                records.extend(texts(&seen.body, field));
            }
        }
        audit
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A field of every record of a batch.
fn texts(body: &[u8], field: &str) -> Vec<String> {
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(body).read_to_string(&mut text).expect("a batch is gzip of text");
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON record"));
    records.map(|record| record[field].as_str().expect("the field").to_owned()).collect()
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    fn tcp(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => stream.get_ref(),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(buffer),
            Wire::Tls(stream) => stream.read(buffer),
        }
    }

    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream: &mut dyn Write = match self {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => stream,
        };
        stream.write_all(bytes).and_then(|()| stream.flush())
    }

    fn end(self, then: Then, shared: &Shared) {
        match then {
            // A linger of zero turns the close into a reset.
            Then::Reset => {
                let _ = rustix::net::sockopt::set_socket_linger(self.tcp(), Some(Duration::ZERO));
            }
            // What is still unread would turn the close into a reset.
            Then::Keep | Then::Close => {
                let _ = self.tcp().shutdown(Shutdown::Write);
                let mut rest = self.tcp();
                let deadline = Instant::now() + READ_INTERVAL;
                while Instant::now() < deadline && rest.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
            }
            Then::Hang => {
                while !shared.is_over() {
                    wait_out(READ_INTERVAL);
                }
            }
        }
    }
}

fn serve(stream: TcpStream, shared: &Arc<Shared>) {
    let _ = stream.set_read_timeout(Some(READ_INTERVAL));
    // An endless answer must end with the server.
    let _ = stream.set_write_timeout(Some(Duration::from_secs(60)));
    let generation = shared.generation.load(Ordering::Relaxed);
    let mut wire = Wire::Plain(stream);
    if let Some(act) = shared.next(is_of_connection) {
        if act.phase == Phase::Hello {
            let _ = read_some(&mut wire, shared, |_| true);
        }
        perform(&mut wire, &act, shared);
        return wire.end(act.then, shared);
    }
    let tls = lock(&shared.tls).clone();
    if let (Some(tls), Wire::Plain(stream)) = (tls, &wire) {
        let (Ok(connection), Ok(stream)) = (ServerConnection::new(tls), stream.try_clone()) else { return };
        wire = Wire::Tls(Box::new(StreamOwned::new(connection, stream)));
    }
    let then = loop {
        let keep = |shared: &Shared| {
            !shared.awaits_connection() && shared.generation.load(Ordering::Relaxed) == generation
        };
        match request(&mut wire, shared, keep) {
            Then::Keep => {}
            then => break then,
        }
    };
    wire.end(then, shared);
}

/// Reads once; `None` when the peer or the server ends, or `wait` has enough of waiting.
fn read_some(wire: &mut Wire, shared: &Shared, wait: impl Fn(&Shared) -> bool) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match wire.read(&mut buffer) {
            Ok(0) => return None,
            Ok(read) => {
                buffer.truncate(read);
                return Some(buffer);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if shared.is_over() || !wait(shared) {
                    return None;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// One request of a connection.
fn request(wire: &mut Wire, shared: &Shared, keep: impl Fn(&Shared) -> bool) -> Then {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        match read_some(wire, shared, |shared| !read.is_empty() || keep(shared)) {
            Some(more) => read.extend_from_slice(&more),
            None => return Then::Close,
        }
    };
    let mut body = read.split_off(end);
    let head = String::from_utf8_lossy(&read).into_owned();
    let length: usize = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let is_aimed = header(&head, "x-sumo-category") == Some(AIM);
    let act = if is_aimed { shared.next(|phase| !is_of_connection(phase)) } else { None };
    let act = act.unwrap_or_else(|| answer("200 OK", "", ""));
    if act.phase == Phase::Head {
        perform(wire, &act, shared);
        if act.then != Then::Keep {
            return act.then;
        }
    }
    if !read_body(wire, shared, &mut body, if act.phase == Phase::MidBody { length / 2 } else { length }) {
        return Then::Close;
    }
    if act.phase == Phase::MidBody {
        perform(wire, &act, shared);
        return act.then;
    }
    // Kept before it is answered: whoever sees the answer sees the request too.
    let accepted = act.then != Then::Reset && is_accepted(&act.say);
    lock(&shared.seen).push(Seen { head, body, at: Instant::now(), accepted });
    if act.phase == Phase::Body {
        perform(wire, &act, shared);
    }
    act.then
}

fn read_body(wire: &mut Wire, shared: &Shared, body: &mut Vec<u8>, length: usize) -> bool {
    while body.len() < length {
        match read_some(wire, shared, |_| true) {
            Some(more) => body.extend_from_slice(&more),
            None => return false,
        }
    }
    true
}

fn perform(wire: &mut Wire, act: &Act, shared: &Shared) {
    if act.after > Duration::ZERO {
        wait_out(act.after);
    }
    if wire.say(&act.say).is_err() {
        return;
    }
    shared.said_bytes.fetch_add(act.say.len() as u64, Ordering::Relaxed);
    let Some((bytes, pause)) = &act.again else { return };
    while !shared.is_over() && wire.say(bytes).is_ok() {
        shared.said_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if *pause > Duration::ZERO {
            wait_out(*pause);
        }
    }
}

/// Whether an answer begins with the whole head of a 2xx, after any number of 1xx.
fn is_accepted(say: &[u8]) -> bool {
    let text = String::from_utf8_lossy(say);
    let heads = text.split_inclusive("\r\n\r\n").filter(|part| part.ends_with("\r\n\r\n"));
    let mut statuses = heads.map(|head| head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)));
    statuses.find(|status| !status.is_some_and(|code| code.starts_with('1'))).flatten().is_some_and(is_2xx)
}

fn is_2xx(code: &str) -> bool {
    code.starts_with('2') && code.bytes().all(|byte| byte.is_ascii_digit())
}
