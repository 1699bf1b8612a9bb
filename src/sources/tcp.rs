//! TCP: connections by state, retransmissions, resets, and connections that a full queue turned away.
//!
//! Counts from the text of `/proc/net/snmp`, `netstat` and `sockstat`; states from the kernel over
//! netlink (sock_diag.rs), `time_wait` apart, which `sockstat` has. sysinfo has none of it.

use std::io;

use super::proc_file;
use super::sock_diag::{self, STATES};
use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

const SNMP_PATH: &str = "/proc/net/snmp";
const NETSTAT_PATH: &str = "/proc/net/netstat";
const SOCKSTAT_PATH: &str = "/proc/net/sockstat";
const SOCKSTAT6_PATH: &str = "/proc/net/sockstat6";
/// With more sockets than this, those in `time_wait` apart, the states are not counted: a dump of
/// them costs about a microsecond each.
const SOCKETS_MAX: u64 = 10_000;

static CONNECTIONS: Metric = Metric::gauge(
    "system.network.connection.count",
    "{connection}",
    "node_tcp_connection_states",
    "TCP sockets in each state, in OpenTelemetry's words for states",
)
.by(&["network.connection.state"], &["state"]);
static SKIPPED: Metric = Metric::gauge(
    "watchpost.tcp.states_skipped",
    "1",
    "watchpost_tcp_states_skipped",
    "1 while there are too many sockets to count them by state at a low cost, time_wait apart; else 0",
);

static CURRENT: Metric = Metric::gauge(
    "watchpost.tcp.connections",
    "{connection}",
    "node_netstat_Tcp_CurrEstab",
    "Connections that are established or that the other side has closed",
);
static OPENED_HERE: Metric = Metric::counter(
    "watchpost.tcp.opened.active",
    "{connection}",
    "node_netstat_Tcp_ActiveOpens",
    "Connections that this host began",
);
static OPENED_THERE: Metric = Metric::counter(
    "watchpost.tcp.opened.passive",
    "{connection}",
    "node_netstat_Tcp_PassiveOpens",
    "Connections that others began with this host",
);
static FAILED: Metric = Metric::counter(
    "watchpost.tcp.failed",
    "{connection}",
    "node_netstat_Tcp_AttemptFails",
    "Connections that failed before they were established",
);
static RESET: Metric = Metric::counter(
    "watchpost.tcp.resets",
    "{connection}",
    "node_netstat_Tcp_EstabResets",
    "Connections that were reset while established",
);
static RESETS_SENT: Metric = Metric::counter(
    "watchpost.tcp.resets.sent",
    "{segment}",
    "node_netstat_Tcp_OutRsts",
    "Resets that this host sent",
);
static SEGMENTS_IN: Metric = Metric::counter(
    "watchpost.tcp.segments.received",
    "{segment}",
    "node_netstat_Tcp_InSegs",
    "Segments received",
);
static SEGMENTS_OUT: Metric = Metric::counter(
    "watchpost.tcp.segments.sent",
    "{segment}",
    "node_netstat_Tcp_OutSegs",
    "Segments sent, without retransmissions",
);
static RETRANSMITS: Metric = Metric::counter(
    "watchpost.tcp.retransmits",
    "{segment}",
    "node_netstat_Tcp_RetransSegs",
    "Segments sent again for want of an answer",
);
static LISTEN_OVERFLOWS: Metric = Metric::counter(
    "watchpost.tcp.listen.overflows",
    "{connection}",
    "node_netstat_TcpExt_ListenOverflows",
    "Connections turned away since the queue of their listener was full",
);
static LISTEN_DROPS: Metric = Metric::counter(
    "watchpost.tcp.listen.drops",
    "{connection}",
    "node_netstat_TcpExt_ListenDrops",
    "Connections turned away by a listener for any reason",
);
static SYN_COOKIES: Metric = Metric::counter(
    "watchpost.tcp.syn_cookies.sent",
    "{connection}",
    "node_netstat_TcpExt_SyncookiesSent",
    "Connections answered with a cookie since the queue of handshakes was full",
);
static TIMEOUTS: Metric = Metric::counter(
    "watchpost.tcp.timeouts",
    "{timeout}",
    "node_netstat_TcpExt_TCPTimeouts",
    "Retransmission timers that ran out",
);
static SOCKETS_USED: Metric = Metric::gauge(
    "watchpost.sockets.used",
    "{socket}",
    "node_sockstat_sockets_used",
    "Sockets of every kind",
);
static IN_USE: Metric = Metric::gauge(
    "watchpost.tcp.sockets.in_use",
    "{socket}",
    "node_sockstat_TCP_inuse",
    "TCP sockets over IPv4 that are not waiting to vanish",
);
static ORPHANS: Metric = Metric::gauge(
    "watchpost.tcp.sockets.orphan",
    "{socket}",
    "node_sockstat_TCP_orphan",
    "TCP sockets that no process holds any more",
);
static TIME_WAIT: Metric = Metric::gauge(
    "watchpost.tcp.sockets.time_wait",
    "{socket}",
    "node_sockstat_TCP_tw",
    "TCP sockets that wait for stray segments before they vanish",
);
static ALLOCATED: Metric = Metric::gauge(
    "watchpost.tcp.sockets.allocated",
    "{socket}",
    "node_sockstat_TCP_alloc",
    "TCP sockets that the kernel holds in memory",
);
static MEMORY: Metric = Metric::gauge(
    "watchpost.tcp.memory",
    "By",
    "node_sockstat_TCP_mem_bytes",
    "Memory in the buffers of TCP sockets",
);

