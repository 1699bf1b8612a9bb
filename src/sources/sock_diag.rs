//! TCP sockets by state, asked of the kernel over netlink.
//!
//! `/proc/net/tcp` has the same facts, and costs 3.5 ms of CPU a file on a host with eight GB though
//! it has no connection at all: its reader walks every bucket, and two files do. A dump over
//! `sock_diag` walks them once, ten to twenty times faster, and needs no privilege. See sock_diag(7).

use std::io;

use crate::sock_diag::dump_tcp;

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

/// A bit for each state, which begin at 1. Kernels from 6.8 on know one more, for sockets that have a port and do nothing: they walk
/// through another table for it, and call these sockets closed.
const ASKED_STATES: u32 = ((1 << STATES.len()) - 1) << 1 & !(1 << (TIME_WAIT + 1));

/// Counts the TCP sockets of this network namespace, of both families, but for [`TIME_WAIT`].
pub(super) fn count() -> io::Result<Counts> {
    let mut counts = Counts::default();
    dump_tcp(ASKED_STATES, &mut |socket| add(socket, &mut counts))?;
    Ok(counts)
}

/// Counts one socket. In struct inet_diag_msg the family comes first, then the state.
fn add(socket: &[u8], counts: &mut Counts) -> io::Result<()> {
    let state = socket.get(1).map(|state| usize::from(*state));
    let count = state.and_then(|state| counts.get_mut(state.checked_sub(1)?));
    *count.ok_or(io::ErrorKind::InvalidData)? += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_counted_by_state_and_unknown_states_are_errors() {
        let mut counts = Counts::default();
        for socket in [&[2, 1, 0][..], &[2, 10, 0, 0, 7], &[10, 12]] {
            add(socket, &mut counts).expect("a known state");
        }
        assert_eq!(counts, [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
        for broken in [&[2, 99][..], &[2, 0], &[2], &[]] {
            assert!(add(broken, &mut counts).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn a_listener_and_a_connection_of_this_test_are_among_those_counted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let _client = std::net::TcpStream::connect(listener.local_addr().expect("works")).expect("works");
        let _server = listener.accept().expect("works");
        let counts = count().expect("the kernel tells");
        assert!(counts[0] >= 2 && counts[9] >= 1, "{counts:?}");
    }

    #[test]
    fn a_socket_that_has_a_port_and_does_nothing_is_not_counted_as_closed() {
        use rustix::net::{AddressFamily, SocketType, bind, socket};
        let idle = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&idle, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0)).expect("a port");
        assert_eq!(count().expect("the kernel tells")[6], 0);
    }
}
