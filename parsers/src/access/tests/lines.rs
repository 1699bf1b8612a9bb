//! Lines as nginx writes them, and what each has to give.

use crate::{AccessLine, Field, Format, Parser, Unparsed};
use std::string::{String, ToString};
use std::vec::Vec;

/// 202 lines of real traffic (elastic/examples, Apache-2.0).
pub(super) const REAL: &str = include_str!("../../../tests/data/combined.log");

/// What a line gives, field by field, for people and for comparing.
fn shown(line: &AccessLine<'_>) -> String {
    let text = |value: Option<&[u8]>| value.map(|bytes| bytes.escape_ascii().to_string());
    let fields = [
        ("time", line.time_ms.map(|ms| ms.to_string())),
        ("addr", text(line.remote_addr)),
        ("method", text(line.method)),
        ("target", text(line.target)),
        ("protocol", text(line.protocol)),
        ("status", line.status.map(|code| code.to_string())),
        ("bytes", line.bytes_sent.map(|bytes| bytes.to_string())),
        ("referer", text(line.referer)),
        ("agent", text(line.agent)),
        ("rt", line.request_time_ms.map(|ms| ms.to_string())),
        ("urt", text(line.upstream_response_time)),
        ("us", text(line.upstream_status)),
        ("vhost", text(line.vhost)),
        ("scheme", text(line.scheme)),
        ("https", line.https.map(|on| on.to_string())),
        ("ssl", text(line.ssl_protocol)),
    ];
    let given: Vec<String> =
        fields.into_iter().filter_map(|(name, value)| Some(std::format!("{name}={}", value?))).collect();
    given.join(" ")
}

fn check(format: &Format, line: &[u8], expected: &str) {
    let mut parser = Parser::new(format.clone());
    let found = match parser.parse(line) {
        Ok(found) => shown(&found),
        Err(reason) => std::format!("{}: {reason}", reason.name()),
    };
    assert_eq!(found, expected, "{}", line.escape_ascii());
}

