//! Counts of requests by status class: the one shape that a second, an interval and the totals
//! share, so that what is added to one is added the same way to all.

use serde::Serialize;

use super::state::{Decoder, Encoder};

/// 1xx to 5xx, then everything else (nginx prints 000 and 009 too).
const CLASSES: usize = 6;
/// Where 5xx stands.
const SERVER_ERROR: usize = 4;
/// Where the statuses outside of 100 to 599 stand.
const OTHER: usize = 5;

/// Switching protocols: the line of a WebSocket, written when it ends, with its whole life as
/// request time.
pub(super) const SWITCHING_PROTOCOLS: u16 = 101;
/// nginx's own code for a client that closed the connection before the answer.
const CLIENT_CLOSED: u16 = 499;

/// Requests by status class. The classes sum to the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatusCounts {
    /// 100 to 199.
    #[serde(rename = "1xx")]
    pub informational: u64,
    /// 200 to 299.
    #[serde(rename = "2xx")]
    pub success: u64,
    /// 300 to 399.
    #[serde(rename = "3xx")]
    pub redirection: u64,
    /// 400 to 499.
    #[serde(rename = "4xx")]
    pub client_error: u64,
    /// 500 to 599: what the error rate counts.
    #[serde(rename = "5xx")]
    pub server_error: u64,
    /// Anything else, such as 000 and 009.
    pub other: u64,
}

/// What is counted of requests, whatever the span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    classes: [u64; CLASSES],
    switched: u64,
    client_closed: u64,
    bytes_sent: u64,
}

/// Whether a status is an error of the server, as OpenTelemetry has it: 4xx is not.
pub(super) fn is_error(status: u16) -> bool {
    status / 100 == 5
}

impl Counts {
    /// Adds one request.
    #[inline]
    pub(super) fn add(&mut self, status: u16, bytes_sent: u64) {
        let class = match status / 100 {
            class @ 1..=5 => usize::from(class) - 1,
            _ => OTHER,
        };
        self.classes[class] += 1;
        self.switched += u64::from(status == SWITCHING_PROTOCOLS);
        self.client_closed += u64::from(status == CLIENT_CLOSED);
        self.bytes_sent = self.bytes_sent.saturating_add(bytes_sent);
    }

    /// Adds the counts of another span.
    pub(super) fn merge(&mut self, other: &Counts) {
        for (mine, theirs) in self.classes.iter_mut().zip(other.classes) {
            *mine += theirs;
        }
        self.switched += other.switched;
        self.client_closed += other.client_closed;
        self.bytes_sent = self.bytes_sent.saturating_add(other.bytes_sent);
    }

    /// All requests.
    pub(super) fn requests(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Requests that ended in 5xx.
    pub(super) fn errors(&self) -> u64 {
        self.classes[SERVER_ERROR]
    }

    /// Requests that ended in 101.
    pub(super) fn switched(&self) -> u64 {
        self.switched
    }

    /// Requests that ended in 499.
    pub(super) fn client_closed(&self) -> u64 {
        self.client_closed
    }

    /// Bytes sent to clients.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// The classes by name.
    pub(super) fn status(&self) -> StatusCounts {
        let [informational, success, redirection, client_error, server_error, other] = self.classes;
        StatusCounts { informational, success, redirection, client_error, server_error, other }
    }

    pub(super) fn encode(&self, encoder: &mut Encoder) {
        for class in self.classes {
            encoder.unsigned(class);
        }
        encoder.unsigned(self.switched).unsigned(self.client_closed).unsigned(self.bytes_sent);
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Option<Counts> {
        let mut counts = Counts::default();
        for class in &mut counts.classes {
            *class = decoder.count()?;
        }
        counts.switched = decoder.count()?;
        counts.client_closed = decoder.count()?;
        counts.bytes_sent = decoder.count()?;
        Some(counts)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed expectation is a failed test
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_class() {
        let mut counts = Counts::default();
        for status in [0, 9, 99, 101, 200, 304, 404, 499, 500, 599, 600, u16::MAX] {
            counts.add(status, 10);
        }
        assert_eq!(
            counts.status(),
            StatusCounts {
                informational: 1,
                success: 1,
                redirection: 1,
                client_error: 2,
                server_error: 2,
                other: 5
            }
        );
        assert_eq!((counts.requests(), counts.errors(), counts.bytes_sent()), (12, 2, 120));
        assert_eq!((counts.switched(), counts.client_closed()), (1, 1));
        let mut encoder = Encoder::new();
        counts.encode(&mut encoder);
        let bytes = encoder.finish();
        assert_eq!(Counts::decode(&mut Decoder::new(&bytes).unwrap()), Some(counts));
    }
}
