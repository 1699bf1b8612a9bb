//! What HTTP says of HTTPS: whether the plain port leads there, and whether visitors are told to stay. One request each, of
//! whose answer the head alone is read.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::{HTTP_PORT, Target};
use crate::facts::{HttpsAnswer, PlainAnswer};

/// For the head of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// A longer head is no head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Characters of a header that are kept.
const VALUE_CHARS_MAX: usize = 512;

/// Asks over the connection of a handshake; `None` where no HTTP comes back.
pub(super) async fn secure(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
) -> Option<HttpsAnswer> {
    let head = timeout(ANSWER_TIMEOUT, ask(stream, "HEAD", host)).await.ok()?.ok()?;
    let status = status(&head)?;
    Some(HttpsAnswer { status, hsts: header(&head, "strict-transport-security") })
}

/// Asks on the plain port of the same host.
pub(super) async fn plain(target: &Target, host: &str) -> PlainAnswer {
    let exchange = async {
        let mut stream = match target.connect(HTTP_PORT).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return PlainAnswer::Closed;
            }
            Err(error) => return PlainAnswer::Unknown(error.to_string()),
        };
        match ask(&mut stream, "GET", host).await {
            Ok(head) if head.is_empty() => PlainAnswer::Closed,
            Ok(head) => match status(&head) {
                Some(status) => PlainAnswer::Answered { status, location: header(&head, "location") },
                None => PlainAnswer::Unknown("the answer is no HTTP".to_owned()),
            },
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => PlainAnswer::Closed,
            Err(error) => PlainAnswer::Unknown(error.to_string()),
        }
    };
    let none = PlainAnswer::Unknown(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
    timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or(none)
}

/// The head of the answer, up to the empty line or to the end.
async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    method: &str,
    host: &str,
) -> std::io::Result<String> {
    let request = format!(
        "{method} / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: watchpost/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    let end = b"\r\n\r\n";
    while !head.windows(end.len()).any(|window| window == end) && head.len() < HEAD_BYTES_MAX {
        match stream.read_buf(&mut head).await {
            Ok(0) => break,
            // Closed without the farewell of TLS.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            read => read?,
        };
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn status(head: &str) -> Option<u16> {
    let mut words = head.strip_prefix("HTTP/1.")?.split([' ', '\r']);
    words.nth(1)?.parse().ok().filter(|status| (100..1000).contains(status))
}

fn header(head: &str, name: &str) -> Option<String> {
    let fields = head.split("\r\n\r\n").next()?.lines().skip(1);
    let mut values = fields.filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().chars().take(VALUE_CHARS_MAX).collect())
    });
    values.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_and_garbage_is_not() {
        let head = "HTTP/1.1 301 Moved\r\nlocation:  https://a/ \r\nX: y\r\n\r\nLocation: body\r\n";
        assert_eq!((status(head), header(head, "Location").as_deref()), (Some(301), Some("https://a/")));
        assert_eq!(header(head, "strict-transport-security"), None);
        assert_eq!(status("HTTP/1.0 200\r\n\r\n"), Some(200));
        for garbage in ["", "SSH-2.0-x\r\n", "HTTP/1.1\r\n", "HTTP/1.1 99999 x\r\n", "HTTP/1.1 abc\r\n"] {
            assert_eq!(status(garbage), None, "{garbage:?}");
        }
        assert_eq!(header("HTTP/1.1 200 OK\r\n\r\nlocation: https://body/", "location"), None);
    }
}