/// What `snmp` and `netstat` count. node_exporter's names end in the kernel's group and name, which
/// is where these are looked up.
const NETSTAT: [&Metric; 13] = [
    &CURRENT,
    &OPENED_HERE,
    &OPENED_THERE,
    &FAILED,
    &RESET,
    &RESETS_SENT,
    &SEGMENTS_IN,
    &SEGMENTS_OUT,
    &RETRANSMITS,
    &LISTEN_OVERFLOWS,
    &LISTEN_DROPS,
    &SYN_COOKIES,
    &TIMEOUTS,
];
/// The groups and names of `sockstat`.
const SOCKSTAT: [(&str, &str, &Metric); 6] = [
    ("sockets:", "used", &SOCKETS_USED),
    ("TCP:", "inuse", &IN_USE),
    ("TCP:", "orphan", &ORPHANS),
    ("TCP:", "tw", &TIME_WAIT),
    ("TCP:", "alloc", &ALLOCATED),
    ("TCP:", "mem", &MEMORY),
];

pub(super) static SPEC: Spec = Spec {
    name: "tcp",
    help: "TCP connections by state, retransmissions, resets, full listen queues",
    metrics: &[
        &CONNECTIONS,
        &SKIPPED,
        &CURRENT,
        &OPENED_HERE,
        &OPENED_THERE,
        &FAILED,
        &RESET,
        &RESETS_SENT,
        &SEGMENTS_IN,
        &SEGMENTS_OUT,
        &RETRANSMITS,
        &LISTEN_OVERFLOWS,
        &LISTEN_DROPS,
        &SYN_COOKIES,
        &TIMEOUTS,
        &SOCKETS_USED,
        &IN_USE,
        &ORPHANS,
        &TIME_WAIT,
        &ALLOCATED,
        &MEMORY,
    ],
    make: || Box::new(Tcp),
};

struct Tcp;

impl Source for Tcp {
    fn sample(&mut self, _: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        push_netstat(&proc_file::read(SNMP_PATH)?, out);
        push_netstat(&proc_file::read(NETSTAT_PATH)?, out);
        let sockstat = proc_file::read(SOCKSTAT_PATH)?;
        push_sockstat(&sockstat, out);
        // A kernel without IPv6 has no such file, and no such sockets.
        let sockstat6 = proc_file::read(SOCKSTAT6_PATH).unwrap_or_default();

        let time_wait = proc_file::named(&sockstat, "TCP:", "tw").unwrap_or(0);
        let skipped = sockets(&sockstat, &sockstat6) > SOCKETS_MAX;
        out.push(Reading::new(&SKIPPED, [], f64::from(u8::from(skipped))));
        if skipped {
            out.push(Reading::new(&CONNECTIONS, [STATES[sock_diag::TIME_WAIT]], time_wait as f64));
            return Ok(());
        }
        let mut counts = sock_diag::count().map_err(state_error)?;
        counts[sock_diag::TIME_WAIT] = time_wait;
        push_states(&counts, out);
        Ok(())
    }
}

