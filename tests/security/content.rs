//! S10: what stands in a log, or in a setting, forges no record, no header, no metric and no markup.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::{ask, body_of, directory, said};
use crate::support::{Agent, Receiver, number};

/// Set to a Chromium to have the page looked at by a real browser as well.
const BROWSER: &str = "WATCHPOST_TEST_BROWSER";

/// Names of hosts that try to end what they stand in: a label, a line, a string, an element, an attribute.
const HOSTS: [&str; 8] = [
    "a\"} 1\nforged_metric 1\n",
    "b\\",
    "c\\\"} 2\\nforged_metric 2",
    "d\r\nX-Forged: 1",
    "<svg/onload=document.title=\"pwned\">",
    "</script><script>document.title=\"pwned\"</script>",
    "e\u{202e}\u{1b}[31m",
    "_other",
];

/// Lines as nginx writes them with `escape=json`, each with a hostile host and path.
fn lines() -> Vec<String> {
    let one = |(index, host): (usize, &&str)| {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string();
        let request = format!("GET /{index}/<img/src=x/onerror=document.title='pwned'>{host} HTTP/1.1");
        let forged = "\",\"record\":\"event\",\"timestamp\":1,\"x\":\"";
        json!({"time_iso8601": time, "host": host, "request": request, "status": "200", "request_time": "0.1",
               "http_user_agent": forged})
        .to_string()
    };
    HOSTS.iter().enumerate().map(one).collect()
}

fn agent_with(directory: &std::path::Path, lines: &[u8]) -> (Agent, Receiver) {
    let log = directory.join("access.log");
    fs::write(&log, lines).expect("a log");
    let receiver = Receiver::start(directory);
    let mut agent = Agent::new(directory, &log.display().to_string());
    agent.set("ACCESS_LOG_FORMAT", "json");
    agent.set("SUMO_URL", &receiver.url());
    agent.start();
    (agent, receiver)
}

#[test]
fn s10_lines_forge_no_record() {
    let directory = directory();
    let mut lines: Vec<Vec<u8>> = lines().into_iter().map(String::into_bytes).collect();
    for raw in [
        &b"\x00\x01\x02\xff\xfe {\"timestamp\":1}"[..],
        b"x\\n{\"timestamp\":1,\"record\":\"event\"}",
        b"\",\"timestamp\":1,\"a\":\"",
        b"\xe2\x80\xa8{\"timestamp\":1}\xe2\x80\xa9",
        b"a\rb\x0bc\x0cd\x85e\x1ef",
        b"POST /receiver HTTP/1.1\r",
    ] {
        lines.push(raw.to_vec());
    }
    let (agent, receiver) = agent_with(directory.path(), &[&lines.join(&b'\n')[..], b"\n"].concat());
    agent.wait_shipped(lines.len() as u64);
    let records = receiver.records("watchpost/nginx/access");
    assert_eq!(records.len(), lines.len(), "one line is one record");
    for (record, line) in records.iter().zip(&lines) {
        let names: Vec<&str> = record.as_object().expect("an object").keys().map(String::as_str).collect();
        assert!(names.iter().all(|name| ["timestamp", "log", "escaped"].contains(name)), "{names:?}");
        assert!(record["timestamp"].as_u64() > Some(1_000_000_000_000), "{record}");
        // A line of nginx on Windows or behind a bad writer may end in a return, which is not part of it.
        if let Ok(text) = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)) {
            let told = record["log"].as_str().unwrap_or_default();
            assert_eq!(told.trim_end_matches('\r'), text, "as it stands");
        } else {
            assert_eq!(record["escaped"], true, "{record}");
        }
    }
    for record in receiver.records("watchpost/web") {
        let vhost = record["vhost"].as_str().expect("a name");
        assert!(vhost.bytes().all(|byte| byte.is_ascii_graphic()), "{vhost:?}");
    }
    // The host that calls itself the remainder is not taken for it.
    let status = agent.status();
    let vhosts = status["web"]["vhosts"].as_array().expect("hosts");
    assert!(vhosts.iter().any(|vhost| vhost["name"] == "\\x5fother"), "{vhosts:?}");
}

#[test]
fn s10_names_break_no_metric() {
    let directory = directory();
    let (agent, _receiver) = agent_with(directory.path(), (lines().join("\n") + "\n").as_bytes());
    agent.wait_status("the requests", |status| number(status, "/web/totals/requests") == HOSTS.len() as u64);
    // A rate is told once it is known, which takes some seconds.
    let text = crate::support::wait_for("a rate of every host", || {
        let text = body_of(agent.address, "/metrics");
        (text.matches("watchpost_vhost_request_rate{").count() >= HOSTS.len()).then_some(text)
    });
    let series =
        r#"^[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-z_]+="([^"\\\n]|\\[\\"n])*",?)+\})? (NaN|[+-]Inf|[0-9.eE+-]+)$"#;
    let series = regex::Regex::new(series).expect("it compiles");
    let is_right = |line: &str| line.starts_with("# ") || series.is_match(line);
    let wrong: Vec<&str> = text.lines().filter(|line| !is_right(line)).collect();
    assert_eq!(wrong, [""; 0]);
    assert!(
        !text.lines().any(|line| line.starts_with("forged_metric") || line.starts_with("X-Forged")),
        "{text}"
    );
    // The control: these names as they stand would break it.
    assert!(!is_right(&format!("m{{vhost=\"{}\"}} 1", HOSTS[1])) && !is_right("m{vhost=\"c\"d\"} 1"));
}

