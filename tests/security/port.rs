//! S1 to S3: who gets an answer of the status port, and what slow clients can do to it.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::{ask, directory, memory_kib, said, send};
use crate::support::{Agent, PATIENCE, Receiver, get, is_balanced, log_line, wait_for, wait_out};

#[test]
fn s1_only_our_own_names_and_pages_get_an_answer() {
    let directory = directory();
    let mut agent = Agent::new(directory.path(), "none");
    agent.start();
    let address = agent.address;
    let (port, ours) = (address.port(), format!("Host: {address}\r\n"));
    let head = |lines: &str| ask(address, "/status", lines);
    for (lines, expected) in [
        (ours.clone(), 200),
        (format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n"), 200),
        (format!("Host: rebound.example:{port}\r\n"), 421),
        (format!("Host: localhost.rebound.example:{port}\r\n"), 421),
        (format!("Host: 127.0.0.1.nip.example:{port}\r\n"), 421),
        ("Host: localhost:80\r\n".to_owned(), 421),
        (String::new(), 400),
        (format!("{ours}Host: rebound.example\r\n"), 400),
        (format!("{ours}Origin: http://rebound.example\r\n"), 403),
        (format!("{ours}Origin: null\r\n"), 403),
        (format!("{ours}Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n"), 403),
        (format!("{ours}Sec-Fetch-Site: same-site\r\n"), 403),
    ] {
        let answer = head(&lines);
        assert_eq!(answer.status, expected, "{lines:?}: {answer:?}");
        assert_eq!(answer.body.contains("ledger"), expected == 200, "{lines:?}");
        assert!(!answer.head.contains("access-control-"), "no page elsewhere is let in: {answer:?}");
        assert!(answer.head.contains("cross-origin-resource-policy: same-origin"), "{answer:?}");
    }
    // Another origin's preflight is no GET, so it is refused like every other method.
    for method in ["OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get"] {
        let request =
            format!("{method} /status HTTP/1.1\r\n{ours}Connection: close\r\nContent-Length: 0\r\n\r\n");
        let answer = send(address, request.as_bytes());
        assert!(
            [400, 405].contains(&answer.status) && !answer.body.contains("ledger"),
            "{method}: {answer:?}"
        );
        assert!(!answer.head.contains("access-control-"), "{answer:?}");
    }
    let outside = ["/../../etc/passwd", "/%2e%2e/etc/passwd", "/status/", "//status", "/<script>", "/STATUS"];
    for path in outside.into_iter().map(str::to_owned).chain([format!("/{}", "x".repeat(8_000))]) {
        let answer = ask(address, &path, &ours);
        assert!([400, 404].contains(&answer.status) && answer.body.len() < 200, "{path:.40}: {answer:?}");
        assert!(
            !answer.body.contains("passwd") && !answer.body.contains("xxxx") && !answer.body.contains('<')
        );
    }
    let endless = ask(address, "/status", &format!("{ours}X: {}\r\n", "y".repeat(1 << 20)));
    assert!([0, 431].contains(&endless.status), "a head without end: {endless:?}");
    assert_eq!(head(&ours).status, 200, "and the port still answers");
}

/// Clients that connect and drip a head for ever, on sockets that never block.
struct SlowClients {
    address: SocketAddr,
    clients: Vec<Option<OwnedFd>>,
    opened: usize,
    dripped: usize,
}

impl SlowClients {
    fn new(address: SocketAddr, count: usize) -> SlowClients {
        SlowClients { address, clients: (0..count).map(|_| None).collect(), opened: 0, dripped: 0 }
    }

    fn open(&mut self) -> OwnedFd {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
        let socket = socket.expect("a socket");
        // It goes on by itself, or waits in the kernel for as long as we do.
        let _ = rustix::net::connect(&socket, &self.address);
        self.opened += 1;
        socket
    }

    /// Every client gives a little of its head; those that were cut come again.
    fn drip(&mut self) {
        for index in 0..self.clients.len() {
            let part: &[u8] =
                if self.opened < self.clients.len() * 2 { b"GET / HTTP/1.1\r\n" } else { b"X: y\r\n" };
            let sent = self.clients[index]
                .as_ref()
                .map(|socket| rustix::net::send(socket, part, SendFlags::NOSIGNAL | SendFlags::DONTWAIT));
            match sent {
                Some(Ok(_)) => self.dripped += 1,
                Some(Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOTCONN)) => {}
                Some(Err(_)) | None => self.clients[index] = Some(self.open()),
            }
        }
    }
}

