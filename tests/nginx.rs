//! A real nginx with real load: what it logged, what the agent counted and what arrived are one number.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::{Agent, BalanceWatch, Process, Receiver, free_address, get, number, signal, wait_for};

/// An nginx of the test's own: two workers, a loopback port, its files in the test's directory.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    directory: PathBuf,
    process: Process,
    /// Accepts and never answers, so that a request can be given up by its client.
    hanging: TcpListener,
}

impl Nginx {
    fn start(directory: &Path) -> Nginx {
        Nginx::start_with(directory, "")
    }

    /// The same with further parameters of the `access_log` directive.
    pub(crate) fn start_with(directory: &Path, parameters: &str) -> Nginx {
        let address = free_address();
        let hanging = TcpListener::bind("127.0.0.1:0").expect("a port");
        let hung = hanging.local_addr().expect("its address");
        let here = directory.display();
        let formats = concat!(env!("CARGO_MANIFEST_DIR"), "/config/nginx-log-format.conf");
        let log_format = log_format_of(&fs::read_to_string(formats).expect("the shipped format"));
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let configuration = format!(
            "{user}\nworker_processes 2;\npid {here}/nginx.pid;\nerror_log {here}/error.log;\n\
             events {{ worker_connections 256; }}\nhttp {{\n{log_format}\n\
             access_log {here}/access.log watchpost {parameters};\nkeepalive_requests 1000000;\n\
             client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/f;\n\
             uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
             server {{ listen {address}; server_name shop.example;\n\
             location /ok {{ return 200 'fine'; }}\n location /moved {{ return 301 /ok; }}\n\
             location /missing {{ return 404; }}\n location /broken {{ return 500; }}\n\
             location /slow {{ proxy_pass http://{hung}; }}\n location /quiet {{ access_log off; return 204; }}\n\
             location = /stub_status {{ stub_status; access_log off; allow 127.0.0.1; deny all; }}\n}}\n}}\n"
        );
        let file = directory.join("nginx.conf");
        fs::write(&file, configuration).expect("a configuration");
        let process = run(directory, address);
        Nginx { address, directory: directory.to_owned(), process, hanging }
    }

    /// Stops it in good order and starts it anew.
    pub(crate) fn restart(&mut self) {
        self.process.stop();
        self.process = run(&self.directory, self.address);
    }

    /// Reads its configuration again: new workers take over from the old ones.
    pub(crate) fn reload(&self) {
        let before = self.workers();
        self.process.signal("HUP");
        wait_for("workers of the new configuration", || {
            let now = self.workers();
            (!now.is_empty() && now.iter().all(|worker| !before.contains(worker))).then_some(())
        });
    }

    /// Kills every worker at once, as the kernel does when memory runs out; the master makes new ones.
    pub(crate) fn kill_workers(&self) {
        let before = self.workers();
        for worker in &before {
            signal(*worker, "KILL");
        }
        wait_for("new workers", || {
            let now = self.workers();
            (now.len() == before.len() && now.iter().all(|worker| !before.contains(worker))).then_some(())
        });
    }

    fn workers(&self) -> Vec<u32> {
        let master = self.process.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        let children = children.expect("the master's children");
        children.split_ascii_whitespace().map(|pid| pid.parse().expect("a number")).collect()
    }

    /// Tells the workers to open the log anew, as logrotate's rules do.
    pub(crate) fn reopen_logs(&self) {
        self.process.signal("USR1");
    }

    /// Asks it to stop, and waits for it; workers write what they still held.
    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }

    /// Every line of the log and of its rotated files.
    pub(crate) fn log_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for entry in fs::read_dir(&self.directory).expect("the directory").flatten() {
            if entry.file_name().to_string_lossy().starts_with("access.log") {
                let text = fs::read_to_string(entry.path()).expect("a log");
                lines.extend(text.lines().map(str::to_owned));
            }
        }
        lines
    }
}

fn run(directory: &Path, address: SocketAddr) -> Process {
    let pid_file = directory.join("nginx.pid");
    let _ = fs::remove_file(&pid_file);
    let mut command = Command::new("nginx");
    command.args(["-g", "daemon off;", "-p"]).arg(directory).arg("-c").arg(directory.join("nginx.conf"));
    let process = Process::start(&mut command, &directory.join("nginx.out"));
    wait_for("nginx", || TcpStream::connect(address).ok());
    wait_for("nginx's process number", || fs::read_to_string(&pid_file).ok());
    process
}

impl Drop for Nginx {
    /// The master ends its workers; killed, it would leave them behind.
    fn drop(&mut self) {
        self.process.end();
    }
}

/// The `log_format` directive of a snippet.
fn log_format_of(snippet: &str) -> String {
    let start = snippet.find("\nlog_format ").expect("a log_format") + 1;
    let end = snippet[start..].find(';').expect("its end");
    snippet[start..=start + end].to_owned()
}