#[test]
fn s10_settings_cannot_add_a_header() {
    let directory = directory();
    let mut agent = Agent::new(directory.path(), "none");
    for name in ["HOST_NAME", "SOURCE_CATEGORY", "SOURCE_NAME", "FIELDS"] {
        for end in ["\r\nX-Forged: 1", "\nX-Forged: 1", "\rX", "\u{85}X", "\u{0b}X", "\tX"] {
            let mut command = agent.command(&["run"]);
            let output =
                command.env(format!("WATCHPOST_{name}"), format!("k=v{end}")).output().expect("it runs");
            assert_eq!(output.status.code(), Some(78), "{name} {end:?}: {}", said(&output));
            assert!(
                said(&output).contains(name) && said(&output).contains("control character"),
                "{}",
                said(&output)
            );
        }
        agent.set(name, "k=v X-Forged: 1");
    }
    // The control: the same without a line's end is a value like any other.
    let output = agent.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

/// How a page could make markup or code of a text.
const SINKS: [&str; 14] = [
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "document.write",
    "eval(",
    "new Function",
    "srcdoc",
    "javascript:",
    "createContextualFragment",
    "DOMParser",
    "setHTML",
    "setTimeout(\"",
    "import(",
    ".src =",
];

#[test]
fn s10_the_page_makes_no_markup_of_names() {
    let directory = directory();
    let (agent, _receiver) = agent_with(directory.path(), (lines().join("\n") + "\n").as_bytes());
    let host = format!("Host: {}\r\n", agent.address);
    let answer = ask(agent.address, "/", &host);
    for part in [
        "default-src 'none'",
        "script-src 'nonce-",
        "style-src 'nonce-",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
        "content-type: text/html; charset=utf-8",
    ] {
        assert!(answer.head.contains(part), "{part} in {}", answer.head);
    }
    assert!(!answer.head.contains("unsafe"), "{}", answer.head);
    let sinks = |page: &str| SINKS.into_iter().filter(|sink| page.contains(sink)).collect::<Vec<_>>();
    assert_eq!(sinks(&answer.body), [""; 0]);
    assert_eq!(sinks("node.innerHTML = name"), ["innerHTML"], "the control");
    // Elements are made by names that stand in the page, and attributes that run code are never set.
    let handlers = regex::Regex::new(
        r#"(?i)\son(load|error|click|focus|blur|input|toggle|mouse\w+|key\w+)\s*=|setAttribute\(\s*"on|https?:|//[a-z0-9.-]+\.[a-z]{2,}/"#,
    );
    let handlers = handlers.expect("it compiles");
    assert!(handlers.find(&answer.body).is_none(), "{:?}", handlers.find(&answer.body));
    assert!(handlers.is_match("<i onclick=x>") && handlers.is_match("src=\"//cdn.example.org/x.js\""));
    for path in ["/status", "/metrics", "/nothing"] {
        let answer = ask(agent.address, path, &host);
        assert!(
            answer.head.contains("nosniff") && answer.head.contains("default-src 'none'"),
            "{}",
            answer.head
        );
        assert!(!answer.head.contains("text/html"), "{path} could be taken for a page: {}", answer.head);
    }
    browse(&agent, directory.path());
}

/// Shows the page in a real browser, where one was named, and looks at what became of the names.
fn browse(agent: &Agent, directory: &std::path::Path) {
    let Some(browser) = std::env::var_os(BROWSER) else { return };
    agent.wait_status("the requests", |status| number(status, "/web/totals/requests") == HOSTS.len() as u64);
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", directory.join("browser").display()));
    let output = command.arg(format!("http://{}/", agent.address)).output().expect("the browser runs");
    let page = String::from_utf8_lossy(&output.stdout);
    assert!(
        page.contains("&lt;svg/onload=") && page.contains("&lt;img/src=x"),
        "the names are shown as text: {page}"
    );
    assert!(
        !page.contains("<svg/onload") && !page.contains("<svg onload") && !page.contains("<img"),
        "{page}"
    );
    assert!(!page.contains("<title>pwned"), "a name ran as code: {page}");
    println!("the page in a browser: {} bytes, every name is text", page.len());
}

#[test]
fn s10_status_is_json_whatever_stands_in_the_log() {
    let directory = directory();
    let (agent, _receiver) = agent_with(directory.path(), (lines().join("\n") + "\n").as_bytes());
    let status = agent
        .wait_status("the requests", |status| number(status, "/web/totals/requests") == HOSTS.len() as u64);
    let top: Vec<&str> = status.as_object().expect("an object").keys().map(String::as_str).collect();
    assert!(!top.contains(&"record") && !top.contains(&"x"), "{top:?}");
    let names = |list: &str| -> u64 {
        let rows = status["web"][list].as_array().expect("rows");
        rows.iter().map(|row| number(row, "/requests")).sum()
    };
    assert_eq!((names("vhosts"), names("routes")), (HOSTS.len() as u64, HOSTS.len() as u64));
    assert!(status["web"]["routes"].as_array().expect("rows").iter().all(|row| {
        let name = row["name"].as_str().unwrap_or_default();
        !name.is_empty() && !name.chars().any(char::is_control)
    }));
    assert_ne!(status, Value::Null);
}
