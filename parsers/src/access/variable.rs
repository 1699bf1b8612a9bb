//! Which nginx variable, JSON key or group name means what: one table.
//!
//! What it owns: the names. What it must never do: read a value; that is `parser.rs`.

use super::Field;
use alloc::vec::Vec;

/// A place for one raw value of a line. Several names may fill one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Slot {
    RemoteAddr,
    Request,
    Method,
    RequestUri,
    Uri,
    Protocol,
    Status,
    BodyBytes,
    Bytes,
    Referer,
    Agent,
    RequestTime,
    RequestTimeMs,
    UpstreamTime,
    UpstreamStatus,
    Host,
    ServerName,
    HttpHost,
    Scheme,
    Https,
    SslProtocol,
    Msec,
    TimeIso8601,
    TimeLocal,
    TimeAny,
}

/// The times, the most exact one first; the first that a line has is taken.
pub(crate) const TIMES: [Slot; 4] = [Slot::Msec, Slot::TimeIso8601, Slot::TimeLocal, Slot::TimeAny];

/// How many slots there are.
pub(crate) const SLOT_COUNT: usize = Slot::TimeAny as usize + 1;

/// What form the values of a slot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Digits,
    Decimal,
    List,
    Flag,
    Local,
    Iso8601,
    /// A time in whichever form.
    Time,
}

/// One known name.
#[derive(Debug)]
pub(crate) struct Name {
    /// As a log_format variable without `$`, a JSON key, or a group of a regex.
    pub(crate) name: &'static str,
    pub(crate) slot: Slot,
    /// Whether nginx has a variable of this name; the others are names that JSON logs and people use.
    pub(crate) nginx: bool,
}

const fn variable(name: &'static str, slot: Slot) -> Name {
    Name { name, slot, nginx: true }
}

const fn common(name: &'static str, slot: Slot) -> Name {
    Name { name, slot, nginx: false }
}

/// All known names. The first entry of a slot is the one that messages use.
pub(crate) const NAMES: &[Name] = &[
    variable("remote_addr", Slot::RemoteAddr),
    common("client_ip", Slot::RemoteAddr),
    common("clientip", Slot::RemoteAddr),
    common("remote_ip", Slot::RemoteAddr),
    common("client", Slot::RemoteAddr),
    common("ip", Slot::RemoteAddr),
    variable("request", Slot::Request),
    variable("request_method", Slot::Method),
    common("method", Slot::Method),
    common("verb", Slot::Method),
    variable("request_uri", Slot::RequestUri),
    common("url", Slot::RequestUri),
    common("target", Slot::RequestUri),
    variable("uri", Slot::Uri),
    variable("document_uri", Slot::Uri),
    common("path", Slot::Uri),
    variable("server_protocol", Slot::Protocol),
    common("protocol", Slot::Protocol),
    common("http_version", Slot::Protocol),
    variable("status", Slot::Status),
    common("status_code", Slot::Status),
    common("response_code", Slot::Status),
    common("code", Slot::Status),
    variable("body_bytes_sent", Slot::BodyBytes),
    common("bytes", Slot::BodyBytes),
    common("size", Slot::BodyBytes),
    common("body_bytes", Slot::BodyBytes),
    variable("bytes_sent", Slot::Bytes),
    variable("http_referer", Slot::Referer),
    common("referer", Slot::Referer),
    common("referrer", Slot::Referer),
    common("http_referrer", Slot::Referer),
    variable("http_user_agent", Slot::Agent),
    common("user_agent", Slot::Agent),
    common("agent", Slot::Agent),
    common("useragent", Slot::Agent),
    common("ua", Slot::Agent),
    variable("request_time", Slot::RequestTime),
    common("rt", Slot::RequestTime),
    common("response_time", Slot::RequestTime),
    common("duration", Slot::RequestTime),
    common("request_time_ms", Slot::RequestTimeMs),
    common("response_time_ms", Slot::RequestTimeMs),
    common("duration_ms", Slot::RequestTimeMs),
    variable("upstream_response_time", Slot::UpstreamTime),
    common("upstream_time", Slot::UpstreamTime),
    common("urt", Slot::UpstreamTime),
    variable("upstream_status", Slot::UpstreamStatus),
    variable("host", Slot::Host),
    common("vhost", Slot::Host),
    variable("server_name", Slot::ServerName),
    variable("http_host", Slot::HttpHost),
    variable("scheme", Slot::Scheme),
    variable("https", Slot::Https),
    variable("ssl_protocol", Slot::SslProtocol),
    common("tls_protocol", Slot::SslProtocol),
    common("tls_version", Slot::SslProtocol),
    variable("msec", Slot::Msec),
    variable("time_iso8601", Slot::TimeIso8601),
    variable("time_local", Slot::TimeLocal),
    common("time", Slot::TimeAny),
    common("timestamp", Slot::TimeAny),
    common("@timestamp", Slot::TimeAny),
    common("ts", Slot::TimeAny),
    common("datetime", Slot::TimeAny),
];

