//! Access lines: what a line gives, and the three ways to read one.
//!
//! `variable` has the names, `format` compiles what a user writes, `literal`, `json` and `regex` find the raw values, `parser`
//! turns them into an [`AccessLine`], `unparsed` says why not; `straight` and `combined` are the fast way through the same lines.
//! What it must never do: keep anything of a line after its successor.

mod combined;
mod format;
mod json;
mod literal;
mod log_format;
mod parser;
mod straight;
mod unparsed;
mod variable;

pub use format::{Format, FormatError};
pub use parser::{LINE_BYTES_MAX, Parser};
pub use unparsed::{Expected, Snippet, Unparsed};

/// One request as the web server logged it. What the format or the line does not give, be it absent, empty or `-`, is None.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLine<'a> {
    /// When the request was completed, in milliseconds since 1970: from `$msec`, else `$time_iso8601`, else `$time_local`.
    pub time_ms: Option<i64>,
    /// `$remote_addr`.
    pub remote_addr: Option<&'a [u8]>,
    /// The method of `$request`, else `$request_method`.
    pub method: Option<&'a [u8]>,
    /// The target of `$request` as logged, path and query; else `$request_uri`, else `$uri`.
    pub target: Option<&'a [u8]>,
    /// The protocol of `$request`, else `$server_protocol`. HTTP/0.9 states none.
    pub protocol: Option<&'a [u8]>,
    /// `$status`, 0 to 999: nginx logs 000 and 009 too.
    pub status: Option<u16>,
    /// `$body_bytes_sent`, else `$bytes_sent`, in bytes.
    pub bytes_sent: Option<u64>,
    /// `$http_referer`.
    pub referer: Option<&'a [u8]>,
    /// `$http_user_agent`.
    pub agent: Option<&'a [u8]>,
    /// `$request_time` in milliseconds. With status 101 it is the length of a whole session.
    pub request_time_ms: Option<u64>,
    /// `$upstream_response_time`, a list for [`crate::upstream::Times`].
    pub upstream_response_time: Option<&'a [u8]>,
    /// `$upstream_status`, a list for [`crate::upstream::Statuses`].
    pub upstream_status: Option<&'a [u8]>,
    /// `$host`, else `$server_name`, else `$http_host`. Clients choose two of the three: it is no key to grow a table by.
    pub vhost: Option<&'a [u8]>,
    /// `$scheme`.
    pub scheme: Option<&'a [u8]>,
    /// Whether the client spoke TLS to this server: from `$https`, else `$scheme`, else `$ssl_protocol`.
    pub https: Option<bool>,
    /// `$ssl_protocol`, such as `TLSv1.3`.
    pub ssl_protocol: Option<&'a [u8]>,
}

/// A field of an [`AccessLine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// `time_ms`
    Time,
    /// `remote_addr`
    RemoteAddr,
    /// `method`
    Method,
    /// `target`
    Target,
    /// `protocol`
    Protocol,
    /// `status`
    Status,
    /// `bytes_sent`
    BytesSent,
    /// `referer`
    Referer,
    /// `agent`
    Agent,
    /// `request_time_ms`
    RequestTime,
    /// `upstream_response_time`
    UpstreamResponseTime,
    /// `upstream_status`
    UpstreamStatus,
    /// `vhost`
    Vhost,
    /// `scheme`
    Scheme,
    /// `https`
    Https,
    /// `ssl_protocol`
    SslProtocol,
}

impl Field {
    /// Every field, in the order of [`AccessLine`].
    pub const ALL: [Field; 16] = [
        Field::Time,
        Field::RemoteAddr,
        Field::Method,
        Field::Target,
        Field::Protocol,
        Field::Status,
        Field::BytesSent,
        Field::Referer,
        Field::Agent,
        Field::RequestTime,
        Field::UpstreamResponseTime,
        Field::UpstreamStatus,
        Field::Vhost,
        Field::Scheme,
        Field::Https,
        Field::SslProtocol,
    ];

    /// The nginx variable to add to a log_format, with its `$`, when the field is missing.
    pub fn variable(self) -> &'static str {
        match self {
            Field::Time => "$msec",
            Field::RemoteAddr => "$remote_addr",
            Field::Method => "$request_method",
            Field::Target => "$request_uri",
            Field::Protocol => "$server_protocol",
            Field::Status => "$status",
            Field::BytesSent => "$body_bytes_sent",
            Field::Referer => "$http_referer",
            Field::Agent => "$http_user_agent",
            Field::RequestTime => "$request_time",
            Field::UpstreamResponseTime => "$upstream_response_time",
            Field::UpstreamStatus => "$upstream_status",
            Field::Vhost => "$host",
            Field::Scheme | Field::Https => "$scheme",
            Field::SslProtocol => "$ssl_protocol",
        }
    }
}

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(u32);

impl FieldSet {
    /// Whether `field` is in the set.
    pub fn contains(self, field: Field) -> bool {
        self.0 & (1 << field as u32) != 0
    }

    /// The fields in the set, in the order of [`Field::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(move |field| self.contains(*field))
    }

    /// The fields that are not in the set.
    pub fn missing(self) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(move |field| !self.contains(*field))
    }

    fn insert(&mut self, field: Field) {
        self.0 |= 1 << field as u32;
    }
}

impl FromIterator<Field> for FieldSet {
    fn from_iter<I: IntoIterator<Item = Field>>(fields: I) -> FieldSet {
        let mut set = FieldSet::default();
        fields.into_iter().for_each(|field| set.insert(field));
        set
    }
}

#[cfg(test)]
mod tests;
