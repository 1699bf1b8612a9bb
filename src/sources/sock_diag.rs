//! TCP sockets by state, asked of the kernel over netlink.
//!
//! `/proc/net/tcp` has the same facts, and costs 3.5 ms of CPU a file on a host with eight GB though
//! it has no connection at all: its reader walks every bucket, and two files do. A dump over
//! `sock_diag` walks them five to ten times faster and needs no privilege. See sock_diag(7).

use std::io;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// The states, in the kernel's order from 1 (include/net/tcp_states.h), in OpenTelemetry's words.
/// The last is a connection whose handshake is under way, of which `SYN_RECV` is the older form.
pub(super) const STATES: [&str; 12] = [
    "established",
    "syn_sent",
    "syn_received",
    "fin_wait_1",
    "fin_wait_2",
    "time_wait",
    "closed",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "syn_received",
];

/// The place of `time_wait` in [`STATES`]. It is not asked for: a busy server has more of these than
/// of all others, and `/proc/net/sockstat` tells their number at no cost.
pub(super) const TIME_WAIT: usize = 5;

/// Sockets in each state, in the order of [`STATES`].
pub(super) type Counts = [u64; STATES.len()];

/// The kernel answers at once; this is for a kernel that does not.
const ANSWER_WAIT_MAX: Duration = Duration::from_millis(500);
/// The kernel fills at most 32 KiB at a time.
const BUFFER_BYTES: usize = 64 << 10;

const HEADER_BYTES: usize = 16; // struct nlmsghdr
const REQUEST_BYTES: usize = 56; // struct inet_diag_req_v2
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
/// A bit for each state, which begin at 1.
const ASKED_STATES: u32 = !(1 << (TIME_WAIT + 1));
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Counts the TCP sockets of this network namespace, of both families, but for [`TIME_WAIT`].
pub(super) fn count() -> io::Result<Counts> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WAIT_MAX))?;
    let mut counts = Counts::default();
    let mut buffer = vec![0_u8; BUFFER_BYTES];
    for family in [AF_INET, AF_INET6] {
        send(&socket, &request(family), SendFlags::empty())?;
        loop {
            let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
            if add(&buffer[..length], &mut counts)? {
                break;
            }
        }
    }
    Ok(counts)
}

fn request(family: u8) -> [u8; HEADER_BYTES + REQUEST_BYTES] {
    let mut bytes = [0; HEADER_BYTES + REQUEST_BYTES];
    bytes[0..4].copy_from_slice(&((HEADER_BYTES + REQUEST_BYTES) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    bytes[HEADER_BYTES] = family;
    bytes[HEADER_BYTES + 1] = IPPROTO_TCP;
    bytes[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&ASKED_STATES.to_ne_bytes());
    bytes
}

/// Adds the sockets in one answer; true when it was the last.
fn add(mut bytes: &[u8], counts: &mut Counts) -> io::Result<bool> {
    while let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let payload = bytes.get(HEADER_BYTES..length).ok_or(io::ErrorKind::InvalidData)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return Err(kernel_error(payload)),
            SOCK_DIAG_BY_FAMILY => {
                // struct inet_diag_msg: the family, then the state.
                let state = payload.get(1).map(|state| usize::from(*state));
                let count = state.and_then(|state| counts.get_mut(state.checked_sub(1)?));
                *count.ok_or(io::ErrorKind::InvalidData)? += 1;
            }
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The error in struct nlmsgerr: a negative errno.
fn kernel_error(payload: &[u8]) -> io::Error {
    match payload.first_chunk::<4>() {
        Some(code) => io::Error::from_raw_os_error(i32::from_ne_bytes(*code).saturating_neg()),
        None => io::ErrorKind::InvalidData.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = HEADER_BYTES + payload.len();
        let mut bytes = (length as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(payload);
        bytes.resize(length.next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn counts_messages_by_state() {
        let mut counts = Counts::default();
        let answer = [
            message(SOCK_DIAG_BY_FAMILY, &[AF_INET, 1, 0]),
            message(SOCK_DIAG_BY_FAMILY, &[AF_INET, 10, 0, 0, 7]),
            message(SOCK_DIAG_BY_FAMILY, &[AF_INET, 12]),
        ];
        assert!(!add(&answer.concat(), &mut counts).expect("works"));
        assert_eq!(counts, [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
        assert!(add(&message(NLMSG_DONE, &[0; 4]), &mut counts).expect("works"));
    }

    #[test]
    fn a_broken_answer_is_an_error() {
        let mut counts = Counts::default();
        let refusal = message(NLMSG_ERROR, &(-13_i32).to_ne_bytes());
        assert_eq!(add(&refusal, &mut counts).expect_err("is an error").raw_os_error(), Some(13));
        assert!(add(&message(NLMSG_ERROR, &[]), &mut counts).is_err());
        assert!(add(&message(SOCK_DIAG_BY_FAMILY, &[AF_INET, 99]), &mut counts).is_err());
        assert!(add(&message(SOCK_DIAG_BY_FAMILY, &[AF_INET, 0]), &mut counts).is_err());
        assert!(add(&[8, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &mut counts).is_err());
        assert!(add(&[255; 20], &mut counts).is_err());
    }

    #[test]
    fn a_listener_and_a_connection_of_this_test_are_among_those_counted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let _client = std::net::TcpStream::connect(listener.local_addr().expect("works")).expect("works");
        let _server = listener.accept().expect("works");
        let counts = count().expect("the kernel tells");
        assert!(counts[0] >= 2 && counts[9] >= 1, "{counts:?}");
    }
}
