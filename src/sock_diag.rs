//! The kernel's table of TCP sockets, over netlink: one question, an answer a socket. See sock_diag(7).
//!
//! Below sources and probes, since both ask. It needs no privilege; what a socket's message says is for the caller.

use std::io;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// IPv4, as the first byte of a message.
pub const AF_INET: u8 = 2;
/// IPv6.
pub const AF_INET6: u8 = 10;

/// The kernel answers at once; this is for a kernel that does not.
const ANSWER_WAIT_MAX: Duration = Duration::from_millis(500);
/// The kernel fills at most 32 KiB at a time.
const BUFFER_BYTES: usize = 64 << 10;

const HEADER_BYTES: usize = 16; // struct nlmsghdr
const REQUEST_BYTES: usize = 60; // struct inet_diag_req
const STATES_AT: usize = 52;
/// The older question, for the sockets of both families at once: the newer one names a family, and for each the kernel walks its
/// whole table.
const TCPDIAG_GETSOCK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;

/// Hands `each` the `struct inet_diag_msg` of every TCP socket of this network namespace, of both families, that is in one of
/// the asked `states`: a bit each, which begin at 1 (include/net/tcp_states.h).
///
/// # Errors
/// When the kernel refuses, does not answer in time, or answers in another form; and what `each` gives.
pub fn dump_tcp(states: u32, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WAIT_MAX))?;
    let mut buffer = vec![0_u8; BUFFER_BYTES];
    send(&socket, &request(states), SendFlags::empty())?;
    loop {
        let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if take(&buffer[..length], each)? {
            return Ok(());
        }
    }
}

fn request(states: u32) -> [u8; HEADER_BYTES + REQUEST_BYTES] {
    let mut bytes = [0; HEADER_BYTES + REQUEST_BYTES];
    bytes[0..4].copy_from_slice(&((HEADER_BYTES + REQUEST_BYTES) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&TCPDIAG_GETSOCK.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    let states_at = HEADER_BYTES + STATES_AT;
    bytes[states_at..states_at + 4].copy_from_slice(&states.to_ne_bytes());
    bytes
}

/// Hands over the sockets in one answer; true when it was the last.
fn take(mut bytes: &[u8], each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
    while let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let payload = bytes.get(HEADER_BYTES..length).ok_or(io::ErrorKind::InvalidData)?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return Err(kernel_error(payload)),
            TCPDIAG_GETSOCK => each(payload)?,
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
    fn every_socket_of_an_answer_is_handed_over() {
        let mut seen = Vec::new();
        let mut each = |socket: &[u8]| {
            seen.push(socket.to_vec());
            Ok(())
        };
        let answer =
            [message(TCPDIAG_GETSOCK, &[AF_INET, 1, 0]), message(TCPDIAG_GETSOCK, &[AF_INET6, 10, 0, 0, 7])];
        assert!(!take(&answer.concat(), &mut each).expect("works"));
        assert!(take(&message(NLMSG_DONE, &[0; 4]), &mut each).expect("works"));
        assert_eq!(seen, [vec![AF_INET, 1, 0], vec![AF_INET6, 10, 0, 0, 7]]);
    }

    #[test]
    fn a_broken_answer_is_an_error() {
        let mut each = |_: &[u8]| Ok(());
        let refusal = message(NLMSG_ERROR, &(-13_i32).to_ne_bytes());
        assert_eq!(take(&refusal, &mut each).expect_err("is an error").raw_os_error(), Some(13));
        assert!(take(&message(NLMSG_ERROR, &[]), &mut each).is_err());
        assert!(take(&[8, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &mut each).is_err());
        assert!(take(&[255; 20], &mut each).is_err());
        let mut refuse = |_: &[u8]| Err(io::ErrorKind::InvalidData.into());
        assert!(take(&message(TCPDIAG_GETSOCK, &[AF_INET, 99]), &mut refuse).is_err());
    }
}
