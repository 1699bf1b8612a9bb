//! The receiver through its front door, with an ordinary HTTP client and with the real sender.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::intake::{Keys, file_name};
use super::*;
use crate::secret::Secret;
use crate::ship;

/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(20);

fn options() -> ReceiverOptions {
    ReceiverOptions::new(([127, 0, 0, 1], 0).into())
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}

/// A receiver that runs, and a client for it.
struct Rig {
    handle: ReceiverHandle,
    client: reqwest::Client,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Stats, ReceiverError>>,
}

impl Rig {
    async fn start(options: ReceiverOptions) -> Rig {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let receiver = Receiver::bind(options).await.expect("loopback has a free port");
        let handle = receiver.handle();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(receiver.run(async move {
            let _ = stopped.await;
        }));
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
        Rig { handle, client, stop, task }
    }

    async fn post(&self, category: &str, key: &str, encoding: &str, body: Vec<u8>) -> u16 {
        let url = format!("http://{}/receiver/v1/http/any", self.handle.local_addr());
        let request =
            self.client.post(url).header("X-Sumo-Category", category).header("Idempotency-Key", key);
        let sent = request.header("Content-Encoding", encoding).body(body).send();
        let answer =
            tokio::time::timeout(DEADLINE, sent).await.expect("an answer in time").expect("an answer");
        answer.status().as_u16()
    }

    async fn finish(self) -> Stats {
        let _ = self.stop.send(());
        let ended = tokio::time::timeout(DEADLINE, self.task).await.expect("it ends in time");
        ended.expect("no panic").expect("no error")
    }
}

#[tokio::test]
async fn records_are_decoded_counted_and_stored() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("new/store");
    let rig = Rig::start(ReceiverOptions { store: Some(store.clone()), ..options() }).await;
    let zlib = {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"{\"d\":4}\n").expect("memory takes everything");
        encoder.finish().expect("memory takes everything")
    };
    let mut members = gzip("{\"a\":1}\n");
    members.extend(gzip("{\"b\":2}\n\n"));
    assert_eq!(rig.post("watchpost/nginx/access", "k1", "gzip", members).await, 200);
    assert_eq!(rig.post("watchpost/nginx/access", "k2", "identity", b"{\"c\":3}".to_vec()).await, 200);
    assert_eq!(rig.post("watchpost/nginx/access", "k3", "deflate", zlib).await, 200);
    assert_eq!(rig.post("../../etc/passwd", "k4", "gzip", gzip("x\n")).await, 200);

    let stats = rig.handle.stats();
    assert_eq!((stats.requests, stats.records, stats.bytes), (4, 5, 8 + 9 + 7 + 8 + 2));
    let url = format!("http://{}/stats", rig.handle.local_addr());
    let answer = rig.client.get(url).send().await.expect("an answer").text().await.expect("a body");
    let told: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(told["by_category"], serde_json::json!({"watchpost/nginx/access": 4, "../../etc/passwd": 1}));
    assert_eq!((&told["requests"], &told["duplicates"]), (&4.into(), &0.into()));

    let stored = std::fs::read_to_string(store.join("watchpost_nginx_access.ndjson")).expect("it is stored");
    assert_eq!(stored, "{\"a\":1}\n{\"b\":2}\n\n{\"c\":3}\n{\"d\":4}\n");
    let outside = std::fs::read_to_string(store.join("_._.._etc_passwd.ndjson")).expect("it stays inside");
    assert_eq!(outside, "x\n");
    assert_eq!(rig.finish().await, stats);
}

#[tokio::test]
async fn repetitions_are_known_and_conflicts_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let rig = Rig::start(ReceiverOptions { store: Some(directory.path().to_owned()), ..options() }).await;
    for (key, line) in [("a/1/1", "one"), ("a/1/1", "one"), ("a/1/2", "one"), ("a/1/1", "two")] {
        assert_eq!(rig.post("c", key, "gzip", gzip(line)).await, 200);
    }
    let stored = std::fs::read_to_string(directory.path().join("c.ndjson")).expect("it is stored");
    assert_eq!(stored, "one\none\ntwo\n");
    let stats = rig.finish().await;
    assert_eq!((stats.requests, stats.records, stats.duplicates, stats.conflicts), (4, 3, 1, 1));
}

