//! S11 and S12: expressions and names made to cost time and memory.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{ask, directory, memory_kib, said};
use crate::support::{Agent, WATCHPOST, binary, number};

/// Makes the attack by names longer: requests, each of a host and a route of its own.
const CARDINALITY: &str = "WATCHPOST_TEST_CARDINALITY";

/// Steps of a matcher that goes back and tries again, for `(a+)+$` over `a`s and a `!`: two to the power of their number.
fn steps_of_a_backtracker(text: &[u8], limit: u64) -> u64 {
    fn group(text: &[u8], at: usize, steps: &mut u64, limit: u64) -> bool {
        let run = text[at..].iter().take_while(|byte| **byte == b'a').count();
        for length in (1..=run).rev() {
            *steps += 1;
            if *steps > limit || at + length == text.len() || group(text, at + length, steps, limit) {
                return true;
            }
        }
        false
    }
    let mut steps = 0;
    group(text, 0, &mut steps, limit);
    steps
}

#[test]
fn s11_no_expression_takes_more_than_linear_time() {
    const LINES: usize = 40;
    // Far more than a debug build takes, and nothing against the age of the universe.
    const LONGEST: Duration = Duration::from_secs(60);
    let directory = directory();
    let log = directory.path().join("access.log");
    let line = "a".repeat(30_000) + "!\n";
    fs::write(&log, line.repeat(LINES)).expect("a log");
    for pattern in [
        r"^(?<ip>(a+)+)$",
        r"^(?<ip>(a|aa)+)$",
        r"^(?<ip>(a*)*)*$",
        r"^(?<ip>(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)[^!])$",
        r"(?<ip>x+x+y)",
        r"^(?<ip>(\S+\s*)+)$ nothing",
    ] {
        let begun = Instant::now();
        let format = format!("regex:{pattern}");
        let mut command = binary();
        command.args(["analyze", "--json", "--access-log-format", &format]).arg(&log);
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{pattern}: {}", said(&output));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["lines"], LINES, "{pattern}");
        assert!(begun.elapsed() < LONGEST, "{pattern} took {:?}", begun.elapsed());
        println!("{pattern}: {:?} for {LINES} lines", begun.elapsed());
    }
    // The control: forty characters of such a line are too much for a backtracker.
    let steps = steps_of_a_backtracker(("a".repeat(40) + "!").as_bytes(), 10_000_000);
    assert!(steps > 10_000_000, "{steps} steps");
}

#[test]
fn s11_an_expression_that_is_too_large_is_a_wrong_setting() {
    let directory = directory();
    let agent = Agent::new(directory.path(), "none");
    for (pattern, word) in [
        (r"(?<ip>((\w{100}){100}){100})".to_owned(), "size limit"),
        (format!("(?<ip>{})", "(".repeat(2_000) + &")".repeat(2_000)), "WATCHPOST_ACCESS_LOG_FORMAT"),
        (format!("(?<ip>{})", "x".repeat(1 << 16)), "WATCHPOST_ACCESS_LOG_FORMAT"),
    ] {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -v 400000; exec \"$0\" run", WATCHPOST]).env_clear();
        let settings = agent.command(&["run"]);
        shell.envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output =
            shell.env("WATCHPOST_ACCESS_LOG_FORMAT", format!("regex:{pattern}")).output().expect("sh");
        assert_eq!(output.status.code(), Some(78), "{pattern:.40}: {}", said(&output));
        assert!(said(&output).contains(word), "{word}: {}", said(&output));
        assert!(
            said(&output).len() < 4_000,
            "the pattern is not repeated whole: {} bytes",
            said(&output).len()
        );
    }
    let mut right = agent.command(&["check"]);
    let right = right.env("WATCHPOST_ACCESS_LOG_FORMAT", r"regex:(?<ip>\w{100})").output().expect("it runs");
    assert_eq!(right.status.code(), Some(0), "the control: {}", said(&right));
}

#[test]
fn s12_names_without_number_keep_memory_bounded_and_sums_right() {
    const REQUESTS_DEFAULT: u64 = 100_000;
    const MEMORY_KIB_MAX: u64 = 64 * 1024;
    const ROWS_MAX: usize = 201;
    let requests =
        std::env::var(CARDINALITY).map_or(REQUESTS_DEFAULT, |text| text.parse().expect("a number"));
    let directory = directory();
    let log = directory.path().join("access.log");
    let mut file = std::io::BufWriter::new(fs::File::create(&log).expect("a log"));
    let mut random = fastrand::Rng::with_seed(12);
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string();
    for number in 0..requests {
        // A few known ones among those that nobody has seen before.
        let host = if number % 10 == 0 {
            "shop.example".to_owned()
        } else {
            format!("{:x}.evil.example", random.u64(..))
        };
        let path = format!("/{}/{}", letters(&mut random), letters(&mut random));
        let status = if number % 7 == 0 { 500 } else { 200 };
        writeln!(file, "{host} [{time}] \"GET {path} HTTP/1.1\" {status} 0.0{}", number % 10)
            .expect("written");
    }
    file.into_inner().expect("written");
    let mut agent = Agent::new(directory.path(), &log.display().to_string());
    agent.set("ACCESS_LOG_FORMAT", "$host [$time_iso8601] \"$request\" $status $request_time");
    agent.start();
    let status =
        agent.wait_status("all requests", |status| number(status, "/web/totals/requests") == requests);
    assert!(crate::support::is_balanced(&status["ledger"]), "{}", status["ledger"]);
    for list in ["vhosts", "routes"] {
        let rows = status["web"][list].as_array().expect("rows");
        assert!(rows.len() > 10 && rows.len() <= ROWS_MAX, "{} {list}", rows.len());
        assert!(rows.iter().any(|row| row["name"] == "_other"), "{list}");
        assert_eq!(
            rows.iter().map(|row| number(row, "/requests")).sum::<u64>(),
            requests,
            "{list} sum to the total"
        );
    }
    let shop =
        status["web"]["vhosts"].as_array().expect("rows").iter().find(|row| row["name"] == "shop.example");
    assert_eq!(
        shop.map(|row| number(row, "/requests")),
        Some(requests.div_ceil(10)),
        "a known host keeps its row"
    );
    assert_eq!(number(&status, "/web/totals/status/5xx"), requests.div_ceil(7));
    // Whoever asks the port under a thousand names leaves nothing either.
    let before = memory_kib(agent.id(), "VmRSS");
    for _ in 0..1_000 {
        let answer = ask(agent.address, "/metrics", &format!("Host: {:x}.example\r\n", random.u64(..)));
        assert_eq!(answer.status, 421);
    }
    let (after, peak) = (memory_kib(agent.id(), "VmRSS"), memory_kib(agent.id(), "VmHWM"));
    assert!(after < before + 8 * 1024, "{before} to {after} KiB");
    assert!(peak < MEMORY_KIB_MAX, "{peak} KiB");
    let answer = serde_json::to_string(&status).expect("JSON").len();
    assert!(answer < 1 << 20, "{answer} bytes");
    println!(
        "cardinality: {requests} requests of as many routes, {peak} KiB at most, /status has {answer} bytes"
    );
}

/// A word that no rule for numbers and identifiers folds into another.
fn letters(random: &mut fastrand::Rng) -> String {
    (0..8).map(|_| random.lowercase()).collect()
}
