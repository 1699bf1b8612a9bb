//! A real MariaDB, a primary and its replica: who writes, whether the replica follows, and peers that are no server.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Agent, Process, Receiver, free_address, get, number, wait_for};

/// A server of the test's own, with its files below the test's directory.
struct Server {
    directory: PathBuf,
    address: SocketAddr,
    process: Process,
}

/// Who runs the test: MariaDB knows them from the socket.
fn me() -> String {
    let output = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8(output.stdout).expect("a name").trim().to_owned()
}

/// An empty data directory, made once a test.
fn template(directory: &Path) -> PathBuf {
    let data = directory.join("template");
    let me = me();
    let mut command = Command::new("mariadb-install-db");
    command.args(["--no-defaults", "--auth-root-authentication-method=socket", "--skip-test-db"]);
    command.args(["--skip-name-resolve", "--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M"]);
    command.arg(format!("--user={me}")).arg(format!("--auth-root-socket-user={me}"));
    command.arg(format!("--datadir={}", data.display()));
    let output = command.output().expect("mariadb-install-db");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    data
}

impl Server {
    fn start(directory: &Path, template: &Path, id: u32, options: &[&str]) -> Server {
        let directory = directory.join(format!("db{id}"));
        fs::create_dir(&directory).expect("a directory");
        let data = directory.join("data");
        assert!(Command::new("cp").arg("-r").args([template, &data]).status().expect("cp").success());
        let address = free_address();
        let mut command = Command::new("mariadbd");
        command.args(["--no-defaults", "--log-bin=bin", "--skip-name-resolve", "--performance-schema=off"]);
        command.args(["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M", "--key-buffer-size=64K"]);
        command.args(["--bind-address=127.0.0.1", "--log-slave-updates"]).args(options);
        command.arg(format!("--user={}", me())).arg(format!("--server-id={id}"));
        command.arg(format!("--port={}", address.port())).arg(format!("--tmpdir={}", directory.display()));
        for (option, name) in [("datadir", "data"), ("socket", "db.sock"), ("pid-file", "db.pid")] {
            command.arg(format!("--{option}={}", directory.join(name).display()));
        }
        let process = Process::start(&mut command, &directory.join("db.out"));
        let server = Server { directory, address, process };
        wait_for("MariaDB", || server.try_sql("SELECT 1").ok());
        server
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("db.sock")
    }

    fn try_sql(&self, statements: &str) -> Result<String, String> {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--batch", "--skip-column-names", "--socket"]).arg(self.socket());
        let output = command.args(["--execute", statements]).output().expect("the client");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    fn sql(&self, statements: &str) -> String {
        self.try_sql(statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    fn status(&self, name: &str) -> u64 {
        let row = self.sql(&format!("SHOW GLOBAL STATUS LIKE '{name}'"));
        row.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number")
    }

    /// Begins to replicate from another, with a heartbeat each second.
    fn follow(&self, primary: &Server) {
        primary.sql(
            "CREATE USER repl@127.0.0.1 IDENTIFIED BY 'r'; GRANT REPLICATION SLAVE ON *.* TO repl@127.0.0.1; \
             CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, mail VARCHAR(40) UNIQUE)",
        );
        self.sql(&format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='repl', MASTER_PASSWORD='r', \
             MASTER_USE_GTID=slave_pos, MASTER_HEARTBEAT_PERIOD=1, MASTER_CONNECT_RETRY=1; START SLAVE",
            primary.address.port()
        ));
        wait_for("the table on the replica", || self.try_sql("SELECT COUNT(*) FROM shop.t").ok());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.end();
    }
}

/// An agent in a directory of its own that asks this place and follows no log.
fn agent(directory: &Path, name: &str, place: &str) -> Agent {
    let directory = directory.join(name);
    fs::create_dir(&directory).expect("a directory");
    let mut agent = Agent::new(&directory, "none");
    agent.set("MYSQL", place);
    agent.set("STUB_STATUS", "none");
    agent
}

fn finding<'a>(status: &'a Value, id: &str) -> Option<&'a Value> {
    status["findings"].as_array()?.iter().find(|finding| finding["id"] == id)
}

fn wait_finding(agent: &Agent, id: &str) -> Value {
    let status = agent.wait_status(id, |status| finding(status, id).is_some());
    finding(&status, id).expect("it is there").clone()
}

fn evidence(finding: &Value) -> &str {
    finding["evidence"][0]["what"].as_str().expect("evidence")
}

