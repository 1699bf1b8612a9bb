//! The spelling of vhosts and routes: what a client sent becomes a short, clean name, so that
//! `Example.COM:443` and `example.com.` are one vhost and no byte can break a record.

/// Longest name of a vhost, in bytes before escaping: the longest DNS name.
const VHOST_BYTES_MAX: usize = 253;
/// Longest name of a route, in bytes before escaping.
const ROUTE_BYTES_MAX: usize = 256;
/// The name of all vhosts together in a summary.
pub(super) const ALL: &str = "_all";
/// The name of what has no row of its own.
pub(super) const OTHER: &str = "_other";
/// The name where the log tells none, as nginx writes it.
const NONE: &str = "-";

/// The name of a vhost: lower case, without port and trailing dot. `scratch` is used where the
/// bytes cannot be taken as they stand.
pub(super) fn vhost<'a>(raw: &'a [u8], scratch: &'a mut String) -> &'a str {
    let raw = without_port(raw);
    let raw = raw.strip_suffix(b".").unwrap_or(raw);
    let raw = &raw[..raw.len().min(VHOST_BYTES_MAX)];
    let clean = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
    match std::str::from_utf8(raw) {
        Ok("") => NONE,
        Ok(name) if raw.iter().all(clean) => name,
        _ => {
            escape(raw, scratch, |byte| byte.is_ascii_graphic());
            scratch.make_ascii_lowercase();
            reserved_apart(scratch)
        }
    }
}

/// The name of a route: as the log has it, with broken bytes escaped.
pub(super) fn route<'a>(raw: &'a [u8], scratch: &'a mut String) -> &'a str {
    let mut kept = &raw[..raw.len().min(ROUTE_BYTES_MAX)];
    if kept.len() < raw.len()
        && let Err(error) = std::str::from_utf8(kept)
        && error.error_len().is_none()
    {
        // The cut went through a character.
        kept = &kept[..error.valid_up_to()];
    }
    let raw = kept;
    // Without an early exit, so that it compiles to vectors.
    let has_controls = raw.iter().fold(false, |any, byte| any | (*byte < b' ') | (*byte == 0x7f));
    match std::str::from_utf8(raw) {
        Ok("") => NONE,
        Ok(name) if name != OTHER && !has_controls => name,
        Ok(_) => {
            escape(raw, scratch, |byte| byte >= b' ' && byte != 0x7f && byte < 0x80);
            reserved_apart(scratch)
        }
        Err(_) => {
            escape(raw, scratch, |byte| (b' '..0x7f).contains(&byte));
            reserved_apart(scratch)
        }
    }
}

/// A client may send `Host: _other`; it must not pass for the remainder.
fn reserved_apart(name: &mut String) -> &str {
    if name == ALL || name == OTHER {
        name.replace_range(..1, "\\x5f");
    }
    name
}

/// Strips `:8080` from `name:8080` and `[::1]:8080`, and nothing from `::1`.
fn without_port(raw: &[u8]) -> &[u8] {
    let Some(colon) = memchr::memrchr(b':', raw) else { return raw };
    let (host, port) = (&raw[..colon], &raw[colon + 1..]);
    let plain = !host.contains(&b':') || host.ends_with(b"]");
    if plain && port.iter().all(u8::is_ascii_digit) { host } else { raw }
}

/// Copies the bytes that may stand and writes the others as `\xNN`.
fn escape(raw: &[u8], into: &mut String, stands: impl Fn(u8) -> bool) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    into.clear();
    for &byte in raw {
        if stands(byte) {
            into.push(char::from(byte));
        } else {
            into.push_str("\\x");
            into.push(char::from(HEX[usize::from(byte >> 4)]));
            into.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vhosts_are_spelled_one_way() {
        let check = |raw: &[u8], expected: &str| assert_eq!(vhost(raw, &mut String::new()), expected);
        check(b"example.com", "example.com");
        check(b"Example.COM:443", "example.com");
        check(b"example.com.", "example.com");
        check(b"example.com.:80", "example.com");
        check(b"[::1]:8080", "[::1]");
        check(b"::1", "::1");
        check(b"[2001:DB8::1]", "[2001:db8::1]");
        check(b"a:b", "a:b");
        check(b"", "-");
        check(b":80", "-");
        check(b"-", "-");
        check(b"a b\xff\n", "a\\x20b\\xff\\x0a");
        check(b"_other", "\\x5fother");
        check(b"_ALL", "\\x5fall");
        check(b"my_host", "my_host");
        assert_eq!(vhost(b"", &mut String::new()), "-");
        assert_eq!(vhost(&[b'a'; 9000], &mut String::new()).len(), VHOST_BYTES_MAX);
    }

    #[test]
    fn routes_keep_their_text() {
        let check = |raw: &[u8], expected: &str| assert_eq!(route(raw, &mut String::new()), expected);
        check(b"GET /a/:id", "GET /a/:id");
        check("/caf\u{e9}".as_bytes(), "/caf\u{e9}");
        check(b"/caf\xe9!", "/caf\\xe9!");
        check(b"/a\tb", "/a\\x09b");
        check(b"", "-");
        check(b"_other", "\\x5fother");
        let long = "\u{e9}".repeat(300);
        check(long.as_bytes(), &"\u{e9}".repeat(128));
        check(format!("x{long}").as_bytes(), &format!("x{}", "\u{e9}".repeat(127)));
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_printable_name(raw: Vec<u8>) {
            let mut scratch = String::new();
            let name = vhost(&raw, &mut scratch).to_owned();
            prop_assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(name != ALL && name != OTHER);
            let name = route(&raw, &mut scratch);
            prop_assert!(!name.is_empty() && !name.chars().any(|c| c < ' ') && name != OTHER);
        }
    }
}
