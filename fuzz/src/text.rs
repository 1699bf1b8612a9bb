//! Text to values: lines, formats, nginx.conf, lists, times, escapes, routes.

use std::cell::RefCell;

use watchpost_parsers::escape::{Escape, unescape};
use watchpost_parsers::nginx_conf::{self as conf, LogTarget, PROBLEMS_MAX, Place};
use watchpost_parsers::route::{ROUTE_BYTES_MAX, method_name};
use watchpost_parsers::time::{any_ms, epoch_ms, iso8601_ms, local_ms};
use watchpost_parsers::upstream::{Statuses, Times, items};
use watchpost_parsers::{AccessLine, Field, Format, Parser};

use super::{Input, assert_plain};

const MAIN: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                    \"$http_referer\" \"$http_user_agent\" \"$http_x_forwarded_for\"";
const TIMED: &str = "$host $msec $scheme $request_method \"$request_uri\" $status $bytes_sent $request_time \
                     \"$upstream_response_time\" \"$upstream_status\" $ssl_protocol";
const JSON_LITERAL: &str = "escape=json '{\"time\":\"$time_iso8601\",\"r\":\"$request\",\"s\":$status,\
                            \"b\":$body_bytes_sent,\"rt\":$request_time,\"ua\":\"$http_user_agent\"}'";
const RAW: &str = "escape=none '$remote_addr [$time_iso8601] $status $request'";
const PATTERN: &str =
    r#"^(?P<remote_addr>\S+) \[(?P<time_local>[^\]]+)\] "(?P<request>[^"]*)" (?P<status>\d+)"#;
/// Longer patterns test the regex crate's compiler more than anything of ours.
const PATTERN_BYTES_MAX: usize = 200;
/// Parts a format from a line; no text holds it.
const PART: u8 = 0xFF;

thread_local! {
    /// Compiled once: a line is what is fuzzed.
    static PARSERS: RefCell<Vec<Parser>> = RefCell::new(parsers());
}

fn parsers() -> Vec<Parser> {
    let literal =
        [MAIN, TIMED, JSON_LITERAL, RAW].map(|text| Format::from_log_format(text).expect("a format"));
    let pattern = Format::from_regex(PATTERN).expect("a pattern");
    let all = [Format::combined(), Format::json(), pattern].into_iter().chain(literal);
    all.map(Parser::new).collect()
}

/// The first byte chooses the format, the rest is the line.
pub fn access_line(data: &[u8]) {
    let Some((choice, line)) = data.split_first() else { return };
    PARSERS.with_borrow_mut(|parsers| {
        let count = parsers.len();
        check_line(&mut parsers[usize::from(*choice) % count], line);
    });
}