fn format(text: &str) -> Format {
    Format::from_log_format(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Combined lines read the slow and obvious way.
fn combined_naively(line: &str) -> Option<AccessLine<'_>> {
    let parts: Vec<&str> = line.split('"').collect();
    let [head, request, numbers, referer, _, agent, ""] = parts[..] else { return None };
    let given = |text: &'static str, value| (value != text).then_some(value);
    let words: Vec<&str> = request.split(' ').collect();
    let mut numbers = numbers.split_whitespace();
    Some(AccessLine {
        time_ms: crate::time::local_ms(head.split(['[', ']']).nth(1)?.as_bytes()),
        remote_addr: head.split(' ').next().map(str::as_bytes),
        method: words.first().map(|word| word.as_bytes()),
        target: words.get(1).map(|word| word.as_bytes()),
        protocol: words.get(2).map(|word| word.as_bytes()),
        status: numbers.next()?.parse().ok(),
        bytes_sent: numbers.next()?.parse().ok(),
        referer: given("-", referer).map(str::as_bytes),
        agent: given("-", agent).map(str::as_bytes),
        ..AccessLine::default()
    })
}

#[test]
fn real_traffic_reads_as_a_naive_parser_reads_it() {
    let mut parser = Parser::new(Format::combined());
    for line in REAL.lines() {
        let expected = combined_naively(line).expect("the sample has simple lines only");
        assert_eq!(parser.parse(line.as_bytes()), Ok(expected), "{line}");
    }
    assert_eq!(REAL.lines().count(), 202);
}

#[test]
fn a_cut_line_is_never_taken_for_a_whole_one() {
    let line = REAL.lines().next().expect("the sample is not empty").as_bytes();
    let mut parser = Parser::new(Format::combined());
    for length in 0..line.len() {
        let reason = parser.parse(&line[..length]).expect_err("a part of a line is no line");
        assert!(
            matches!(reason, Unparsed::Empty | Unparsed::CutShort { .. } | Unparsed::NoMatch { .. }),
            "{length}: {reason}"
        );
        assert!(length < 20 || reason.name() == "cut_short", "{length}: {reason:?}");
    }
}

#[test]
fn requests_that_are_none_are_counted_all_the_same() {
    let combined = Format::combined();
    let around = |request: &[u8]| {
        [b"::1 - - [17/May/2015:10:05:03 +0000] \"", request, b"\" 400 0 \"-\" \"-\""].concat()
    };
    let rest = "time=1431857103000 addr=::1";
    let check = |request: &[u8], expected: &str| {
        check(&combined, &around(request), &std::format!("{rest}{expected} status=400 bytes=0"));
    };
    check(b"-", "");
    check(b"", "");
    check(br"\x16\x03\x01\x02\x00\x01\x00 \x00", "");
    check(b"\x16\x03\x01\x02 \xff", "");
    check(b"quit", "");
    check(b"GET /", " method=GET target=/");
    check(b"GET /a b HTTP/1.1", " method=GET target=/a b protocol=HTTP/1.1");
    check(b"BREW /pot HTCPCP/1.0", " method=BREW target=/pot HTCPCP/1.0");
    check(br"GET /\x22 HTTP/2.0", r" method=GET target=/\\x22 protocol=HTTP/2.0");
    check(b"PRI * HTTP/2.0", " method=PRI target=* protocol=HTTP/2.0");
    check(b"CONNECT a:443 HTTP/1.1", " method=CONNECT target=a:443 protocol=HTTP/1.1");
    check(br#"GET /\" HTTP/1.0"#, r#" method=GET target=/\\\" protocol=HTTP/1.0"#);
}

#[test]
fn every_status_that_nginx_prints_is_one() {
    let format = format("$status $body_bytes_sent");
    check(&format, b"000 0", "status=0 bytes=0");
    check(&format, b"009 0", "status=9 bytes=0");
    check(&format, b"444 -", "status=444");
    check(&format, b"499 18446744073709551615", "status=499 bytes=18446744073709551615");
    check(
        &format,
        b"499 18446744073709551616",
        "bad_number: expected a number for $body_bytes_sent at column 5",
    );
    check(&format, b"2000 1", "bad_status: expected a status of three digits at column 1");
    check(&format, b"abc 1", "bad_status: expected a status of three digits at column 1");
    check(&format, b"200 1 x", "no_match: expected the end of the line at or after column 6");
    check(&format, b"200 ", "status=200");
    check(&format, b"200", "cut_short: the line ends at column 4, where ` ` is expected");
    check(&format, b"200 1\r\n", "status=200 bytes=1");
    check(&format, b" \r\n", "empty: the line is empty");
    check(&format, b"\0\0\0\0", "binary: the line begins with bytes that are no text");
}

#[test]
fn a_usual_extended_format() {
    let format = format(
        r#"log_format main '$remote_addr - $remote_user [$time_local] "$request" $status $bytes_sent '
            'rt=$request_time ua="$upstream_addr" us=$upstream_status urt=$upstream_response_time $host:$server_port $ssl_protocol';"#,
    );
    let head = br#"10.0.0.1 - a [b] [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 5 rt=0.250 "#;
    let rest =
        "time=1431857103000 addr=10.0.0.1 method=GET target=/ protocol=HTTP/1.1 status=200 bytes=5 rt=250";
    let tail = br#"ua="unix:/a, b:80 : -" us=502, 200 : - urt=0.1, 0.2 : - example.org:443 TLSv1.3"#;
    check(
        &format,
        &[&head[..], tail].concat(),
        &std::format!("{rest} urt=0.1, 0.2 : - us=502, 200 : - vhost=example.org https=true ssl=TLSv1.3"),
    );
    let tail = br#"ua="-" us=- urt=- example.org:80 -"#;
    check(&format, &[&head[..], tail].concat(), &std::format!("{rest} vhost=example.org https=false"));
    assert_eq!(
        format.fields().missing().map(Field::variable).collect::<Vec<_>>(),
        ["$http_referer", "$http_user_agent", "$scheme"]
    );
}

#[test]
fn joined_variables_are_parted_where_that_is_possible() {
    check(&format("$uri$is_args$args $status"), b"/a?b=1 200", "target=/a?b=1 status=200");
    check(
        &format("$scheme://$host$request_uri $status"),
        b"https://a.b/c?d 200",
        "target=/c?d status=200 vhost=a.b scheme=https https=true",
    );
    check(&format("$pipe$connection $status"), b"p12 200", "status=200");
    assert!(!format("$connection$request $status").gives(Field::Method));
}

#[test]
fn values_without_escapes_are_read_so_that_the_rest_of_the_line_matches() {
    let format =
        format(r#"escape=none "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent""#);
    let check = |line: &[u8], expected: &str| check(&format, line, expected);
    check(
        br#""GET /" HTTP/1.1" 404 12 "" "a""#,
        r#"method=GET target=/\" protocol=HTTP/1.1 status=404 bytes=12 agent=a"#,
    );
    check(
        br#""GET /" 200 x HTTP/1.1" 404 12 "r" "a "b" c""#,
        r#"method=GET target=/\" 200 x protocol=HTTP/1.1 status=404 bytes=12 referer=r agent=a \"b\" c"#,
    );
    check(
        br#""GET / HTTP/1.1" 200 1 "r\" "\""#,
        r"method=GET target=/ protocol=HTTP/1.1 status=200 bytes=1 referer=r\\ agent=\\",
    );
}

#[test]
fn a_json_object_format_is_read_by_its_text() {
    let format = format(
        r#"log_format j escape=json '{"time":"$time_iso8601","request":"$request","status":$status,"rt":$request_time,"host":"$host"}';"#,
    );
    check(
        &format,
        br#"{"time":"2015-05-17T10:05:03+00:00","request":"GET /\"\u00e4\\ HTTP/1.1","status":009,"rt":,"host":"a\",\"status\":500"}"#,
        r#"time=1431857103000 method=GET target=/\"\xc3\xa4\\ protocol=HTTP/1.1 status=9 vhost=a\",\"status\":500"#,
    );
    check(
        &format,
        b"{\"time\":\"\",\"request\":\"\xff \\u0016\",\"status\":400,\"rt\":0.000,\"host\":\"\"}",
        "bad_time: expected a time for $time_iso8601 at column 10",
    );
}

#[test]
fn json_lines_in_any_order_with_the_oddities_of_nginx() {
    let json = Format::json();
    let check = |line: &[u8], expected: &str| check(&json, line, expected);
    check(
        br#" {"ts" : 1431857103.25, "extra":{"status":[1,"}"]}, "status":"200","bytes":7,"method":"GET","path":"\/a","https":true} "#,
        "time=1431857103250 method=GET target=/a status=200 bytes=7 https=true",
    );
    check(
        br#"{"request":"-","status":000,"request_time":,"upstream_response_time":0.1, 0.2 : -,"upstream_status":502,"x":null}"#,
        "status=0 urt=0.1, 0.2 : - us=502",
    );
    check(
        b"{\"user_agent\":\"\xff\\x22\\u00e4\",\"status\":-,\"time\":\"17/May/2015:10:05:03 +0000\"}",
        r#"time=1431857103000 agent=\xff\"\xc3\xa4"#,
    );
    check(
        br#"{"msec":"1431857103.999","time":"2015-05-17T10:05:03Z","status":200}"#,
        "time=1431857103999 status=200",
    );
    check(br#"{"duration_ms":12.7,"http_version":1.1,"status":1,"status":2}"#, "protocol=1.1 status=2 rt=12");
    check(br#"{"ip":"a","remote_addr":"b","client":"c"}"#, "addr=b");
    check(b"{}", "");
    check(
        br#"{"status":{"code":200}}"#,
        "wrong_type: the JSON value for status at column 11 has a type that it cannot have",
    );
    check(
        br#"{"status":true}"#,
        "wrong_type: the JSON value for status at column 11 has a type that it cannot have",
    );
    check(br#"{"host":5}"#, "wrong_type: the JSON value for host at column 9 has a type that it cannot have");
    check(br#"{"status":"OK"}"#, "bad_status: expected a status of three digits at column 12");
    check(br#"{"time":"noon"}"#, "bad_time: expected a time for $time at column 10");
    check(br#"{"status":200,"host":"a"#, "not_json: expected a JSON object, which breaks off at column 24");
    check(br#"{"status":200} x"#, "not_json: expected a JSON object, which breaks off at column 16");
    check(br#"[1]"#, "not_json: expected a JSON object, which breaks off at column 1");
    check(br#"{"a":"\"#, "not_json: expected a JSON object, which breaks off at column 8");
}

#[test]
fn regular_expressions_take_names_of_both_kinds() {
    let format = Format::from_regex(r"^(?<ip>\S+) (?P<time_local>[^|]+)\|(?<status>\d+) (?<path>.*)$")
        .expect("compiles");
    check(
        &format,
        b"1.2.3.4 17/May/2015:10:05:03 +0000|404 /\xff",
        r"time=1431857103000 addr=1.2.3.4 target=/\xff status=404",
    );
    check(&format, b"nothing", "no_match: expected a match of the regular expression at or after column 1");
    assert!(format.gives(Field::Status) && !format.gives(Field::Vhost));
    let message = |pattern: &str| Format::from_regex(pattern).expect_err("is refused").to_string();
    assert!(message("(").starts_with("the regular expression does not compile"));
    assert!(message("(?<colour>x)").contains("no named group"));
    assert!(Format::from_regex(r"(?<host>\p{L}+)").is_ok());
}