#[test]
fn a_primary_and_its_replica_are_told_apart_and_what_breaks_between_them_is_found() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let template = template(directory.path());
    let primary = Server::start(directory.path(), &template, 1, &[]);
    let replica = Server::start(directory.path(), &template, 2, &["--read-only=1"]);
    replica.follow(&primary);
    let receiver = Receiver::start(directory.path());
    let mut at_primary = agent(directory.path(), "a1", &primary.socket().display().to_string());
    at_primary.start();
    let mut at_replica = agent(directory.path(), "a2", &replica.socket().display().to_string());
    at_replica.set("SUMO_URL", &receiver.url());
    at_replica.start();
    let found = wait_finding(&at_primary, "mysql.single-writer");
    assert_eq!((&found["severity"], &found["confidence"]), (&"high".into(), &"likely".into()), "{found}");
    assert!(evidence(&found).contains("1 replica attached"), "{found}");
    let status = at_replica.wait_status("the replica", |status| number(status, "/probes/0/runs") > 2);
    assert_eq!(status["findings"], serde_json::json!([]), "{status}");
    let (_, metrics) = get(at_replica.address, "/metrics").expect("metrics");
    let origin = format!("{{channel_name=\"\",master_host=\"{}\"}}", primary.address);
    for line in [
        format!("mysql_slave_status_slave_io_running{origin} 1"),
        format!("watchpost_mysql_replica_transactions_behind{origin} 0"),
        "mysql_global_variables_read_only 1".to_owned(),
        "mysql_global_status_threads_connected ".to_owned(),
        "watchpost_mysql_gtid_sequence{position=\"applied\",domain=\"0\",server_id=\"1\"} 4".to_owned(),
    ] {
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }

    // A primary that hangs: the replica says Yes, Yes and 0.
    primary.process.signal("STOP");
    let found = wait_finding(&at_replica, "mysql.replica-partitioned");
    assert!(evidence(&found).contains("Seconds_Behind_Master: 0"), "{found}");
    primary.process.signal("CONT");
    at_replica
        .wait_status("it is heard again", |status| finding(status, "mysql.replica-partitioned").is_none());

    // read_only does not stop this user; the primary's next row meets the replica's own.
    replica.sql("INSERT INTO shop.t VALUES (1, 'alice@example.com')");
    let found = wait_finding(&at_replica, "mysql.replica-written");
    assert_eq!(found["confidence"], "certain", "{found}");
    assert!(evidence(&found).contains("0-2-5 was made here"), "{found}");
    primary.sql("INSERT INTO shop.t VALUES (1, 'alice@example.com')");
    let found = wait_finding(&at_replica, "mysql.replica-broken");
    assert!(evidence(&found).contains("applying: No") && evidence(&found).contains("entry '***'"), "{found}");
    let status = at_replica.status();
    assert!(!status.to_string().contains("alice"), "{status}");

    // The own row goes, replication goes on; that it was written to stays said.
    replica.sql("SET SESSION sql_log_bin = 0; DELETE FROM shop.t; START SLAVE");
    at_replica.wait_status("it applies again", |status| finding(status, "mysql.replica-broken").is_none());
    assert!(finding(&at_replica.status(), "mysql.replica-written").is_some());
    replica.sql("STOP SLAVE");
    let found = wait_finding(&at_replica, "mysql.replica-broken");
    assert!(evidence(&found).contains("it was stopped"), "{found}");
    let events = wait_for("the events", || {
        let records = receiver.records("watchpost/events");
        let of = |state: &str| {
            let is_it = |record: &&Value| record["id"] == "mysql.replica-broken" && record["state"] == state;
            records.iter().filter(is_it).count()
        };
        (of("present") == 2 && of("cleared") == 1).then_some(records.len())
    });
    println!("mysql: a run takes {} ms, {events} events", at_replica.status()["probes"][0]["duration_ms"]);
}