/// A format as in nginx.conf, 0xFF, and a line.
pub fn log_format(data: &[u8]) {
    let (text, line) = parts(data);
    let Ok(text) = std::str::from_utf8(text) else { return };
    match Format::from_log_format(text) {
        Ok(format) => check_line(&mut Parser::new(format), line),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A regular expression, 0xFF, and a line.
pub fn regex_format(data: &[u8]) {
    let (pattern, line) = parts(data);
    let Ok(pattern) = std::str::from_utf8(pattern) else { return };
    if pattern.len() > PATTERN_BYTES_MAX {
        return;
    }
    match Format::from_regex(pattern) {
        Ok(format) => {
            assert!(format.fields().iter().count() > 0, "a format that gives nothing");
            check_line(&mut Parser::new(format), line);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn parts(data: &[u8]) -> (&[u8], &[u8]) {
    let at = data.iter().position(|byte| *byte == PART).unwrap_or(data.len());
    (&data[..at], data.get(at + 1..).unwrap_or(b""))
}

/// A line is read, or there is a reason; and the same line is always read the same.
fn check_line(parser: &mut Parser, line: &[u8]) {
    let fields = parser.format().fields();
    let first = match parser.parse(line) {
        Ok(parsed) => {
            for (field, value) in values(&parsed) {
                assert!(fields.contains(field), "{field:?} is not of this format");
                assert!(value.len() <= line.len(), "{field:?} is longer than its line");
            }
            assert!(parsed.status.is_none_or(|status| status <= 999));
            Ok(format!("{parsed:?}"))
        }
        Err(reason) => {
            assert!(reason.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            assert_plain(&reason.to_string());
            Err(reason)
        }
    };
    let _ = parser.parse(b"192.0.2.1 - - [01/Jan/2026:00:00:00 +0000] \"GET / HTTP/1.1\" 200 0 \"-\" \"-\"");
    let again = parser.parse(line).map(|parsed| format!("{parsed:?}"));
    assert_eq!(first, again, "read after another line");
    if !line.ends_with(b"\n") && !line.ends_with(b"\r") {
        let ended = [line, b"\r\n"].concat();
        assert_eq!(first, parser.parse(&ended).map(|parsed| format!("{parsed:?}")), "with its line end");
    }
}

fn values<'a>(line: &AccessLine<'a>) -> Vec<(Field, &'a [u8])> {
    let texts = [
        (Field::RemoteAddr, line.remote_addr),
        (Field::Method, line.method),
        (Field::Target, line.target),
        (Field::Protocol, line.protocol),
        (Field::Referer, line.referer),
        (Field::Agent, line.agent),
        (Field::UpstreamResponseTime, line.upstream_response_time),
        (Field::UpstreamStatus, line.upstream_status),
        (Field::Vhost, line.vhost),
        (Field::Scheme, line.scheme),
        (Field::SslProtocol, line.ssl_protocol),
    ];
    texts.into_iter().filter_map(|(field, value)| Some((field, value?))).collect()
}

/// The main file, 0xFF, and the text of whatever it includes.
pub fn nginx_conf(data: &[u8]) {
    let (main, included) = parts(data);
    let (main, included) = (String::from_utf8_lossy(main), String::from_utf8_lossy(included));
    let place = Place {
        main_file: "/etc/nginx/nginx.conf",
        prefix: "/usr/share/nginx",
        default_access_log: "/var/log/nginx/access.log",
    };
    let mut asked = 0;
    let found = conf::access_logs(&main, &place, &mut |pattern| {
        assert!(pattern.starts_with('/'), "included: {pattern:?}");
        asked += 1;
        // A file that includes itself is the reader's to bound; a file system would be the bound here.
        if asked > 32 { vec![] } else { vec![("/etc/nginx/included.conf".to_owned(), included.to_string())] }
    });
    assert!(found.problems.len() <= PROBLEMS_MAX);
    for problem in &found.problems {
        assert!(problem.line >= 1 && !problem.message.is_empty(), "{problem:?}");
    }
    for log in &found.logs {
        assert!(log.target != LogTarget::File || log.path.starts_with('/'), "{log:?}");
        assert!(log.server_names.is_sorted(), "{log:?}");
        if let Some(Ok(format)) = log.format.as_deref().map(Format::from_log_format) {
            let _ = Parser::new(format).parse(b"a line of no format");
        }
    }
}

/// Any list, and one that is written here.
pub fn upstream(data: &[u8]) {
    let count = items(data).count();
    assert_eq!((Times::new(data).count(), Statuses::new(data).count()), (count, count));
    assert!(items(data).map(<[u8]>::len).sum::<usize>() <= data.len());
    assert!(items(data).all(|item| item.trim_ascii() == item));
    let mut input = Input(data);
    let (mut list, mut expected) = (String::new(), Vec::new());
    while !input.is_empty() {
        let ms = (input.byte() > 20).then(|| u64::from(input.byte()) * u64::from(input.byte()));
        if !list.is_empty() {
            list.push_str(if input.byte() % 2 == 0 { ", " } else { " : " });
        }
        list.push_str(&ms.map_or("-".to_owned(), |ms| format!("{}.{:03}", ms / 1000, ms % 1000)));
        expected.push(ms);
    }
    assert_eq!(Times::new(list.as_bytes()).collect::<Vec<_>>(), expected, "{list}");
}

/// Any text, and a time that is written here in all three ways.
pub fn time(data: &[u8]) {
    for read in [local_ms, iso8601_ms, epoch_ms, any_ms] {
        assert_eq!(read(data), read(data));
    }
    let Some((seed, _)) = data.split_first_chunk::<8>() else { return };
    const YEAR_9999_S: u64 = 253_402_300_800;
    let ms = u64::from_le_bytes(*seed) % (YEAR_9999_S * 1000);
    let (seconds, zone) = (ms / 1000, u64::from(seed[0]) % 24);
    // A zone east of Greenwich: the clock on the wall is ahead.
    let wall = seconds + zone * 3600;
    if wall >= YEAR_9999_S {
        return;
    }
    let (year, month, day) = date(wall / 86_400);
    let (hour, minute, second) = (wall / 3600 % 24, wall / 60 % 60, wall % 60);
    let name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        [month as usize - 1];
    let local = format!("{day:02}/{name}/{year:04}:{hour:02}:{minute:02}:{second:02} +{zone:02}00");
    let iso = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+{zone:02}:00");
    let msec = format!("{seconds}.{:03}", ms % 1000);
    let whole = i64::try_from(seconds * 1000).ok();
    assert_eq!((local_ms(local.as_bytes()), any_ms(local.as_bytes())), (whole, whole), "{local}");
    assert_eq!((iso8601_ms(iso.as_bytes()), any_ms(iso.as_bytes())), (whole, whole), "{iso}");
    assert_eq!(epoch_ms(msec.as_bytes()), i64::try_from(ms).ok(), "{msec}");
}

/// Year, month and day of a count of days since 1970, by counting years and months.
fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let cycles = days / 146_097;
    days %= 146_097;
    let mut year = 1970 + cycles * 400;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

/// Any text gets no longer; and a value that is escaped here as nginx does comes back.
pub fn escape(data: &[u8]) {
    for mode in [Escape::Default, Escape::Json, Escape::None] {
        let mut out = Vec::new();
        unescape(data, mode, &mut out);
        assert!(out.len() <= data.len(), "{mode:?}");
        let mut written = Vec::new();
        for byte in data {
            match (mode, byte) {
                (Escape::Default, b'"' | b'\\' | ..0x20 | 0x7f..) => {
                    written.extend(format!("\\x{byte:02X}").bytes());
                }
                (Escape::Json, b'"' | b'\\') => written.extend([b'\\', *byte]),
                (Escape::Json, b'\n') => written.extend(b"\\n"),
                (Escape::Json, ..0x20) => written.extend(format!("\\u00{byte:02X}").bytes()),
                _ => written.push(*byte),
            }
        }
        out.clear();
        unescape(&written, mode, &mut out);
        assert_eq!(out, data, "{mode:?}: {}", written.escape_ascii());
    }
}

/// The method and the target, parted by 0xFF.
pub fn route(data: &[u8]) {
    let (method, target) = parts(data);
    let mut out = String::from("kept ");
    watchpost_parsers::route::route(Some(method), Some(target), &mut out);
    let route = out.strip_prefix("kept ").expect("what stood there stays");
    assert_plain(route);
    assert!(route.starts_with(method_name(Some(method))), "{route:?}");
    assert!(route.len() <= ROUTE_BYTES_MAX, "{route:?}");
    let mut again = String::new();
    watchpost_parsers::route::route(Some(method), Some(target), &mut again);
    assert_eq!(route, again);
    let mut routes = watchpost_parsers::routes::Routes::new();
    for _ in 0..2 {
        assert_eq!(routes.of(Some(method), Some(target)).route, again.as_bytes(), "remembered");
    }
}