#[tokio::test]
async fn what_cannot_be_taken_in_is_rejected_and_may_come_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().to_owned();
    let rig = Rig::start(ReceiverOptions { store: Some(store.clone()), ..options() }).await;
    assert_eq!(rig.post("c", "1", "gzip", b"not gzip".to_vec()).await, 400);
    assert_eq!(rig.post("c", "1", "br", b"x".to_vec()).await, 415);
    let bomb = {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let block = vec![0; 1024 * 1024];
        for _ in 0..=BODY_BYTES_MAX / block.len() {
            encoder.write_all(&block).expect("memory takes everything");
        }
        encoder.finish().expect("memory takes everything")
    };
    assert_eq!(rig.post("c", "1", "gzip", bomb).await, 413);
    // A directory where the file should be: the batch cannot be stored, and is not remembered either.
    std::fs::create_dir(store.join("d.ndjson")).expect("it can be made");
    assert_eq!(rig.post("d", "1", "gzip", gzip("x\n")).await, 500);
    std::fs::remove_dir(store.join("d.ndjson")).expect("it can be removed");
    assert_eq!(rig.post("d", "1", "gzip", gzip("x\n")).await, 200);
    let stats = rig.finish().await;
    assert_eq!((stats.requests, stats.records, stats.rejected, stats.duplicates), (1, 1, 4, 0));
}

#[tokio::test]
async fn other_methods_are_a_ping_or_refused() {
    let rig = Rig::start(ReceiverOptions { status: Some(503), ..options() }).await;
    let url = format!("http://{}/receiver/v1/http/any", rig.handle.local_addr());
    for (method, expected) in
        [(Method::GET, 200), (Method::HEAD, 200), (Method::PUT, 405), (Method::POST, 503)]
    {
        let answer = rig.client.request(method.clone(), &url).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), expected, "{method}");
    }
    let stats = rig.finish().await;
    assert_eq!((stats.requests, stats.records, stats.rejected), (0, 0, 1));
}

#[tokio::test]
async fn failures_are_drawn_by_their_share() {
    let rig = Rig::start(ReceiverOptions { fail_rate: 0.3, seed: 5, ..options() }).await;
    let mut failed = 0;
    for index in 0..200 {
        failed += u32::from(rig.post("c", &index.to_string(), "", b"x\n".to_vec()).await == 503);
    }
    assert!((30..=90).contains(&failed), "{failed}");
    let stats = rig.finish().await;
    assert_eq!((stats.rejected, stats.requests), (u64::from(failed), 200 - u64::from(failed)));
    assert_eq!((stats.records, stats.lost_answers), (stats.requests, 0), "what failed was not taken in");
}

#[tokio::test]
async fn it_ends_after_so_many_and_takes_no_more() {
    let rig = Rig::start(ReceiverOptions { stop_after: Some(3), ..options() }).await;
    for index in 0..3 {
        assert_eq!(rig.post("c", &index.to_string(), "", b"x".to_vec()).await, 200);
    }
    let ended = tokio::time::timeout(DEADLINE, rig.task).await.expect("it ends by itself");
    assert_eq!(ended.expect("no panic").expect("no error").requests, 3);
}

#[tokio::test]
async fn answers_wait_for_the_delay() {
    let delay = Duration::from_millis(120);
    let rig = Rig::start(ReceiverOptions { delay, ..options() }).await;
    let start = std::time::Instant::now();
    assert_eq!(rig.post("c", "1", "", b"x".to_vec()).await, 200);
    assert!(start.elapsed() >= delay);
    assert_eq!(rig.finish().await.records, 1);
}

#[tokio::test]
async fn wrong_options_are_told() {
    let remote: SocketAddr = ([0, 0, 0, 0], 0).into();
    let bind = |options: ReceiverOptions| async { Receiver::bind(options).await.map(|_| ()) };
    assert!(matches!(bind(ReceiverOptions::new(remote)).await, Err(ReceiverError::NotLoopback(_))));
    for code in [0, 100, 199, 1000] {
        let wrong = ReceiverOptions { status: Some(code), ..options() };
        assert!(matches!(bind(wrong).await, Err(ReceiverError::Status(_))), "{code}");
    }
    for fail_rate in [-0.1, 1.1, f64::NAN] {
        let wrong = ReceiverOptions { fail_rate, ..options() };
        assert!(matches!(bind(wrong).await, Err(ReceiverError::FailRate(_))), "{fail_rate}");
    }
    let store = Some(PathBuf::from("/dev/null/store"));
    assert!(matches!(bind(ReceiverOptions { store, ..options() }).await, Err(ReceiverError::Store { .. })));
    let taken = Receiver::bind(options()).await.expect("a free port");
    let twice = ReceiverOptions { listen: taken.local_addr(), ..options() };
    assert!(matches!(bind(twice).await, Err(ReceiverError::Listen { .. })));
}

