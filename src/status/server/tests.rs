//! The port through its front door: raw sockets against a listener on a port of its own.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::health::FILE_UNREADABLE;
use super::super::metrics::tests::parse_strictly;
use super::super::snapshot::{FileStatus, Ledger, Snapshot};
use super::*;

/// Nothing here takes longer unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);
const ENDLESS: Patience = Patience { alone: Duration::from_secs(3_600), crowded: Duration::from_secs(3_600) };
const SHORT: Patience = Patience { alone: Duration::from_millis(200), crowded: Duration::from_millis(50) };

struct Rig {
    address: SocketAddr,
    board: Arc<Board>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn rig(options: Options, patience: Patience) -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, board) = (listener.local_addr().expect("an address"), Arc::new(Board::new()));
    let stop = std::future::pending();
    let server = tokio::spawn(serve_with(listener, options, Arc::clone(&board), stop, patience));
    Rig { address, board, server }
}

async fn ready_rig() -> Rig {
    let rig = rig(Options::default(), ENDLESS).await;
    rig.board.publish(Snapshot::default());
    rig
}

impl Rig {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    fn request(&self, method: &str, path: &str, more: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", self.address)
    }

    /// Sends `raw` as it is and reads until the server closes.
    async fn send(&self, raw: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(raw.as_bytes()).await.expect("written");
        until_closed(&mut stream).await
    }

    async fn ask(&self, method: &str, path: &str, more: &str) -> (u16, String, String) {
        let more = format!("Connection: close\r\n{more}");
        split(&self.send(&self.request(method, path, &more)).await)
    }
}

async fn until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let end = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("closed in time");
    assert!(end.is_ok() || answer.is_empty(), "cut within an answer");
    String::from_utf8(answer).expect("text")
}

/// Reads one answer of a connection that stays open.
async fn one_answer(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    let mut chunk = [0; 4_096];
    while !answer.ends_with("}\n") {
        let count = timeout(DEADLINE, stream.read(&mut chunk)).await.expect("in time").expect("read");
        assert_ne!(count, 0, "closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&chunk[..count]).expect("text"));
    }
    answer
}

fn split(answer: &str) -> (u16, String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn each_path_before_and_after_the_first_tick() {
    let rig = rig(Options::default(), ENDLESS).await;
    for path in ["/status", "/metrics", "/healthz", "/readyz"] {
        assert_eq!(rig.ask("GET", path, "").await.0, 503, "{path} before");
    }
    assert_eq!(rig.ask("GET", "/", "").await.0, 200);
    rig.board.publish(Snapshot::default());
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/status", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", "application/json"),
        ("/readyz", "application/json"),
    ] {
        let (status, head, body) = rig.ask("GET", path, "").await;
        assert_eq!(status, 200, "{path}");
        for line in
            [&format!("content-type: {kind}"), "cache-control: no-store", "x-content-type-options: nosniff"]
        {
            assert!(head.contains(line), "{path}: {line} in {head}");
        }
        assert!(!head.contains("access-control"), "{path}: {head}");
        let (status, head_of_head, no_body) = rig.ask("HEAD", path, "").await;
        assert_eq!((status, no_body.as_str()), (200, ""), "{path}");
        assert!(head_of_head.contains(&format!("content-type: {kind}")));
        // The other two say their age, so two answers need not be as long as one another.
        if !["/status", "/metrics"].contains(&path) {
            assert!(
                head_of_head.contains(&format!("content-length: {}", body.len())),
                "{path}: {head_of_head}"
            );
        }
    }
    assert_eq!(rig.ask("GET", "/nothing", "").await.0, 404);
    assert_eq!(rig.ask("GET", "/status?t=1", "").await.0, 200);
}

#[tokio::test]
async fn answers_hold_what_they_promise() {
    let rig = ready_rig().await;
    let status: Value = serde_json::from_str(&rig.ask("GET", "/status", "").await.2).expect("JSON");
    assert_eq!(status["ledger"]["balanced"], true);
    assert_eq!(status["problems"], json!([]));
    assert_eq!(rig.ask("GET", "/healthz", "").await.2, "{\"status\":\"ok\"}\n");
    assert!(parse_strictly(&rig.ask("GET", "/metrics", "").await.2).contains_key("watchpost_up"));
}

