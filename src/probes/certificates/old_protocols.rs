//! Whether a server still speaks TLS 1.0 or 1.1: a ClientHello made by hand that offers one version alone.
//!
//! rustls speaks neither, and a configuration proves nothing, since the library below may refuse what it lists. A server that
//! goes through with its whole part, up to ServerHelloDone (RFC 4346, section 7.3), speaks the version; nothing is sent then.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::Target;
use crate::facts::OldProtocol;

/// The versions by their names and numbers on the wire.
pub(super) const VERSIONS: [(&str, u8); 2] = [("TLSv1.0", 1), ("TLSv1.1", 2)];

/// For the server to go through with its part.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Of a chain of certificates there is no more.
const ANSWER_BYTES_MAX: usize = 128 << 10;

/// Everything of TLS 1.0 that servers choose: ECDHE, DHE and RSA with AES or 3DES, and "no renegotiation".
const CIPHERS: [u16; 13] =
    [0xC009, 0xC00A, 0xC013, 0xC014, 0x0033, 0x0039, 0x002F, 0x0035, 0xC008, 0xC012, 0x0016, 0x000A, 0x00FF];
/// x25519, secp256r1, secp384r1, secp521r1.
const GROUPS: [u16; 4] = [29, 23, 24, 25];

const RECORD_HEADER_BYTES: usize = 5;
const MESSAGE_HEADER_BYTES: usize = 4;
const RECORD_ALERT: u8 = 21;
const RECORD_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const SERVER_HELLO_DONE: u8 = 14;
const MAJOR: u8 = 3;

/// Offers one version alone.
pub(super) async fn ask(target: &Target, name: Option<&str>, minor: u8) -> OldProtocol {
    match timeout(ANSWER_TIMEOUT, exchange(target, name, minor)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => OldProtocol::Unknown(error.to_string()),
        Err(_) => OldProtocol::Unknown(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
    }
}

async fn exchange(target: &Target, name: Option<&str>, minor: u8) -> std::io::Result<OldProtocol> {
    let mut stream = target.connect(target.port).await?;
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    stream.write_all(&client_hello(minor, name, &random)).await?;
    let mut answer = Vec::new();
    loop {
        if let Some(verdict) = judge(&answer, minor) {
            return Ok(verdict);
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Ok(OldProtocol::Unknown(format!("more than {ANSWER_BYTES_MAX} bytes without an end")));
        }
        match stream.read_buf(&mut answer).await {
            // Closed without a word, as some servers refuse.
            Ok(0) => return Ok(OldProtocol::Refused),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return Ok(OldProtocol::Refused);
            }
            read => read?,
        };
    }
}

fn client_hello(minor: u8, name: Option<&str>, random: &[u8; 32]) -> Vec<u8> {
    let list = |values: &[u16]| values.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<u8>>();
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let entry = [&[0], sized16(name.as_bytes()).as_slice()].concat();
        extensions.extend(extension(0, &sized16(&entry)));
    }
    extensions.extend(extension(10, &sized16(&list(&GROUPS))));
    extensions.extend(extension(11, &[1, 0]));
    let body = [
        [MAJOR, minor].as_slice(),
        random,
        // No session.
        &[0],
        &sized16(&list(&CIPHERS)),
        // No compression.
        &[1, 0],
        &sized16(&extensions),
    ]
    .concat();
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[CLIENT_HELLO], &length[1..], &body].concat();
    [&[RECORD_HANDSHAKE, MAJOR, 1], sized16(&message).as_slice()].concat()
}

fn sized16(bytes: &[u8]) -> Vec<u8> {
    [(bytes.len() as u16).to_be_bytes().as_slice(), bytes].concat()
}

fn extension(kind: u16, bytes: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().as_slice(), &sized16(bytes)].concat()
}

/// What an answer says so far; `None` where more must come.
fn judge(answer: &[u8], minor: u8) -> Option<OldProtocol> {
    let mut messages = Vec::new();
    let mut rest = answer;
    while let Some((header, behind)) = rest.split_first_chunk::<RECORD_HEADER_BYTES>() {
        let [kind, major, _, length @ ..] = *header;
        if major != MAJOR || !matches!(kind, RECORD_ALERT | RECORD_HANDSHAKE) {
            return Some(OldProtocol::Unknown("the answer is no TLS".to_owned()));
        }
        if kind == RECORD_ALERT {
            return Some(OldProtocol::Refused);
        }
        let Some((record, next)) = behind.split_at_checked(usize::from(u16::from_be_bytes(length))) else {
            break;
        };
        messages.extend_from_slice(record);
        rest = next;
    }
    let mut rest = messages.as_slice();
    let mut is_first = true;
    while let Some((header, behind)) = rest.split_first_chunk::<MESSAGE_HEADER_BYTES>() {
        let [kind, high, middle, low] = *header;
        let (body, next) = behind.split_at_checked(u32::from_be_bytes([0, high, middle, low]) as usize)?;
        match (is_first, kind) {
            (true, SERVER_HELLO) if body.starts_with(&[MAJOR, minor]) => {}
            (true, SERVER_HELLO) => return Some(OldProtocol::Refused),
            (true, _) => return Some(OldProtocol::Unknown("the answer is no ServerHello".to_owned())),
            (false, SERVER_HELLO_DONE) => return Some(OldProtocol::Accepted),
            (false, _) => {}
        }
        is_first = false;
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind, 3, 1], sized16(body).as_slice()].concat()
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind, 0, 0, body.len() as u8], body].concat()
    }

    #[test]
    fn a_hello_offers_one_version_and_has_its_lengths_right() {
        let hello = client_hello(1, Some("a.example"), &[7; 32]);
        assert_eq!(hello[..3], [22, 3, 1]);
        assert_eq!(usize::from(u16::from_be_bytes([hello[3], hello[4]])), hello.len() - 5);
        assert_eq!(hello[5], 1);
        assert_eq!(usize::from(u16::from_be_bytes([hello[7], hello[8]])), hello.len() - 9);
        assert_eq!(hello[9..11], [3, 1]);
        assert!(hello.windows(9).any(|part| part == b"a.example"));
        assert!(client_hello(2, None, &[7; 32]).len() < hello.len());
    }

    #[test]
    fn an_answer_counts_once_the_server_went_through_with_it() {
        let hello = message(SERVER_HELLO, &[3, 1, 0, 0]);
        let whole = [hello.clone(), message(11, &[1; 200]), message(SERVER_HELLO_DONE, &[])].concat();
        let one = record(22, &whole);
        assert_eq!(judge(&one, 1), Some(OldProtocol::Accepted));
        let split = [record(22, &whole[..7]), record(22, &whole[7..])].concat();
        assert_eq!(judge(&split, 1), Some(OldProtocol::Accepted));
        for cut in 0..split.len() {
            assert_eq!(judge(&split[..cut], 1), None, "{cut} bytes");
        }
        // Of another version, refused at once, and refused when the key would have been exchanged.
        assert_eq!(judge(&one, 2), Some(OldProtocol::Refused));
        assert_eq!(judge(&record(RECORD_ALERT, &[2, 70]), 1), Some(OldProtocol::Refused));
        let late = [record(22, &hello), record(RECORD_ALERT, &[2, 40])].concat();
        assert_eq!(judge(&late, 1), Some(OldProtocol::Refused));
        for garbage in [b"HTTP/1.1 400 Bad Request\r\n".as_slice(), &record(22, &message(11, &[]))] {
            assert!(matches!(judge(garbage, 1), Some(OldProtocol::Unknown(_))));
        }
    }
}
