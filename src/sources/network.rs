//! What network interfaces carry, and what they dropped.
//!
//! From the text of `/proc/net/dev`: sysinfo has no drops, and opens ten files for each interface
//! (80 us each) where this one file tells all of one moment in 6 us.

use super::proc_file;
use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

const PATH: &str = "/proc/net/dev";

/// The host's ends of containers' links: they come and go with containers, so each would be a
/// series that soon ends, and the bridge or the uplink carries the same bytes.
const IGNORED_PREFIXES: [&str; 4] = ["veth", "cali", "lxc", "tap"];

const ATTRIBUTES: &[&str] = &["network.interface.name", "network.io.direction"];
const LABELS: &[&str] = &["device", ""];

static IO: Metric = Metric::counter(
    "system.network.io",
    "By",
    "watchpost_network_bytes_total",
    "Bytes that the interface received and sent",
)
.by(ATTRIBUTES, LABELS)
.named_by_value(&[
    ("receive", "node_network_receive_bytes_total"),
    ("transmit", "node_network_transmit_bytes_total"),
]);
static PACKETS: Metric = Metric::counter(
    "system.network.packet.count",
    "{packet}",
    "watchpost_network_packets_total",
    "Packets that the interface received and sent",
)
.by(ATTRIBUTES, LABELS)
.named_by_value(&[
    ("receive", "node_network_receive_packets_total"),
    ("transmit", "node_network_transmit_packets_total"),
]);
static ERRORS: Metric = Metric::counter(
    "system.network.errors",
    "{error}",
    "watchpost_network_errors_total",
    "Packets that were damaged or could not be sent",
)
.by(ATTRIBUTES, LABELS)
.named_by_value(&[
    ("receive", "node_network_receive_errs_total"),
    ("transmit", "node_network_transmit_errs_total"),
]);
static DROPPED: Metric = Metric::counter(
    "system.network.packet.dropped",
    "{packet}",
    "watchpost_network_dropped_total",
    "Packets that were thrown away though nothing was wrong with them",
)
.by(ATTRIBUTES, LABELS)
.named_by_value(&[
    ("receive", "node_network_receive_drop_total"),
    ("transmit", "node_network_transmit_drop_total"),
]);

pub(super) static SPEC: Spec = Spec {
    name: "network",
    help: "Bytes, packets, errors and drops of network interfaces",
    metrics: &[&IO, &PACKETS, &ERRORS, &DROPPED],
    make: || Box::new(Network),
};

struct Network;

impl Source for Network {
    fn sample(&mut self, _: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        convert(&proc_file::read(PATH)?, out);
        Ok(())
    }
}

/// The columns of received and of sent bytes, packets, errors and drops, after the colon.
const COLUMNS: [(&Metric, usize, usize); 4] =
    [(&IO, 0, 8), (&PACKETS, 1, 9), (&ERRORS, 2, 10), (&DROPPED, 3, 11)];

fn convert(text: &str, out: &mut Vec<Reading>) {
    // The two lines of headings have no colon.
    let interfaces = text.lines().filter_map(|line| {
        let (name, counts) = line.rsplit_once(':')?; // an alias has a colon in its name
        let counts = counts.split_ascii_whitespace().map(str::parse);
        let counts = counts.collect::<Result<Vec<u64>, _>>().ok()?;
        Some((name.trim(), counts))
    });
    let kept = interfaces.filter(|(name, _)| !IGNORED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
    for (name, counts) in kept {
        for (metric, received, sent) in COLUMNS {
            if let (Some(received), Some(sent)) = (counts.get(received), counts.get(sent)) {
                out.push(Reading::new(metric, [name, "receive"], *received as f64));
                out.push(Reading::new(metric, [name, "transmit"], *sent as f64));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::tests::{value, values};

    const TEXT: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0          0
  eth0: 262934718    8371    1    2    3     4          5         6   450990    4867    7    8    9    10      11         12
eth0:1:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
vethabc: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
  odd0: x
";

    #[test]
    fn reads_both_directions_of_each_interface() {
        let mut out = Vec::new();
        convert(TEXT, &mut out);
        assert_eq!(value(&out, "system.network.io", &["eth0", "receive"]), Some(262_934_718.0));
        assert_eq!(value(&out, "system.network.io", &["eth0", "transmit"]), Some(450_990.0));
        assert_eq!(value(&out, "system.network.packet.count", &["eth0", "transmit"]), Some(4867.0));
        assert_eq!(value(&out, "system.network.errors", &["eth0", "transmit"]), Some(7.0));
        assert_eq!(value(&out, "system.network.packet.dropped", &["eth0", "receive"]), Some(2.0));
        assert_eq!(value(&out, "system.network.packet.dropped", &["eth0:1", "transmit"]), Some(12.0));
        // lo, eth0 and its alias, both ways each.
        assert_eq!(values(&out, "system.network.io").len(), 6);
    }
}