#[test]
fn rights_are_asked_for_by_name_and_one_connection_is_kept() {
    const PASSWORD: &str = "CANARY-4711";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let template = template(directory.path());
    let server = Server::start(directory.path(), &template, 1, &[]);
    let place = format!("mysql://watch@localhost/?socket={}", server.socket().display());
    let mut agent = agent(directory.path(), "a", &place);
    agent.start();
    let status = agent.wait_status("a refusal", |status| status["probes"][0]["state"] == "denied");
    let said = status["probes"][0]["last_error"].as_str().expect("why");
    assert!(said.contains("CREATE USER watch@localhost IDENTIFIED VIA unix_socket"), "{said}");
    assert_eq!(agent.stop(), Some(0));

    server.sql(&format!("CREATE USER watch@localhost IDENTIFIED BY '{PASSWORD}'"));
    let secret = directory.path().join("password");
    fs::write(&secret, format!("{PASSWORD}\n")).expect("written");
    agent.set("MYSQL_PASSWORD_FILE", &secret.display().to_string());
    let refused = server.status("Aborted_connects");
    agent.start();
    let found = wait_finding(&agent, "mysql.replica-broken");
    assert_eq!(found["confidence"], "unknown", "{found}");
    assert!(found["advice"].as_str().is_some_and(|cure| cure.contains("GRANT REPLICA MONITOR")), "{found}");
    assert_eq!(wait_finding(&agent, "mysql.single-writer")["confidence"], "likely", "USAGE is enough for it");
    server.sql("GRANT REPLICA MONITOR ON *.* TO watch@localhost");
    // A right takes effect on the next connection.
    let id = server.sql("SELECT id FROM information_schema.processlist WHERE user = 'watch'");
    server.sql(&format!("KILL CONNECTION {}", id.trim()));
    agent.wait_status("it sees replication", |status| finding(status, "mysql.replica-broken").is_none());
    let runs = number(&agent.status(), "/probes/0/runs");
    let connections = server.status("Connections");
    agent.wait_status("more runs", |status| number(status, "/probes/0/runs") >= runs + 2);
    // Each question of the test is a connection too.
    assert_eq!(server.status("Connections"), connections + 1, "a run connects anew");
    assert_eq!(server.status("Aborted_connects"), refused);
    for text in [agent.status().to_string(), agent.output(), format!("{:?}", agent.run(&["check"]))] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    let report = String::from_utf8(agent.run(&["check"]).stdout).expect("text");
    assert!(report.contains("ok    mysql:"), "{report}");
    assert_eq!(agent.stop(), Some(0));

    // Over TCP with the same password; and a password in the URL is refused, and not repeated.
    server.sql(&format!("CREATE USER watch@127.0.0.1 IDENTIFIED BY '{PASSWORD}'"));
    agent.set("MYSQL", &format!("mysql://watch@{}/", server.address));
    let shown: Value = serde_json::from_slice(&agent.run(&["once"]).stdout).expect("JSON");
    assert_eq!(shown["probes"]["mysql"]["state"], "ok", "{shown}");
    assert!(number(&shown["probes"]["mysql"]["metrics"], "/mysql.threads/connected") >= 1, "{shown}");
    agent.set("MYSQL", &format!("mysql://watch:{PASSWORD}@{}/", server.address));
    let refused = agent.run(&["check"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("WATCHPOST_MYSQL_PASSWORD_FILE") && !text.contains(PASSWORD), "{text}");
}

/// What a server says first: protocol 10, its version, a salt, and that it wants a native password.
const GREETING: &[u8] = b"\x4a\0\0\0\x0a8.0.0\0\x01\0\0\0aaaaaaaa\0\xff\xf7\x21\x02\0\xff\x81\x15\0\0\0\0\0\0\0\0\0\0bbbbbbbbbbbb\0mysql_native_password\0";

/// Answers every connection so, and then nothing; with nothing to say it closes.
fn impostor(path: &Path, answer: Option<&'static [u8]>) {
    let listener = UnixListener::bind(path).expect("a socket");
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if let Some(answer) = answer {
                let _ = stream.write_all(answer);
                let _ = stream.read(&mut [0; 256]);
                open.push(stream);
            }
        }
    });
}

#[test]
fn a_mysql_that_hangs_lies_refuses_or_is_not_there_is_said() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = |name: &str| directory.path().join(name);
    impostor(&socket("hangs"), Some(b""));
    impostor(&socket("halfway"), Some(GREETING));
    impostor(&socket("garbage"), Some(b"\x05\0\0\0hello"));
    impostor(&socket("large"), Some(b"\xff\xff\xff\0\x0a8.0"));
    impostor(&socket("full"), Some(b"\x17\0\0\0\xff\x10\x04Too many connections"));
    impostor(&socket("closes"), None);
    drop(UnixListener::bind(socket("gone")).expect("a socket that nobody serves any more"));
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let mut agent = agent(directory.path(), "a", "none");
    for (place, said) in [
        (socket("hangs").display().to_string(), "no answer within 3 s"),
        (socket("halfway").display().to_string(), "no answer within 3 s"),
        (socket("garbage").display().to_string(), ""),
        (socket("large").display().to_string(), "larger than max_allowed_packet"),
        (socket("full").display().to_string(), "Too many connections"),
        (socket("closes").display().to_string(), ""),
        (socket("gone").display().to_string(), "refused"),
        (socket("missing").display().to_string(), "No such file"),
        (format!("mysql://watch@{nobody}/"), "refused"),
    ] {
        agent.set("MYSQL", &place);
        let once = agent.run(&["once"]);
        let shown: Value = serde_json::from_slice(&once.stdout).expect("JSON");
        let probe = &shown["probes"]["mysql"];
        assert_eq!(probe["state"], "failing", "{place}: {shown}");
        let error = probe["last_error"].as_str().expect("why");
        assert!(error.to_lowercase().contains(&said.to_lowercase()) && error.len() < 500, "{place}: {error}");
    }
    agent.set("MYSQL", &socket("halfway").display().to_string());
    agent.start();
    agent.wait_status("two runs", |status| number(status, "/probes/0/failures") >= 2);
    assert_eq!(agent.status()["findings"], serde_json::json!([]));
    assert_eq!(agent.stop(), Some(0));
}
