//! S9: little packed that is much unpacked, in the files of `analyze` and in the answers of the destination.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::{directory, memory_kib, said};
use crate::support::{Agent, WATCHPOST, log_line, without_settings};

/// Address space that `analyze` must do with, code and libraries included.
const ADDRESS_SPACE_KIB: u64 = 256 * 1024;

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// A gibibyte of zeros in about a mebibyte: a member of 16 MiB, 64 times.
fn bomb() -> Vec<u8> {
    packed(&vec![0; 16 << 20]).repeat(64)
}

/// Runs a shell command on a file with little memory.
fn limited(command: &str, file: &Path) -> Output {
    let script = format!("ulimit -v {ADDRESS_SPACE_KIB}; {command}");
    let mut shell = Command::new("sh");
    without_settings(&mut shell).args(["-c", &script, WATCHPOST]).arg(file).output().expect("sh")
}

fn report_of(file: &Path) -> (Output, Value) {
    let output = limited("exec \"$0\" analyze --json \"$1\"", file);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, report)
}

#[test]
fn s9_packed_logs_cannot_fill_the_memory() {
    let directory = directory();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let good = log_line(1, 200) + "\n";
    let bomb = bomb();
    assert!(bomb.len() < 2 << 20, "{} bytes", bomb.len());
    let file = write("bomb.gz", &bomb);
    let (output, report) = report_of(&file);
    assert_eq!(output.status.code(), Some(0), "a line without end is one line: {}", said(&output));
    assert_eq!((&report["lines"], &report["requests"]), (&1.into(), &0.into()), "{report}");
    // The control: a program that keeps a line whole does not live through it.
    let sorted = limited("gzip -dc \"$1\" | sort >/dev/null", &file);
    assert!(!sorted.status.success(), "the limit does not bite");

    // What is behind a bomb is still read.
    let (output, report) =
        report_of(&write("behind.gz", &[&bomb[..], &packed(b"\n"), &packed(good.as_bytes())].concat()));
    assert_eq!((output.status.code(), &report["requests"]), (Some(0), &1.into()), "{}", said(&output));
    // A bomb of newlines: 64 Mi lines would take their time, so it is a smaller one.
    let (output, report) = report_of(&write("lines.gz", &packed(&vec![b'\n'; 1 << 20])));
    assert_eq!((output.status.code(), &report["lines"]), (Some(0), &(1 << 20).into()), "{}", said(&output));
    // Packed again and again, as a file that unpacks to itself is: one layer is unpacked, never what was found inside.
    let nested = (0..20).fold(good.clone().into_bytes(), |inner, _| packed(&inner));
    let (output, report) = report_of(&write("nested.gz", &nested));
    assert_eq!((output.status.code(), &report["requests"]), (Some(0), &0.into()), "{}", said(&output));
    // Cut, damaged, or followed by something else: what came before counts, and the exit code says so.
    let whole = packed(good.repeat(10_000).as_bytes());
    for (name, bytes) in [
        ("cut.gz", whole[..whole.len() / 2].to_vec()),
        ("cut-bomb.gz", bomb[..bomb.len() - 7].to_vec()),
        ("trailing.gz", [&whole[..], &[b'x'; 100]].concat()),
        ("head.gz", vec![0x1f, 0x8b]),
        ("flags.gz", [&[0x1f, 0x8b, 8, 0x1f], &vec![b'n'; 1 << 20][..]].concat()),
    ] {
        let (output, _) = report_of(&write(name, &bytes));
        assert_eq!(output.status.code(), Some(74), "{name}: {}", said(&output));
        assert!(
            said(&output).contains("damaged gzip") && !said(&output).contains("panicked"),
            "{name}: {}",
            said(&output)
        );
    }
}

/// Takes every request and answers with a packed bomb that says that it is one, or with a body that does not end.
fn bombing_destination() -> (std::net::SocketAddr, std::sync::Arc<std::sync::atomic::AtomicU64>) {
    use std::sync::atomic::{AtomicU64, Ordering};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let answered = std::sync::Arc::new(AtomicU64::new(0));
    let counter = std::sync::Arc::clone(&answered);
    std::thread::spawn(move || {
        let bomb = bomb();
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 64 * 1024];
            let _ = stream.read(&mut request);
            let endless = counter.fetch_add(1, Ordering::Relaxed) % 2 == 1;
            let length = if endless { u64::MAX >> 1 } else { bomb.len() as u64 };
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\n\
                 Connection: close\r\nContent-Length: {length}\r\n\r\n"
            );
            let _ = stream.write_all(head.as_bytes());
            // Until the agent has seen enough and hangs up; a little of the endless one is much.
            for _ in 0..if endless { 64 } else { 1 } {
                if stream.write_all(&bomb).is_err() {
                    break;
                }
            }
        }
    });
    (address, answered)
}

#[test]
fn s9_an_answer_of_the_destination_cannot_fill_the_memory() {
    const MEMORY_KIB_MAX: u64 = 64 * 1024;
    let directory = directory();
    let log = directory.path().join("access.log");
    std::fs::write(&log, (0..100).map(|n| log_line(n, 200) + "\n").collect::<String>()).expect("a log");
    let (address, answered) = bombing_destination();
    let mut agent = Agent::new(directory.path(), &log.display().to_string());
    agent.set("SUMO_URL", &format!("http://{address}/x"));
    agent.set("FLUSH_INTERVAL", "100ms");
    agent.start();
    agent.wait_shipped(100);
    agent.wait_status("several answers", |_| answered.load(std::sync::atomic::Ordering::Relaxed) >= 4);
    let peak = memory_kib(agent.id(), "VmHWM");
    assert!(peak < MEMORY_KIB_MAX, "{peak} KiB");
    println!("bombing destination: {peak} KiB at most");
    assert_eq!(agent.stop(), Some(0), "{}", agent.output());
    assert!(!agent.output().contains("panicked"), "{}", agent.output());
}
