//! Who may ask: the method, the names of this port, the origin and the token.
//!
//! A browser on this machine can be made to ask any loopback port. So a request must name the port as it is bound (a
//! rebound DNS name does not) or show the token (which a rebound page does not have), must not come from a page of
//! another origin, and must not change anything. Must never say which part of a credential was wrong.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, Method, Request, StatusCode, header};

use crate::secret::Secret;

/// Paths that need no token: load balancers and supervisors have none, and the answers hold no numbers.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];
/// The user name of the Basic scheme, for browsers, which cannot be told to send a Bearer token.
const BASIC_USER: &str = "watchpost";

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Neither GET nor HEAD.
    Method,
    /// No `Host`, or two.
    NoHost,
    /// `Host` names something else than this port.
    ForeignHost,
    /// A page from elsewhere asks.
    ForeignOrigin,
    /// No token, or a wrong one.
    Unauthorized,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::NoHost => StatusCode::BAD_REQUEST,
            Refusal::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
            Refusal::ForeignOrigin => StatusCode::FORBIDDEN,
            Refusal::Unauthorized => StatusCode::UNAUTHORIZED,
        }
    }

    /// What to do about it, for the person at the other end.
    pub(super) fn cure(self) -> &'static str {
        match self {
            Refusal::Method => "only GET and HEAD are answered here",
            Refusal::NoHost => "a request needs one Host header",
            Refusal::ForeignHost => {
                "Host must name this port as it is bound, such as localhost and its port; \
                 through a tunnel, forward the same port number; with a token any name will do"
            }
            Refusal::ForeignOrigin => "pages from elsewhere get no answer here",
            Refusal::Unauthorized => "this port needs its token (WATCHPOST_STATUS_TOKEN)",
        }
    }
}

/// What opens the port, computed once: each scheme with its credentials.
pub(super) struct Keys {
    accepted: Option<[(&'static str, Secret); 2]>,
}

impl Keys {
    pub(super) fn new(token: Option<&Secret>) -> Keys {
        let accepted = token.map(|token| {
            let basic = base64(format!("{BASIC_USER}:{}", token.expose()).as_bytes());
            [("Bearer", token.clone()), ("Basic", Secret::new(basic))]
        });
        Keys { accepted }
    }

    /// Whether a request shows the token; never where there is none.
    fn are_shown(&self, headers: &HeaderMap) -> bool {
        let Some(accepted) = &self.accepted else { return false };
        let offered = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let Some((offered_scheme, offered)) = offered.and_then(scheme_and_credentials) else { return false };
        // Both are compared whole, so that the time tells nothing of which one was near.
        accepted.iter().fold(false, |open, (scheme, key)| {
            let same = same_in_constant_time(key.expose().as_bytes(), offered);
            open | (same & offered_scheme.eq_ignore_ascii_case(scheme.as_bytes()))
        })
    }
}

/// Checks a request that came in on `local`; `host_name` is what the machine calls itself.
pub(super) fn check<Body>(
    request: &Request<Body>,
    local: SocketAddr,
    host_name: Option<&str>,
    keys: &Keys,
) -> Result<(), Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Refusal::Method);
    }
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Refusal::NoHost) };
    let is_ours =
        |name: &[u8]| std::str::from_utf8(name).is_ok_and(|name| names_port(name, local, host_name));
    // In absolute form the target's authority stands above Host (RFC 9112, 3.2.2); both must be ours.
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let is_named = is_ours(host.as_bytes()) && authority.is_none_or(is_ours);
    let is_shown = keys.are_shown(headers);
    let is_open = OPEN_PATHS.contains(&request.uri().path());
    // Where the port has a token, that is the proof, and Host may be any name by which the operator reaches it. The
    // open paths need no token, so there the name must do.
    let wants_token = keys.accepted.is_some() && !is_open;
    if !is_named && !is_shown && !wants_token {
        return Err(Refusal::ForeignHost);
    }
    // A page under such a name is of the origin that Host says; others stay foreign, whoever holds the token: a
    // browser sends what it has stored along with requests of any page.
    let is_same = |name: &[u8]| is_ours(name) || (is_shown && name.eq_ignore_ascii_case(host.as_bytes()));
    if comes_from_elsewhere(headers, is_same) {
        return Err(Refusal::ForeignOrigin);
    }
    if wants_token && !is_shown {
        return Err(Refusal::Unauthorized);
    }
    Ok(())
}

