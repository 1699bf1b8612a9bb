//! The lines that every stage is measured on: real traffic, as a busy server would have written it.
//!
//! Owns how the corpus is retold in each format. It must never ask a clock or a random number: two runs are
//! two measurements of the same bytes.

use std::io::Read;

use watchpost::record::EpochMs;
use watchpost_parsers::{AccessLine, Format, Parser, route};

/// The recommended format, as it is installed.
const NGINX_CONF: &str = include_str!("../config/nginx-log-format.conf");
/// Real traffic in nginx's combined format, see tests/data/README.md.
const COMBINED_GZ: &[u8] = include_bytes!("../tests/data/access-combined.log.gz");

/// Requests in a second of the corpus. As it was logged most lines had a second of their own, which no busy
/// server does.
const REQUESTS_PER_SECOND: usize = 1000;
/// The first second: 17 May 2015, 10:05:03 UTC.
const FIRST_SECOND: i64 = 1_431_857_103;
/// Virtual hosts, by how many of ten requests they get.
const HOSTS: [(&str, usize); 3] = [("www.example.com", 7), ("static.example.com", 2), ("api.example.com", 1)];

/// One request, as far as the formats tell of it.
struct Told<'a> {
    client: &'a str,
    time_local: String,
    msec: String,
    /// `"$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"`.
    tail: &'a str,
    host: &'static str,
    request_time: String,
}

/// The corpus in the formats that the agent reads.
pub(super) struct Corpus {
    /// nginx's combined.
    pub(super) combined: Vec<Vec<u8>>,
    /// The recommended format.
    pub(super) recommended: Vec<Vec<u8>>,
    /// JSON, as people write it with `escape=json`.
    pub(super) json: Vec<Vec<u8>>,
}

impl Corpus {
    /// Unpacks and retells the corpus.
    pub(super) fn read() -> Corpus {
        let mut text = String::new();
        flate2::read::GzDecoder::new(COMBINED_GZ).read_to_string(&mut text).expect("the corpus is UTF-8");
        let told: Vec<Told<'_>> = text.lines().enumerate().map(|(number, line)| told(number, line)).collect();
        Corpus {
            combined: told.iter().map(|told| combined(told).into_bytes()).collect(),
            recommended: told.iter().map(|told| recommended(told).into_bytes()).collect(),
            json: told.iter().map(|told| json(told).into_bytes()).collect(),
        }
    }
}

/// When all lines had been written: the moment of reading.
pub(super) fn read_at() -> EpochMs {
    (FIRST_SECOND + 60) * 1000
}

/// The recommended format, out of the file that is installed.
pub(super) fn recommended_format() -> Format {
    let from = NGINX_CONF.find("\nlog_format ").expect("the file has a log_format") + 1;
    let length = NGINX_CONF[from..].find(';').expect("it ends") + 1;
    Format::from_log_format(&NGINX_CONF[from..from + length]).expect("it compiles")
}

/// What counting looks at, on its own feet.
pub(super) struct Request {
    pub(super) time_ms: Option<EpochMs>,
    pub(super) method: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) status: u16,
    pub(super) bytes_sent: u64,
    pub(super) request_time_ms: Option<u64>,
    pub(super) vhost: Option<Vec<u8>>,
    pub(super) route: String,
}

/// The requests of lines in `format`.
pub(super) fn requests(lines: &[Vec<u8>], format: Format) -> Vec<Request> {
    let mut parser = Parser::new(format);
    lines.iter().map(|line| request(&parser.parse(line).expect("every line of the corpus parses"))).collect()
}

fn request(parsed: &AccessLine<'_>) -> Request {
    let mut text = String::new();
    route::route(parsed.method, parsed.target, &mut text);
    Request {
        time_ms: parsed.time_ms,
        method: parsed.method.map(<[u8]>::to_vec),
        target: parsed.target.map(<[u8]>::to_vec),
        status: parsed.status.unwrap_or(0),
        bytes_sent: parsed.bytes_sent.unwrap_or(0),
        request_time_ms: parsed.request_time_ms,
        vhost: parsed.vhost.map(<[u8]>::to_vec),
        route: text,
    }
}

fn told(number: usize, line: &str) -> Told<'_> {
    let (client, rest) = line.split_once(' ').expect("an address");
    let (_, tail) = rest.split_once("] ").expect("a time");
    let second = number / REQUESTS_PER_SECOND;
    let millisecond = number % REQUESTS_PER_SECOND * 1000 / REQUESTS_PER_SECOND;
    // A hash of the number stands for chance; one request in thirty-two is slow.
    let chance = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let slow = if chance.is_multiple_of(32) { 40 } else { 1 };
    let request_ms = chance / 32 % 120 * slow;
    Told {
        client,
        time_local: format!("17/May/2015:10:05:{:02} +0000", 3 + second),
        msec: format!("{}.{millisecond:03}", FIRST_SECOND + second as i64),
        tail,
        host: host((chance / 7) as usize % 10),
        request_time: format!("{}.{:03}", request_ms / 1000, request_ms % 1000),
    }
}

fn host(mut place: usize) -> &'static str {
    for (name, share) in HOSTS {
        if place < share {
            return name;
        }
        place -= share;
    }
    HOSTS[0].0
}

fn combined(told: &Told<'_>) -> String {
    format!("{} - - [{}] {}", told.client, told.time_local, told.tail)
}

fn recommended(told: &Told<'_>) -> String {
    format!(
        "{} msec={} host=\"{}\" scheme=https request_time={} upstream_addr=\"127.0.0.1:8080\" \
         upstream_status=\"200\" upstream_response_time=\"{}\" ssl_protocol=TLSv1.3",
        combined(told),
        told.msec,
        told.host,
        told.request_time,
        told.request_time
    )
}

fn json(told: &Told<'_>) -> String {
    // The request, referer and agent of the corpus hold no quote; what nginx wrote as `\x` stays as it stands.
    let parts: Vec<String> = told.tail.split('"').map(|part| part.replace('\\', "\\\\")).collect();
    let (request, referer, agent) = (&parts[1], &parts[3], &parts[5..parts.len() - 1].join(""));
    let (status, bytes) = parts[2].trim().split_once(' ').expect("a status and bytes");
    let bytes = if bytes == "-" { "0" } else { bytes };
    format!(
        "{{\"msec\":\"{}\",\"remote_addr\":\"{}\",\"remote_user\":\"\",\"request\":\"{request}\",\
         \"status\":{status},\"body_bytes_sent\":{bytes},\"http_referer\":\"{referer}\",\
         \"http_user_agent\":\"{agent}\",\"host\":\"{}\",\"scheme\":\"https\",\"request_time\":{},\
         \"upstream_response_time\":\"{}\",\"upstream_status\":\"200\",\"ssl_protocol\":\"TLSv1.3\"}}",
        told.msec, told.client, told.host, told.request_time, told.request_time
    )
}
