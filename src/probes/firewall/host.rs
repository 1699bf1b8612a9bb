//! What listens and what runs on this host, by what everybody may read: the kernel's table of sockets over netlink
//! (sock_diag(7)), `/proc/net/unix`, and the names of processes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::task::yield_now;

use crate::facts::{Listener, Program};
use crate::sock_diag::{AF_INET, AF_INET6, dump_tcp};

/// Listeners, paths, and kinds of programs that are kept.
const LISTENERS_MAX: usize = 1_000;
const UNIX_SOCKETS_MAX: usize = 1_000;
const PROGRAMS_MAX: usize = 1_000;
/// Processes that are looked at.
const PROCESSES_MAX: usize = 20_000;
/// Processes after which others on this thread have their turn.
const PROCESSES_AT_A_TIME: usize = 64;

/// The bit of the state.
const LISTENING: u32 = 1 << 10;
/// In struct inet_diag_msg.
const PORT_AT: usize = 4;
const ADDRESS_AT: usize = 8;
const UID_AT: usize = 64;
/// `__SO_ACCEPTCON` among the flags of a unix socket.
const ACCEPTS: u32 = 0x1_0000;

/// TCP sockets of this network namespace that listen, each address and port once.
pub(super) fn listeners() -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    dump_tcp(LISTENING, &mut |socket| {
        found.push(listener(socket).ok_or(io::ErrorKind::InvalidData)?);
        Ok(())
    })?;
    found.sort_by_key(|listener| (listener.port, listener.address, listener.uid));
    // With SO_REUSEPORT each worker has a socket of its own.
    found.dedup();
    found.truncate(LISTENERS_MAX);
    Ok(found)
}

fn listener(message: &[u8]) -> Option<Listener> {
    let address: [u8; 16] = message.get(ADDRESS_AT..)?.first_chunk().copied()?;
    let address = match *message.first()? {
        AF_INET => IpAddr::from(Ipv4Addr::from(*address.first_chunk::<4>()?)),
        AF_INET6 => IpAddr::from(Ipv6Addr::from(address)).to_canonical(),
        _ => return None,
    };
    let port = u16::from_be_bytes(*message.get(PORT_AT..)?.first_chunk()?);
    let uid = u32::from_ne_bytes(*message.get(UID_AT..)?.first_chunk()?);
    Some(Listener { address, port, uid, passage: None })
}

/// The paths of unix sockets that listen.
pub(super) fn unix_sockets() -> Vec<String> {
    let text = fs::read("/proc/net/unix").unwrap_or_default();
    listening_paths(&String::from_utf8_lossy(&text))
}

fn listening_paths(text: &str) -> Vec<String> {
    const FLAGS: usize = 3;
    const PATH: usize = 7;
    let path = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let flags = u32::from_str_radix(words.get(FLAGS)?, 16).ok()?;
        (flags & ACCEPTS != 0).then(|| words.get(PATH..)).flatten().map(|path| path.join(" "))
    };
    let paths: BTreeSet<String> =
        text.lines().skip(1).filter_map(path).filter(|path| !path.is_empty()).collect();
    paths.into_iter().take(UNIX_SOCKETS_MAX).collect()
}

/// The programs that run, each with its user once; `None` where `/proc` hides those of others.
pub(super) async fn programs() -> Option<Vec<Program>> {
    let is_hidden = fs::symlink_metadata("/proc/1").is_err();
    let entries = fs::read_dir("/proc").ok().filter(|_| !is_hidden)?;
    let mut found = BTreeSet::new();
    for (index, entry) in entries.flatten().take(PROCESSES_MAX).enumerate() {
        if index % PROCESSES_AT_A_TIME == 0 {
            yield_now().await;
        }
        if !entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let status = fs::read(entry.path().join("status")).unwrap_or_default();
        if let Some(program) = program(&String::from_utf8_lossy(&status))
            && found.len() < PROGRAMS_MAX
        {
            found.insert(program);
        }
    }
    Some(found.into_iter().collect())
}

/// From proc_pid_status(5). A kernel thread has no memory, and is no program.
fn program(status: &str) -> Option<Program> {
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
    field("VmSize:")?;
    const EFFECTIVE: usize = 1;
    let uid = field("Uid:")?.split_ascii_whitespace().nth(EFFECTIVE)?.parse().ok()?;
    Some(Program { name: field("Name:")?.trim().to_owned(), uid })
}

/// Packets of IPv4 that came in and went neither to a socket nor on: what the firewall dropped, mostly.
pub(super) fn discarded() -> Option<u64> {
    discarded_of(&fs::read_to_string("/proc/net/snmp").ok()?)
}

fn discarded_of(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Ip:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |name: &str| {
        let index = names.split_ascii_whitespace().position(|one| one == name)?;
        values.split_ascii_whitespace().nth(index)?.parse::<u64>().ok()
    };
    // The parts of a packet come in one by one, and go on as one.
    let came = (value("InReceives")? + value("ReasmOKs").unwrap_or(0))
        .saturating_sub(value("ReasmReqds").unwrap_or(0));
    Some(came.saturating_sub(value("InDelivers")? + value("ForwDatagrams").unwrap_or(0)))
}

/// Whether the filter of the older iptables is in the kernel, beside nftables.
pub(super) fn has_legacy() -> bool {
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    modules.lines().any(|line| line.starts_with("iptable_filter ") || line.starts_with("ip6table_filter "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_test_is_listed_with_its_user() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            let bound = listener.local_addr().expect("its address");
            let uid = rustix::process::geteuid().as_raw();
            let own = Listener { address: bound.ip(), port: bound.port(), uid, passage: None };
            let found = listeners().expect("the kernel tells");
            assert!(found.contains(&own), "{own:?} is not in {found:?}");
        }
    }

    #[test]
    fn a_message_that_is_cut_or_of_another_family_is_no_listener() {
        assert_eq!(listener(&[AF_INET, 10, 0, 0]), None);
        assert_eq!(listener(&[1; 72]), None);
        let mut whole = [0; 72];
        whole[0] = AF_INET;
        assert!(listener(&whole).is_some());
    }

    #[test]
    fn texts_of_proc_are_read() {
        let unix = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 21 /run/mysqld/mysqld.sock\n\
                    0000000000000000: 00000003 00000000 00000000 0001 03 22 /run/mysqld/mysqld.sock\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 23\n";
        assert_eq!(listening_paths(unix), ["/run/mysqld/mysqld.sock"]);
        let status = "Name:\tmariadbd\nUmask:\t0022\nUid:\t0\t103\t103\t103\nVmSize:\t  100 kB\n";
        assert_eq!(program(status), Some(Program { name: "mariadbd".to_owned(), uid: 103 }));
        assert_eq!(program("Name:\tkthreadd\nUid:\t0\t0\t0\t0\n"), None);
        let snmp =
            "Ip: Forwarding InReceives InDelivers ForwDatagrams ReasmReqds ReasmOKs\nIp: 1 100 60 10 4 2\n";
        assert_eq!(discarded_of(snmp), Some(28));
        assert_eq!(discarded_of("Ip: x\n"), None);
    }
}
