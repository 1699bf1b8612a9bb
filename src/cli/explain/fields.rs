//! The values of a line in words: times as dates, codes with their meaning, lists item by item.

use watchpost_parsers::escape::{self, Escape};
use watchpost_parsers::upstream::{Statuses, Times};
use watchpost_parsers::{AccessLine, Field};

use super::{grouped, printable, rfc3339};
use crate::cli::size;

/// The name of a field, as `/status` and the records have it.
pub(super) fn name(field: Field) -> &'static str {
    match field {
        Field::Time => "time",
        Field::RemoteAddr => "remote_addr",
        Field::Method => "method",
        Field::Target => "target",
        Field::Protocol => "protocol",
        Field::Status => "status",
        Field::BytesSent => "bytes_sent",
        Field::Referer => "referer",
        Field::Agent => "agent",
        Field::RequestTime => "request_time",
        Field::UpstreamResponseTime => "upstream_response_time",
        Field::UpstreamStatus => "upstream_status",
        Field::Vhost => "vhost",
        Field::Scheme => "scheme",
        Field::Https => "https",
        Field::SslProtocol => "ssl_protocol",
    }
}

/// The value of a field; `None` where the line has none. `escape` is how values still are escaped.
pub(super) fn value(field: Field, line: &AccessLine<'_>, escape: Escape) -> Option<String> {
    let text = |raw: &[u8]| text(raw, escape);
    match field {
        Field::Time => line.time_ms.map(|ms| rfc3339(ms).unwrap_or_else(|| format!("{ms} ms since 1970"))),
        Field::RemoteAddr => line.remote_addr.map(text),
        Field::Method => line.method.map(text),
        Field::Target => line.target.map(text),
        Field::Protocol => line.protocol.map(text),
        Field::Status => line.status.map(|status| format!("{status:03}   {}", meaning(status))),
        Field::BytesSent => line.bytes_sent.map(bytes),
        Field::Referer => line.referer.map(text),
        Field::Agent => line.agent.map(text),
        Field::RequestTime => line.request_time_ms.map(|ms| request_time(ms, line.status)),
        Field::UpstreamResponseTime => line.upstream_response_time.map(|raw| {
            attempts(
                Times::new(raw).map(|ms| ms.map_or("no time".to_owned(), |ms| format!("{} ms", grouped(ms)))),
            )
        }),
        Field::UpstreamStatus => line.upstream_status.map(|raw| {
            attempts(Statuses::new(raw).map(|status| {
                status.map_or("no answer".to_owned(), |status| format!("{status:03} {}", meaning(status)))
            }))
        }),
        Field::Vhost => line.vhost.map(text),
        Field::Scheme => line.scheme.map(text),
        Field::Https => line.https.map(|https| if https { "yes" } else { "no" }.to_owned()),
        Field::SslProtocol => line.ssl_protocol.map(text),
    }
}

/// A value as it was logged, and as it was meant where that is another thing.
fn text(raw: &[u8], mode: Escape) -> String {
    let shown = printable(raw);
    let mut meant = Vec::new();
    escape::unescape(raw, mode, &mut meant);
    if meant == raw { shown } else { format!("{shown}   which is {}", printable(&meant)) }
}

fn bytes(count: u64) -> String {
    if count < 1_024 { format!("{count} B") } else { format!("{} B   {}", grouped(count), size(count)) }
}

fn request_time(ms: u64, status: Option<u16>) -> String {
    let session = if status == Some(101) { "   the length of a session, not a latency" } else { "" };
    format!("{} ms{session}", grouped(ms))
}

/// A list of upstream attempts, numbered where there are several.
fn attempts(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match items.as_slice() {
        [only] => only.clone(),
        several => {
            let numbered: Vec<String> =
                several.iter().enumerate().map(|(index, item)| format!("{}: {item}", index + 1)).collect();
            numbered.join("   ")
        }
    }
}

/// What a status says; nginx's own codes are those of ngx_http_request.h.
pub(super) fn meaning(status: u16) -> &'static str {
    match status {
        0 => "nginx had no answer to send: the connection ended first, or it was no HTTP",
        9 => "a request of HTTP/0.9, which has no status",
        101 => "switching protocols, such as to a WebSocket",
        200 => "OK",
        201 => "created",
        204 => "no content",
        206 => "partial content",
        301 => "moved for good",
        302 => "found elsewhere",
        304 => "not modified: the client's copy is good",
        307 => "moved for now",
        308 => "moved for good",
        400 => "bad request",
        401 => "not logged in",
        403 => "forbidden",
        404 => "not found",
        405 => "method not allowed",
        408 => "the client sent its request too slowly",
        410 => "gone",
        413 => "body too large (client_max_body_size)",
        414 => "URI too long (large_client_header_buffers)",
        416 => "range not satisfiable",
        421 => "misdirected: another name than that of the TLS handshake",
        429 => "too many requests",
        431 => "headers too large",
        444 => "nginx closed the connection without an answer (return 444)",
        494 => "headers too large (nginx)",
        495 => "bad client certificate (nginx)",
        496 => "no client certificate (nginx)",
        497 => "plain HTTP on an HTTPS port (nginx)",
        499 => "the client closed the connection before the answer (nginx)",
        500 => "internal server error",
        502 => "bad gateway: the upstream refused, or its answer was none",
        503 => "unavailable",
        504 => "the upstream took too long",
        507 => "insufficient storage",
        _ => match status / 100 {
            1 => "informational",
            2 => "success",
            3 => "redirection",
            4 => "client error",
            5 => "server error",
            _ => "no status that HTTP knows",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_told_item_by_item() {
        let line = AccessLine {
            upstream_response_time: Some(b"0.100, 0.2 : -"),
            upstream_status: Some(b"502, 200 : -"),
            ..AccessLine::default()
        };
        let of = |field| value(field, &line, Escape::Default).expect("a value");
        assert_eq!(of(Field::UpstreamResponseTime), "1: 100 ms   2: 200 ms   3: no time");
        assert!(of(Field::UpstreamStatus).ends_with("2: 200 OK   3: no answer"));
    }

    #[test]
    fn escapes_are_shown_and_undone() {
        assert_eq!(text(br"a\x22b", Escape::Default), r#"a\x22b   which is a"b"#);
        assert_eq!(text(br"\x1B[31m", Escape::Default), r"\x1B[31m   which is \u{1b}[31m");
        assert_eq!(text(b"plain", Escape::Default), "plain");
    }

    #[test]
    fn every_status_has_a_meaning() {
        assert!((0..=999).all(|status| !meaning(status).is_empty()));
        assert!(meaning(499).contains("client closed") && meaning(444).contains("without an answer"));
    }
}