#[tokio::test]
async fn only_get_and_head() {
    let rig = ready_rig().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        for path in ["/status", "/nothing"] {
            let (status, head, _) = rig.ask(method, path, "Content-Length: 0\r\n").await;
            assert_eq!(status, 405, "{method} {path}");
            assert!(head.contains("allow: get, head"), "{head}");
        }
    }
}

#[tokio::test]
async fn foreign_names_and_pages_get_nothing() {
    let rig = ready_rig().await;
    let port = rig.address.port();
    for (head, expected) in [
        (format!("GET /status HTTP/1.1\r\nHost: localhost:{port}\r\n"), 200),
        (format!("GET /status HTTP/1.1\r\nHost: evil.example:{port}\r\n"), 421),
        ("GET /status HTTP/1.1\r\nHost: localhost:1\r\n".to_owned(), 421),
        ("GET /status HTTP/1.1\r\n".to_owned(), 400),
        (format!("GET http://evil.example:{port}/status HTTP/1.1\r\nHost: localhost:{port}\r\n"), 421),
        (format!("GET /healthz HTTP/1.1\r\nHost: evil.example:{port}\r\n"), 421),
        (format!("GET /status HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: http://evil.example\r\n"), 403),
    ] {
        let (status, answer_head, body) = split(&rig.send(&format!("{head}Connection: close\r\n\r\n")).await);
        assert_eq!(status, expected, "{head}");
        assert!(expected == 200 || !body.contains("ledger"), "{body}");
        assert!(!answer_head.contains("access-control"));
    }
}

#[tokio::test]
async fn a_token_guards_all_but_health() {
    let rig = rig(Options { token: Some(Secret::new("s3cret")) }, ENDLESS).await;
    rig.board.publish(Snapshot::default());
    for path in ["/", "/status", "/metrics", "/nothing"] {
        let (status, head, body) = rig.ask("GET", path, "").await;
        assert_eq!(status, 401, "{path}");
        assert!(head.contains("www-authenticate: bearer") && !body.contains("s3cret"), "{head}");
        assert_eq!(rig.ask("GET", path, "Authorization: Bearer s3cret2\r\n").await.0, 401);
    }
    assert_eq!(rig.ask("GET", "/status", "Authorization: Bearer s3cret\r\n").await.0, 200);
    assert_eq!(rig.ask("GET", "/healthz", "").await.0, 200);
    assert_eq!(rig.ask("GET", "/readyz", "").await.0, 200);
}