fn state_error(source: io::Error) -> SourceError {
    // Without inet_diag the kernel does not support the question; without sock_diag it has no such protocol.
    let no_support = Some(rustix::io::Errno::OPNOTSUPP.raw_os_error());
    if source.kind() == io::ErrorKind::NotFound || source.raw_os_error() == no_support {
        return SourceError::NotAvailable("this kernel has no sock_diag for TCP".to_owned());
    }
    SourceError::Read { path: "sockets by state over netlink".to_owned(), source }
}

fn push_netstat(text: &str, out: &mut Vec<Reading>) {
    for metric in NETSTAT {
        let key = metric.prometheus.strip_prefix("node_netstat_").and_then(|key| key.split_once('_'));
        let (group, name) = key.expect("the table has node_exporter's names");
        let value = proc_file::paired(text, &format!("{group}:"), name);
        out.extend(value.map(|value| Reading::new(metric, [], value as f64)));
    }
}

fn push_sockstat(text: &str, out: &mut Vec<Reading>) {
    for (group, name, metric) in SOCKSTAT {
        // The kernel tells the memory of sockets in pages.
        let scale = if metric.unit == "By" { procfs::page_size() as f64 } else { 1.0 };
        let value = proc_file::named(text, group, name);
        out.extend(value.map(|value| Reading::new(metric, [], value as f64 * scale)));
    }
}

/// How many sockets a dump would list; the kernel's `inuse` is without those in `time_wait`.
fn sockets(sockstat: &str, sockstat6: &str) -> u64 {
    let count = |text, group, name| proc_file::named(text, group, name).unwrap_or(0);
    count(sockstat, "TCP:", "inuse") + count(sockstat6, "TCP6:", "inuse")
}

fn push_states(counts: &sock_diag::Counts, out: &mut Vec<Reading>) {
    for (at, state) in STATES.iter().enumerate() {
        if STATES[..at].contains(state) {
            continue; // counted with its older form
        }
        let sum: u64 = STATES.iter().zip(counts).filter(|(other, _)| *other == state).map(|(_, n)| n).sum();
        out.push(Reading::new(&CONNECTIONS, [state], sum as f64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::tests::{value, values};

    #[test]
    fn a_kernel_without_sock_diag_has_no_states() {
        for errno in [rustix::io::Errno::NOENT, rustix::io::Errno::OPNOTSUPP] {
            let error = state_error(io::Error::from_raw_os_error(errno.raw_os_error()));
            assert!(matches!(error, SourceError::NotAvailable(_)), "{error}");
        }
        let refusal = io::Error::from_raw_os_error(rustix::io::Errno::PERM.raw_os_error());
        assert!(matches!(state_error(refusal), SourceError::Read { .. }));
    }

    #[test]
    fn counters_are_found_by_their_names() {
        let mut out = Vec::new();
        push_netstat("Ip: A\nIp: 1\nTcp: RtoMin MaxConn CurrEstab RetransSegs\nTcp: 200 -1 5 77\n", &mut out);
        push_netstat("TcpExt: SyncookiesSent ListenDrops\nTcpExt: 0 9\nIpExt: X\nIpExt: 1\n", &mut out);
        assert_eq!(value(&out, "watchpost.tcp.retransmits", &[]), Some(77.0));
        assert_eq!(value(&out, "watchpost.tcp.connections", &[]), Some(5.0));
        assert_eq!(value(&out, "watchpost.tcp.listen.drops", &[]), Some(9.0));
        assert_eq!(out.len(), 4);
    }

    #[test]
    fn sockstat_tells_sockets_and_their_memory() {
        let text = "sockets: used 16\nTCP: inuse 1 orphan 2 tw 3 alloc 4 mem 5\nUDP: inuse 6 mem 7\n";
        let mut out = Vec::new();
        push_sockstat(text, &mut out);
        assert_eq!(value(&out, "watchpost.sockets.used", &[]), Some(16.0));
        assert_eq!(value(&out, "watchpost.tcp.sockets.orphan", &[]), Some(2.0));
        assert_eq!(value(&out, "watchpost.tcp.memory", &[]), Some(5.0 * procfs::page_size() as f64));
        assert_eq!(sockets(text, "TCP6: inuse 100\n"), 101);
        assert_eq!(sockets("", ""), 0);
    }

    #[test]
    fn both_forms_of_a_handshake_are_one_state() {
        let mut out = Vec::new();
        push_states(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], &mut out);
        assert_eq!(value(&out, "system.network.connection.count", &["syn_received"]), Some(15.0));
        assert_eq!(values(&out, "system.network.connection.count").len(), 11);
    }
}