#[test]
fn s2_a_thousand_slow_clients_harm_nothing() {
    const CLIENTS: usize = 1_000;
    const ATTACK: Duration = Duration::from_secs(6);
    const MEMORY_GROWTH_KIB_MAX: u64 = 16 * 1024;
    // Ours must hold what the agent need not.
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("as many files as may be");
    let directory = directory();
    let log = directory.path().join("access.log");
    File::create(&log).expect("a log");
    let receiver = Receiver::start(directory.path());
    let mut agent = Agent::new(directory.path(), &log.display().to_string());
    agent.set("SUMO_URL", &receiver.url());
    agent.start();
    let memory_before = memory_kib(agent.id(), "VmRSS");
    let open_files = || fs::read_dir(format!("/proc/{}/fd", agent.id())).expect("its files").count();
    let files_before = open_files();

    let mut clients = SlowClients::new(agent.address, CLIENTS);
    let mut appender = File::options().append(true).open(&log).expect("the log");
    let (mut lines, mut unanswered) = (0, 0);
    let begun = Instant::now();
    while begun.elapsed() < ATTACK {
        clients.drip();
        for _ in 0..20 {
            writeln!(appender, "{}", log_line(lines, 200)).expect("written");
            lines += 1;
        }
        assert!(open_files() <= files_before + 32, "{} files, {files_before} before", open_files());
        unanswered += u64::from(get_at_once(agent.address).is_none());
        wait_out(Duration::from_millis(50));
    }
    // All that was logged meanwhile arrives while they still hold on.
    let deadline = Instant::now() + PATIENCE;
    while (receiver.lines().len() as u64) < lines {
        assert!(Instant::now() < deadline, "{} of {lines} lines arrived", receiver.lines().len());
        clients.drip();
        wait_out(Duration::from_millis(100));
    }
    let memory = memory_kib(agent.id(), "VmRSS");
    assert!(memory < memory_before + MEMORY_GROWTH_KIB_MAX, "{memory} KiB, {memory_before} before");
    // The control: they were there, they were cut and came again, and they did keep others out.
    assert!(clients.opened > CLIENTS && clients.dripped > CLIENTS, "{} {}", clients.opened, clients.dripped);
    assert!(unanswered > 0, "nobody else noticed: that was no attack");
    println!(
        "slow clients: {CLIENTS} at a time, {} connections, {} parts of heads, {lines} lines shipped meanwhile, \
         {memory_before} to {memory} KiB, {unanswered} requests of others found no lane at once",
        clients.opened, clients.dripped
    );
    drop(clients);
    wait_for("the port to answer again", || {
        get(agent.address, "/readyz").filter(|(status, _)| *status == 200)
    });
    let status = agent.wait_shipped(lines);
    assert!(is_balanced(&status["ledger"]), "{}", status["ledger"]);
    assert_eq!(status["web"]["totals"]["requests"], lines);
    assert_eq!(agent.stop(), Some(0), "{}", agent.output());
}

/// A whole request of somebody else, who does not wait.
fn get_at_once(address: SocketAddr) -> Option<()> {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(20)).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(20))).ok()?;
    stream.write_all(format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).ok()?;
    (stream.read(&mut [0; 16]).ok()? > 0).then_some(())
}

#[test]
fn s3_the_token_opens_under_any_name_and_nothing_else_does() {
    const TOKEN: &str = "T0kenOfThisT3st";
    let directory = directory();
    let mut agent = Agent::new(directory.path(), "none");
    agent.set("STATUS_TOKEN", TOKEN);
    agent.set("LOG", "trace");
    agent.start();
    let (address, port) = (agent.address, agent.address.port());
    let own = format!("Host: {address}\r\n");
    let name = format!("Host: web1.corp.example:{port}\r\n");
    let shown = format!("Authorization: Bearer {TOKEN}\r\n");
    for path in ["/", "/status", "/metrics"] {
        for host in [&own, &name, &"Host: web1.corp.example\r\n".to_owned()] {
            assert_eq!(ask(address, path, &format!("{host}{shown}")).status, 200, "{path} {host}");
            assert_eq!(ask(address, path, host).status, 401, "{path} {host}");
        }
    }
    // A browser sends what it has stored with any page's request, so the token does not let a page in.
    let foreign = format!("{name}{shown}Origin: http://evil.example\r\n");
    assert_eq!(ask(address, "/status", &foreign).status, 403);
    // The paths that need no token still need the name.
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask(address, path, &own).status, 200, "{path}");
        assert_eq!(ask(address, path, &name).status, 421, "{path}");
        assert_eq!(ask(address, path, &format!("{name}{shown}")).status, 200, "{path}");
    }
    let without_date = |answer: super::Answer| {
        let lines = answer.head.lines().filter(|line| !line.starts_with("date:"));
        (lines.map(str::to_owned).collect::<Vec<_>>(), answer.body)
    };
    let nothing = without_date(ask(address, "/status", &own));
    let nearly: Vec<String> = vec![
        TOKEN[..TOKEN.len() - 1].to_owned(),
        format!("{TOKEN}x"),
        TOKEN.to_lowercase(),
        TOKEN.replace('0', "1"),
        "x".repeat(8_000),
        String::new(),
    ];
    for wrong in nearly {
        let refused =
            without_date(ask(address, "/status", &format!("{own}Authorization: Bearer {wrong}\r\n")));
        assert_eq!(refused, nothing, "an answer that tells how near {wrong:.20?} was");
    }
    assert!(!agent.output().contains(TOKEN) && !format!("{nothing:?}").contains(TOKEN));

    let mut open = Agent::new(directory.path(), "none");
    open.set("STATUS_ADDR", &format!("0.0.0.0:{port}"));
    for command in ["run", "check"] {
        let output = open.run(&[command]);
        assert_eq!(output.status.code(), Some(78), "a port for everybody without a token: {}", said(&output));
        assert!(said(&output).contains("WATCHPOST_STATUS_TOKEN"), "{}", said(&output));
    }
}

/// Time tells too little on a busy machine, so the code is looked at: the token is only ever handed to the comparison
/// that looks at every byte.
#[test]
fn s3_the_token_is_compared_in_constant_time() {
    let guard =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/status/guard.rs")).expect("the guard");
    let production = guard.split("#[cfg(test)]").next().expect("a part before the tests");
    assert_eq!(hasty(production), [""; 0]);
    let sample = production
        .replace("same_in_constant_time(key.expose().as_bytes(), offered)", "key.expose() == offered");
    assert_eq!(hasty(&sample).len(), 1, "the control");
}

/// Lines that use the token for something else than to make the keys and to compare them whole.
fn hasty(source: &str) -> Vec<&str> {
    let is_right = |line: &&str| {
        line.contains("same_in_constant_time(key.expose()")
            || line.contains("base64(format!(\"{BASIC_USER}:{}\"")
    };
    source.lines().filter(|line| line.contains(".expose()") && !is_right(line)).collect()
}