impl Slot {
    /// The form of the values.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Slot::Status | Slot::BodyBytes | Slot::Bytes => Kind::Digits,
            Slot::RequestTime | Slot::RequestTimeMs | Slot::Msec => Kind::Decimal,
            Slot::UpstreamTime | Slot::UpstreamStatus => Kind::List,
            Slot::Https => Kind::Flag,
            Slot::TimeLocal => Kind::Local,
            Slot::TimeIso8601 => Kind::Iso8601,
            Slot::TimeAny => Kind::Time,
            _ => Kind::Text,
        }
    }

    /// The name that messages use.
    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|known| known.slot == self).map_or("", |known| known.name)
    }

    /// The fields of an [`super::AccessLine`] that a value here can give.
    pub(crate) fn gives(self) -> &'static [Field] {
        match self {
            Slot::RemoteAddr => &[Field::RemoteAddr],
            Slot::Request => &[Field::Method, Field::Target, Field::Protocol],
            Slot::Method => &[Field::Method],
            Slot::RequestUri | Slot::Uri => &[Field::Target],
            Slot::Protocol => &[Field::Protocol],
            Slot::Status => &[Field::Status],
            Slot::BodyBytes | Slot::Bytes => &[Field::BytesSent],
            Slot::Referer => &[Field::Referer],
            Slot::Agent => &[Field::Agent],
            Slot::RequestTime | Slot::RequestTimeMs => &[Field::RequestTime],
            Slot::UpstreamTime => &[Field::UpstreamResponseTime],
            Slot::UpstreamStatus => &[Field::UpstreamStatus],
            Slot::Host | Slot::ServerName | Slot::HttpHost => &[Field::Vhost],
            Slot::Scheme => &[Field::Scheme, Field::Https],
            Slot::Https => &[Field::Https],
            Slot::SslProtocol => &[Field::SslProtocol, Field::Https],
            Slot::Msec | Slot::TimeIso8601 | Slot::TimeLocal | Slot::TimeAny => &[Field::Time],
        }
    }
}

/// The slot of an nginx variable, without its `$`.
pub(crate) fn slot_of_variable(name: &str) -> Option<Slot> {
    NAMES.iter().find(|known| known.nginx && known.name == name).map(|known| known.slot)
}

/// The slot of a group of a regex: a variable or a common name.
pub(crate) fn slot_of_name(name: &str) -> Option<Slot> {
    NAMES.iter().find(|known| known.name == name).map(|known| known.slot)
}

/// All names, found by length first: a JSON line asks a dozen times, and few names share a length.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    by_length: Vec<Vec<&'static Name>>,
}

impl Names {
    pub(crate) fn new() -> Names {
        let longest = NAMES.iter().map(|known| known.name.len()).max().unwrap_or(0);
        let mut by_length = alloc::vec![Vec::new(); longest + 1];
        for known in NAMES {
            if let Some(row) = by_length.get_mut(known.name.len()) {
                row.push(known);
            }
        }
        Names { by_length }
    }

    pub(crate) fn find(&self, key: &[u8]) -> Option<&'static Name> {
        self.by_length.get(key.len())?.iter().find(|known| known.name.as_bytes() == key).copied()
    }
}

/// Where a raw value lies: in the line, or decoded in the parser's scratch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) decoded: bool,
    /// Where the value begins in the line, from 1, wherever it lies now.
    pub(crate) column: u32,
}

/// The raw values of one line.
#[derive(Clone, Debug)]
pub(crate) struct Captures([Option<Span>; SLOT_COUNT]);

impl Captures {
    pub(crate) fn new() -> Captures {
        Captures([None; SLOT_COUNT])
    }

    /// Keeps the range of the line for `slot`. Lines are shorter than `LINE_BYTES_MAX`, so every position fits.
    pub(crate) fn set(&mut self, slot: Slot, start: usize, end: usize) {
        if let Some(place) = self.0.get_mut(slot as usize) {
            *place =
                Some(Span { start: start as u32, end: end as u32, decoded: false, column: start as u32 + 1 });
        }
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<Span> {
        self.0.get(slot as usize).copied().flatten()
    }

    /// Every value found, for decoding.
    pub(crate) fn spans_mut(&mut self) -> impl Iterator<Item = &mut Span> {
        self.0.iter_mut().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_once_and_is_found() {
        let names = Names::new();
        for (index, known) in NAMES.iter().enumerate() {
            assert_eq!(
                names.find(known.name.as_bytes()).map(|found| found.slot),
                Some(known.slot),
                "{}",
                known.name
            );
            assert!(
                NAMES[..index].iter().all(|other| other.name != known.name),
                "{} stands twice",
                known.name
            );
            assert!(!known.slot.gives().is_empty());
        }
        assert!(names.find(b"nothing").is_none());
        assert_eq!(slot_of_variable("method"), None);
        assert_eq!(slot_of_name("method"), Some(Slot::Method));
    }
}