/// Sends requests one after the other over one connection; the paths come from `path`.
pub(crate) fn send(address: SocketAddr, count: u64, path: impl Fn(u64) -> String) {
    let mut stream = connect(address);
    for index in 0..count {
        let request = format!("GET {} HTTP/1.1\r\nHost: shop.example\r\n\r\n", path(index));
        stream.write_all(request.as_bytes()).expect("sent");
        if !read_answer(&mut stream) {
            stream = connect(address);
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("nginx");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    stream.set_nodelay(true).expect("no waiting for more to send");
    stream
}

/// Reads one answer whole; `false` when nginx closes the connection behind it, as it does after a 500.
fn read_answer(stream: &mut TcpStream) -> bool {
    let mut answer = Vec::new();
    let mut byte = [0; 4096];
    loop {
        let read = stream.read(&mut byte).expect("an answer in time");
        assert!(read > 0, "nginx closed the connection");
        answer.extend_from_slice(&byte[..read]);
        let Some(end) = answer.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if answer.len() >= end + 4 + length.unwrap_or(0) {
            return !head.contains("connection: close");
        }
    }
}

/// A request whose client gives up while nginx waits for the upstream: nginx logs 499.
fn give_up(nginx: &Nginx, number: u64) {
    let mut stream = connect(nginx.address);
    let request = format!("GET /slow/{number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let (mut upstream, _) = nginx.hanging.accept().expect("nginx asks the upstream");
    drop(stream);
    // nginx lets the upstream go when it sees that the client has gone. Not before: it would log 502.
    upstream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    upstream.read_to_end(&mut Vec::new()).expect("nginx gives the request up");
}

fn status_of(line: &str) -> &str {
    let behind_request = line.split("\" ").nth(1).expect("a status behind the request");
    behind_request.split(' ').next().expect("a status")
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn twenty_thousand_requests_are_one_number_everywhere() {
    const CONNECTIONS: u64 = 8;
    const REQUESTS: u64 = 20_000;
    const GIVEN_UP: u64 = 40;
    let directory = directory();
    let nginx = Nginx::start(directory.path());
    let receiver = Receiver::start(directory.path());
    // The format is found in nginx.conf, as it is on a server with nothing configured but the URL.
    let mut agent = Agent::new(directory.path(), "auto");
    agent.set("NGINX_CONF", &directory.path().join("nginx.conf").display().to_string());
    agent.set("SUMO_URL", &receiver.url());
    agent.start();
    let balance = BalanceWatch::start(agent.address);
    let address = nginx.address;
    let senders: Vec<JoinHandle<()>> = (0..CONNECTIONS)
        .map(|connection| {
            std::thread::spawn(move || {
                send(address, (REQUESTS - GIVEN_UP) / CONNECTIONS, |index| {
                    let kind = ["ok", "ok", "ok", "moved", "missing", "broken"][index as usize % 6];
                    format!("/{kind}/{connection}/{index}?session=S3CR3T")
                });
            })
        })
        .collect();
    for number in 0..GIVEN_UP {
        give_up(&nginx, number);
    }
    for sender in senders {
        sender.join().expect("all sent");
    }
    let total = (REQUESTS - GIVEN_UP) / CONNECTIONS * CONNECTIONS + GIVEN_UP;
    let logged = wait_for("nginx to log all", || Some(nginx.log_lines()).filter(|l| l.len() as u64 >= total));
    let status = agent.wait_shipped(total);

    let mut classes: BTreeMap<String, u64> = BTreeMap::new();
    let mut codes: BTreeMap<&str, u64> = BTreeMap::new();
    for line in &logged {
        let code = status_of(line);
        *classes.entry(format!("{}xx", &code[..1])).or_default() += 1;
        *codes.entry(code).or_default() += 1;
    }
    assert_eq!(codes.keys().copied().collect::<Vec<_>>(), ["200", "301", "404", "499", "500"]);
    assert_eq!(codes["499"], GIVEN_UP);
    assert_eq!(logged.len() as u64, total, "lines in the log");
    assert_eq!(number(&status, "/web/totals/requests"), total, "requests counted");
    assert_eq!(number(&status, "/web/totals/unparsed"), 0);
    assert_eq!(receiver.lines().len() as u64, total, "lines at the receiver");
    wait_for("the summaries", || (receiver.summary_sum("/requests") >= total).then_some(()));
    assert_eq!(receiver.summary_sum("/requests"), total, "requests in the summaries");
    for (class, count) in &classes {
        assert_eq!(number(&status, &format!("/web/totals/status/{class}")), *count, "{class} counted");
        assert_eq!(receiver.summary_sum(&format!("/status/{class}")), *count, "{class} in the summaries");
    }
    assert!(receiver.lines().iter().all(|line| !line.contains("S3CR3T")), "session values are masked");
    let vhosts = status["web"]["vhosts"].as_array().expect("virtual hosts");
    assert_eq!(vhosts.iter().map(|vhost| number(vhost, "/requests")).sum::<u64>(), total);
    assert!(vhosts.iter().any(|vhost| vhost["name"] == "shop.example"), "{vhosts:?}");
    let (code, metrics) = get(agent.address, "/metrics").expect("metrics");
    assert_eq!(code, 200);
    assert!(metrics.contains("node_load1 "), "host metrics under node_exporter's names");
    let polls = balance.finish();
    assert_eq!(agent.stop(), Some(0));
    println!("nginx: {total} requests by status {codes:?}, {polls} balanced answers");
}