/// The check, as the fuzz target asks it.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn admits(
    request: &Request<()>,
    local: SocketAddr,
    host_name: Option<&str>,
    token: Option<&str>,
) -> bool {
    check(request, local, host_name, &Keys::new(token.map(Secret::new).as_ref())).is_ok()
}

/// Whether `name` (of a Host header) is a name of the port bound at `local`.
fn names_port(name: &str, local: SocketAddr, host_name: Option<&str>) -> bool {
    /// What a client leaves out of Host and Origin.
    const HTTP_PORT: u16 = 80;
    let (host, port) = match name.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (name, Some(HTTP_PORT)),
    };
    if port != Some(local.port()) {
        return false;
    }
    if host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]" {
        return true;
    }
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let local_ip = local.ip().to_canonical();
    if address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical() == local_ip) {
        return true;
    }
    // A port that others reach is asked by the machine's own name; on loopback nobody needs it.
    !local_ip.is_loopback() && host_name.is_some_and(|own| !own.is_empty() && own.eq_ignore_ascii_case(host))
}

/// Whether a browser says that a page of another origin asks. Other clients send none of these headers.
fn comes_from_elsewhere(headers: &HeaderMap, is_same: impl Fn(&[u8]) -> bool) -> bool {
    let foreign_origin = headers
        .get_all(header::ORIGIN)
        .iter()
        .any(|origin| !origin.as_bytes().strip_prefix(b"http://").is_some_and(&is_same));
    // Requests without CORS carry no Origin, but Fetch Metadata (W3C) tells. Following a link to the page is no theft.
    let value = |name: &str| headers.get(name).map(|value| value.as_bytes());
    let foreign_site = !matches!(value("sec-fetch-site"), None | Some(b"same-origin" | b"none"));
    foreign_origin || (foreign_site && value("sec-fetch-mode") != Some(b"navigate"))
}

/// The parts of an `Authorization` value: the scheme, in any case (RFC 9110, 11.1), one blank or more, the credentials.
fn scheme_and_credentials(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(blank);
    Some((scheme, rest.trim_ascii_start()))
}

/// Compares in a time that depends on the lengths only.
fn same_in_constant_time(left: &[u8], right: &[u8]) -> bool {
    let difference = left.iter().zip(right).fold(0_u8, |sum, (l, r)| std::hint::black_box(sum | (l ^ r)));
    left.len() == right.len() && difference == 0
}