fn batch(seq: u64) -> ship::Outgoing {
    ship::Outgoing {
        key: format!("agent/1/{seq}"),
        seq,
        content_type: "application/x-www-form-urlencoded",
        category: "watchpost/nginx/access".to_owned(),
        name: String::new(),
        host: String::new(),
        fields: String::new(),
        body: gzip(&format!("{{\"seq\":{seq}}}\n")),
        raw_bytes: 0,
        lines: 1,
    }
}

/// Cuts the receiver off until the sender has failed a few times.
async fn outage(handle: &ReceiverHandle, mailbox: &ship::Mailbox) {
    handle.pause().await;
    assert!(TcpStream::connect(handle.local_addr()).await.is_err(), "connections are refused");
    let failures = || mailbox.delivery(std::time::Instant::now()).failures;
    let before = failures();
    while failures() < before + 3 {
        tokio::task::yield_now().await;
    }
    handle.resume().await;
}

/// The sender and the receiver together, through an outage and lost answers: every batch once, in the end.
#[tokio::test]
async fn the_sender_gets_every_batch_through_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Some(directory.path().to_owned());
    let failing = ReceiverOptions { store, fail_rate: 0.4, lose_answers: true, seed: 9, ..options() };
    let rig = Rig::start(failing).await;
    let url = format!("http://{}/receiver/v1/http/ZaVn", rig.handle.local_addr());
    let mut options = ship::SenderOptions::new(Secret::new(url), Duration::ZERO);
    options.limits.backoff.retry_base = Duration::from_millis(1);
    options.limits.backoff.retry_max = Duration::from_millis(4);
    let rung = Arc::new(Notify::new());
    let bell = Arc::clone(&rung);
    let mailbox = Arc::new(ship::Mailbox::new(Box::new(move || bell.notify_one())));
    let (stop, stopping) = watch::channel(false);
    let sender = tokio::spawn(ship::run(options, Arc::clone(&mailbox), stopping, 3));

    let batches = async {
        for seq in 0..60 {
            mailbox.offer(batch(seq)).expect("the mailbox is free");
            if seq == 20 {
                outage(&rig.handle, &mailbox).await;
            }
            let verdict = loop {
                match mailbox.take_verdict() {
                    Some(verdict) => break verdict,
                    None => rung.notified().await,
                }
            };
            assert_eq!(verdict, (seq, ship::Verdict::Accepted { warning: None }));
        }
    };
    tokio::time::timeout(DEADLINE, batches).await.expect("all in time");
    stop.send_replace(true);
    sender.await.expect("no panic").expect("a valid address");
    let stats = rig.finish().await;
    assert_eq!((stats.records, stats.requests, stats.conflicts), (60, 60, 0));
    assert!(stats.lost_answers > 0 && stats.duplicates == stats.lost_answers, "{stats:?}");
    let stored = std::fs::read_to_string(directory.path().join("watchpost_nginx_access.ndjson"));
    let expected: String = (0..60).map(|seq| format!("{{\"seq\":{seq}}}\n")).collect();
    assert_eq!(stored.expect("it is stored"), expected);
}

#[tokio::test]
async fn an_outage_cuts_open_connections() {
    let rig = Rig::start(ReceiverOptions { delay: DEADLINE, ..options() }).await;
    let url = format!("http://{}/", rig.handle.local_addr());
    let sending = tokio::spawn(rig.client.post(url).body("x\n").send());
    while rig.handle.stats().records == 0 {
        tokio::task::yield_now().await;
    }
    rig.handle.pause().await;
    let cut = tokio::time::timeout(DEADLINE / 2, sending).await.expect("it is cut, not left waiting");
    assert!(cut.expect("no panic").is_err());
    rig.handle.resume().await;
    assert!(TcpStream::connect(rig.handle.local_addr()).await.is_ok());
    rig.finish().await;
}

#[test]
fn categories_become_file_names() {
    for (category, expected) in [
        ("watchpost/nginx/access", "watchpost_nginx_access.ndjson"),
        ("..", "_..ndjson"),
        ("a b\u{e9}\n", "a_b__.ndjson"),
        ("", ".ndjson"),
    ] {
        assert_eq!(file_name(category), expected, "{category:?}");
    }
    assert_eq!(file_name(&"x".repeat(5000)).len(), 127);
}

#[test]
fn the_oldest_key_is_forgotten_first() {
    let mut keys = Keys::new(2);
    for (key, body) in [(1, 10), (2, 20), (1, 11), (3, 30)] {
        keys.remember(key, body);
    }
    assert_eq!([1, 2, 3].map(|key| keys.body_of(key)), [None, Some(20), Some(30)]);
}