#[tokio::test]
async fn the_ninth_connection_waits_for_a_lane() {
    let rig = ready_rig().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = rig.connect().await;
        stream.write_all(rig.request("GET", "/healthz", "").as_bytes()).await.expect("written");
        assert!(one_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        held.push(stream);
    }
    let mut ninth = rig.connect().await;
    ninth.write_all(rig.request("GET", "/healthz", "").as_bytes()).await.expect("written");
    let too_early = timeout(Duration::from_millis(200), ninth.read(&mut [0; 1])).await;
    assert!(too_early.is_err(), "a ninth connection was served");
    held.pop();
    assert!(one_answer(&mut ninth).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn silent_connections_make_room() {
    let rig = rig(Options::default(), SHORT).await;
    rig.board.publish(Snapshot::default());
    let mut silent = Vec::new();
    for index in 0..CONNECTIONS_MAX * 3 {
        let mut stream = rig.connect().await;
        if index % 2 == 0 {
            stream.write_all(b"GET /status HTTP/1.1\r\nHost: loc").await.expect("written");
        }
        silent.push(stream);
    }
    assert_eq!(rig.ask("GET", "/healthz", "").await.0, 200);
    for mut stream in silent {
        assert_eq!(until_closed(&mut stream).await, "");
    }
}

#[tokio::test]
async fn a_slow_client_blocks_nobody() {
    let rig = ready_rig().await;
    let mut slow = rig.connect().await;
    let request = rig.request("GET", "/healthz", "");
    for byte in request.as_bytes().chunks(8) {
        slow.write_all(byte).await.expect("written");
        assert_eq!(rig.ask("GET", "/readyz", "").await.0, 200);
    }
    assert!(one_answer(&mut slow).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut() {
    let rig = rig(Options::default(), SHORT).await;
    let mut dripping = rig.connect().await;
    dripping.write_all(b"GET /status HTTP/1.1\r\n").await.expect("written");
    let dripped = timeout(DEADLINE, async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while dripping.write_all(b"X: y\r\n").await.is_ok() {
            ticks.tick().await;
        }
    });
    dripped.await.expect("cut in time");

    let long = rig.request("GET", "/status", &format!("X: {}\r\n", "y".repeat(HEAD_BYTES_MAX)));
    let answer = rig.send(&long).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_cut() {
    let rig = rig(Options::default(), SHORT).await;
    let mut deaf = rig.connect().await;
    let request = rig.request("GET", "/", "");
    let written = timeout(DEADLINE, async { while deaf.write_all(request.as_bytes()).await.is_ok() {} });
    written.await.expect("cut in time");
    assert_eq!(rig.ask("GET", "/", "").await.0, 200);
}

#[tokio::test]
async fn stop_ends_the_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = serve(listener, Options::default(), Arc::new(Board::new()), async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(server);
    let mut open = TcpStream::connect(address).await.expect("a connection");
    stop.send(()).expect("the server listens");
    timeout(DEADLINE, server).await.expect("in time").expect("no panic");
    assert_eq!(until_closed(&mut open).await, "");
}

#[tokio::test]
async fn each_reason_turns_health_red() {
    let rig = ready_rig().await;
    let now = Instant::now();
    let before =
        |seconds| now.checked_sub(Duration::from_secs(seconds)).expect("the machine is up for longer");
    let retrying = Snapshot { delivery: json!({"state": "retrying"}), ..Snapshot::default() };
    let file = FileStatus { path: "/var/log/x".into(), state: FILE_UNREADABLE, ..FileStatus::default() };
    let spool = |state: &str| {
        let mut snapshot = Snapshot::default();
        snapshot.spool.state = state.to_owned();
        snapshot
    };
    let posts = [
        (retrying, before(75), "delivery: retrying for"),
        (spool("full"), before(0), "spool: full"),
        (spool("degraded"), before(0), "spool: degraded"),
        (Snapshot { files: vec![file], ..Snapshot::default() }, before(0), "file: cannot read /var/log/x"),
        (
            Snapshot { ledger: Ledger::new(1, 0, 0, 0, &[]), ..Snapshot::default() },
            before(0),
            "ledger: read 1 is not",
        ),
        (Snapshot { problems: vec!["clock".into()], ..Snapshot::default() }, before(0), "clock"),
        (Snapshot::default(), before(31), "pipeline: no tick for 31 s"),
    ];
    for (snapshot, at, expected) in posts {
        rig.board.publish_at(snapshot.clone(), at);
        if expected.starts_with("delivery") {
            rig.board.publish_at(snapshot, now);
        }
        let (status, _, body) = rig.ask("GET", "/healthz", "").await;
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        let reasons = answer["reasons"].as_array().expect("reasons");
        assert_eq!((status, reasons.len()), (503, 1), "{body}");
        assert!(reasons[0].as_str().is_some_and(|reason| reason.starts_with(expected)), "{body}");
        rig.board.publish(Snapshot::default());
        assert_eq!(rig.ask("GET", "/healthz", "").await.0, 200, "well again after {expected}");
    }
}

#[tokio::test]
async fn the_page_stands_alone() {
    let rig = ready_rig().await;
    let (_, head, page) = rig.ask("GET", "/", "").await;
    for foreign in
        ["http:", "https:", "src=", "url(", "@import", "innerHTML", "insertAdjacentHTML", "document.write"]
    {
        assert!(!page.contains(foreign), "{foreign} in the page");
    }
    let nonce = page.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a nonce");
    assert_eq!(nonce.len(), NONCE_BYTES * 2);
    assert!(head.contains(&format!("script-src 'nonce-{nonce}'")), "{head}");
    assert!(head.contains("default-src 'none'") && !head.contains("unsafe"), "{head}");
    assert!(!page.contains(NONCE_PLACE) && !page.contains(" style=") && !page.contains(" onclick="));
    assert!(!rig.ask("GET", "/", "").await.2.contains(nonce), "a nonce serves once");
}