/// Base64 with padding (RFC 4648, 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0_u32, |group, index| {
            group << 8 | u32::from(chunk.get(index).copied().unwrap_or_default())
        });
        for index in 0..4 {
            let sextet = (group >> (18 - 6 * index)) & 0x3f;
            text.push(if index > chunk.len() { '=' } else { ALPHABET[sextet as usize] as char });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_request(local: &str, token: Option<&str>, head: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut request = Request::builder().uri("/status");
        for (name, value) in head {
            request = request.header(*name, *value);
        }
        let keys = Keys::new(token.map(Secret::new).as_ref());
        check(&request.body(()).expect("a request"), local.parse().expect("an address"), Some("web1"), &keys)
    }

    #[test]
    fn the_host_must_be_the_bound_name() {
        let check_host = |local: &str, host: &str, expected: bool| {
            let result = check_request(local, None, &[("host", host)]);
            assert_eq!(
                result,
                if expected { Ok(()) } else { Err(Refusal::ForeignHost) },
                "{host} at {local}"
            );
        };
        for host in ["localhost:7866", "LocalHost:7866", "127.0.0.1:7866", "[::1]:7866"] {
            check_host("127.0.0.1:7866", host, true);
        }
        for host in
            ["evil.example:7866", "localhost", "localhost:80", "127.0.0.1:7867", "web1:7866", "", ":7866"]
        {
            check_host("127.0.0.1:7866", host, false);
        }
        for host in
            ["localhost.evil.example:7866", "[::1", "[::1]7866", "a@localhost:7866", "localhost:+7866x"]
        {
            check_host("127.0.0.1:7866", host, false);
        }
        check_host("10.0.0.5:7866", "10.0.0.5:7866", true);
        check_host("10.0.0.5:7866", "web1:7866", true);
        check_host("[::ffff:10.0.0.5]:7866", "10.0.0.5:7866", true);
        check_host("10.0.0.5:7866", "10.0.0.6:7866", false);
        check_host("127.0.0.1:80", "localhost", true);
        check_host("[::1]:80", "[::1]", true);
    }

    #[test]
    fn pages_from_elsewhere_get_nothing() {
        let check_origin = |head: &[(&str, &str)], expected: Result<(), Refusal>| {
            let mut all = vec![("host", "localhost:7866")];
            all.extend(head);
            assert_eq!(check_request("127.0.0.1:7866", None, &all), expected, "{head:?}");
        };
        check_origin(&[("origin", "http://localhost:7866")], Ok(()));
        check_origin(&[("origin", "http://localhost:3000")], Err(Refusal::ForeignOrigin));
        check_origin(&[("origin", "https://localhost:7866")], Err(Refusal::ForeignOrigin));
        check_origin(&[("origin", "null")], Err(Refusal::ForeignOrigin));
        check_origin(&[("sec-fetch-site", "same-origin")], Ok(()));
        check_origin(
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
            Err(Refusal::ForeignOrigin),
        );
        check_origin(&[("sec-fetch-site", "same-site")], Err(Refusal::ForeignOrigin));
        check_origin(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], Ok(()));
    }

    #[test]
    fn the_token_opens() {
        let check_key = |key: Option<&str>, expected: Result<(), Refusal>| {
            let mut head = vec![("host", "localhost:7866")];
            head.extend(key.map(|key| ("authorization", key)));
            assert_eq!(check_request("127.0.0.1:7866", Some("s3cret!"), &head), expected, "{key:?}");
        };
        check_key(Some("Bearer s3cret!"), Ok(()));
        check_key(Some("Basic d2F0Y2hwb3N0OnMzY3JldCE="), Ok(()));
        check_key(Some("bearer s3cret!"), Ok(()));
        check_key(Some("BASIC  d2F0Y2hwb3N0OnMzY3JldCE="), Ok(()));
        for wrong in [
            "Bearer s3cret?",
            "Bearer s3cret",
            "Bearer s3cret!!",
            "Bearer S3CRET!",
            "Bearer ",
            "s3cret!",
            " s3cret!",
            "Basic s3cret!",
            "Bearer d2F0Y2hwb3N0OnMzY3JldCE=",
            "Basic czNjcmV0IQ==",
        ] {
            check_key(Some(wrong), Err(Refusal::Unauthorized));
        }
        check_key(None, Err(Refusal::Unauthorized));
    }

    /// A rebound page does not know the token, so whoever shows it may call the port as he likes.
    #[test]
    fn with_the_token_any_name_will_do() {
        const SHOWN: (&str, &str) = ("authorization", "Bearer s3cret!");
        const FOREIGN: (&str, &str) = ("host", "web1.corp.example");
        let check_head = |token: Option<&str>, head: &[(&str, &str)], expected: Result<(), Refusal>| {
            assert_eq!(check_request("10.0.0.5:7866", token, head), expected, "{token:?} {head:?}");
        };
        check_head(Some("s3cret!"), &[FOREIGN, SHOWN], Ok(()));
        check_head(Some("s3cret!"), &[FOREIGN], Err(Refusal::Unauthorized));
        check_head(Some("other"), &[FOREIGN, SHOWN], Err(Refusal::Unauthorized));
        check_head(None, &[FOREIGN, SHOWN], Err(Refusal::ForeignHost));
        let own_page = ("origin", "http://WEB1.corp.example");
        check_head(Some("s3cret!"), &[FOREIGN, SHOWN, own_page], Ok(()));
        check_head(Some("s3cret!"), &[FOREIGN, own_page], Err(Refusal::ForeignOrigin));
        for page in ["http://evil.example", "null", "https://web1.corp.example"] {
            check_head(Some("s3cret!"), &[FOREIGN, SHOWN, ("origin", page)], Err(Refusal::ForeignOrigin));
        }
        check_head(
            Some("s3cret!"),
            &[FOREIGN, SHOWN, ("sec-fetch-site", "cross-site")],
            Err(Refusal::ForeignOrigin),
        );
        check_head(Some("s3cret!"), &[FOREIGN, FOREIGN, SHOWN], Err(Refusal::NoHost));
    }

    #[test]
    fn two_hosts_or_none_are_refused() {
        assert_eq!(check_request("127.0.0.1:7866", None, &[]), Err(Refusal::NoHost));
        let two = [("host", "localhost:7866"), ("host", "localhost:7866")];
        assert_eq!(check_request("127.0.0.1:7866", None, &two), Err(Refusal::NoHost));
    }

    #[test]
    fn base64_of_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
