//! What a format leaves out, what each field would tell, and the log_format that has them all.

use std::fmt::Write;

use watchpost_parsers::escape::Escape;
use watchpost_parsers::{AccessLine, Field, Format};

use super::fields;

/// How the operator adds a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// nginx's own format, which cannot be changed: a new one takes its place.
    Combined,
    /// A log_format that is extended.
    LogFormat,
    /// JSON, whose lines choose their keys.
    Json,
    /// A regular expression, which needs a group too.
    Regex,
}

/// What combined consists of (ngx_http_log_module.c), in two lines as people write it.
const COMBINED: &str = "'$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent '\n    \
                        '\"$http_referer\" \"$http_user_agent\"";

/// What a field would tell.
fn tells(field: Field) -> &'static str {
    match field {
        Field::Time => "when it happened, to the millisecond; else a line counts when it is read",
        Field::RemoteAddr => "who asked",
        Field::Method | Field::Target => "the route",
        Field::Protocol => "the version of HTTP",
        Field::Status => "errors and their rate",
        Field::BytesSent => "traffic",
        Field::Referer => "where visitors come from",
        Field::Agent => "which programs ask",
        Field::RequestTime => "latency: quantiles, slow routes",
        Field::UpstreamResponseTime => "whether nginx or the application was slow",
        Field::UpstreamStatus => "which attempts failed before one succeeded",
        Field::Vhost => "figures for each virtual host",
        Field::Scheme | Field::Https => "HTTPS told from plain HTTP",
        Field::SslProtocol => "which versions of TLS are in use",
    }
}

/// Lists the fields that lines of this format cannot give, with the cure. `vhost_is_known`: the file tells it.
pub(super) fn missing(
    out: &mut String,
    parsed: &AccessLine<'_>,
    format: &Format,
    vhost_is_known: bool,
    kind: Kind,
) {
    let lacks = |field: &Field| match field {
        // Both come from $scheme, and this is the one that other variables give too.
        Field::Scheme => false,
        Field::Vhost if vhost_is_known => false,
        field if kind == Kind::Json => fields::value(*field, parsed, Escape::None).is_none(),
        field => !format.gives(*field),
    };
    let fields: Vec<Field> = Field::ALL.into_iter().filter(lacks).collect();
    if fields.is_empty() {
        return;
    }
    let place = if kind == Kind::Json { "line" } else { "format" };
    let _ = write!(out, "\nnot in this {place}\n");
    for field in &fields {
        let name = fields::name(*field);
        let _ = writeln!(out, "  {name:<22}{:<25}{}", field.variable(), tells(*field));
    }
    cure(out, &fields, kind, format.line_escape());
}

fn cure(out: &mut String, fields: &[Field], kind: Kind, escape: Escape) {
    let _ = match kind {
        Kind::Combined => write!(
            out,
            "combined cannot be changed; put this into nginx.conf and name it in access_log:\n  \
             log_format watchpost {COMBINED}'\n    '{}';\n",
            as_text(fields)
        ),
        Kind::LogFormat if escape == Escape::Json => {
            write!(out, "put behind the last member of the log_format:\n  {}\n", as_members(fields))
        }
        Kind::LogFormat => write!(out, "put at the end of the log_format:\n  '{}'\n", as_text(fields)),
        Kind::Json => write!(out, "keys that bring them:\n  {}\n", as_members(fields)),
        Kind::Regex => {
            writeln!(out, "log them, and give the regex a group for each: (?<request_time>[0-9.]+)")
        }
    };
}

/// ` request_time="$request_time" host="$host"`: quoted, since lists of upstream attempts have blanks.
fn as_text(fields: &[Field]) -> String {
    fields.iter().fold(String::new(), |mut out, field| {
        let variable = field.variable();
        let _ = write!(out, " {}=\"{variable}\"", variable.trim_start_matches('$'));
        out
    })
}

/// `,"request_time":"$request_time"`: strings, since nginx writes nothing or `-` for what it does not have.
fn as_members(fields: &[Field]) -> String {
    fields.iter().fold(String::new(), |mut out, field| {
        let variable = field.variable();
        let _ = write!(out, ",\"{}\":\"{variable}\"", variable.trim_start_matches('$'));
        out
    })
}

#[cfg(test)]
mod tests {
    use watchpost_parsers::Parser;

    use super::*;

    fn doctored(format: &Format, line: &str, kind: Kind) -> String {
        let mut parser = Parser::new(format.clone());
        let parsed = parser.parse(line.as_bytes()).expect("it parses");
        let mut out = String::new();
        missing(&mut out, &parsed, format, false, kind);
        out
    }

    #[test]
    fn the_format_that_it_gives_has_every_field() {
        let line = r#"a - - [24/Nov/2025:16:00:00 +0000] "GET / HTTP/1.1" 200 1 "-" "-""#;
        let out = doctored(&Format::combined(), line, Kind::Combined);
        assert!(out.contains("$request_time") && out.contains("latency"), "{out}");
        let from = out.find("log_format watchpost").expect("a log_format");
        let format = Format::from_log_format(&out[from..]).expect("it compiles");
        assert_eq!(format.fields().missing().count(), 0, "{out}");
        let longer = format!(
            r#"{line} request_time="0.1" upstream_response_time="0.1, 0.2" upstream_status="502, 200" host="h" scheme="https" ssl_protocol="TLSv1.3""#
        );
        assert_eq!(doctored(&format, &longer, Kind::LogFormat), "", "nothing is left to say");
    }

    #[test]
    fn a_json_format_gets_members() {
        let format = Format::from_log_format(r#"escape=json '{"status":"$status"}'"#).expect("a format");
        let out = doctored(&format, r#"{"status":"200"}"#, Kind::LogFormat);
        assert!(out.contains(r#","msec":"$msec","remote_addr":"$remote_addr""#), "{out}");
        let out = doctored(&Format::json(), r#"{"status":200,"host":"a"}"#, Kind::Json);
        assert!(!out.contains("$host") && !out.contains("$status") && out.contains("$request_time"), "{out}");
    }
}
