//! How full the firewall's table of connections is: when it is full, new connections are dropped.
//!
//! From two files under `/proc/sys/net/netfilter` that exist while the kernel tracks connections.

use super::proc_file::{self, ratio};
use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

const COUNT_PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const LIMIT_PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

static COUNT: Metric = Metric::gauge(
    "watchpost.conntrack.count",
    "{connection}",
    "node_nf_conntrack_entries",
    "Connections in the firewall's table",
);
static LIMIT: Metric = Metric::gauge(
    "watchpost.conntrack.limit",
    "{connection}",
    "node_nf_conntrack_entries_limit",
    "Connections that the firewall's table can hold",
);
static UTILIZATION: Metric = Metric::gauge(
    "watchpost.conntrack.utilization",
    "1",
    "watchpost_conntrack_utilization_ratio",
    "Share of the firewall's table that is taken",
);

pub(super) static SPEC: Spec = Spec {
    name: "conntrack",
    help: "How full the firewall's table of connections is",
    metrics: &[&COUNT, &LIMIT, &UTILIZATION],
    make: || Box::new(Conntrack),
};

struct Conntrack;

impl Source for Conntrack {
    fn sample(&mut self, _: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        convert(&proc_file::read(COUNT_PATH)?, &proc_file::read(LIMIT_PATH)?, out)
    }
}

fn convert(count: &str, limit: &str, out: &mut Vec<Reading>) -> Result<(), SourceError> {
    let number = |text: &str, path| {
        let number = text.trim().parse::<u64>().map(|number| number as f64);
        number.map_err(|_| SourceError::Format { path, what: "a number" })
    };
    let (count, limit) = (number(count, COUNT_PATH)?, number(limit, LIMIT_PATH)?);
    out.push(Reading::new(&COUNT, [], count));
    out.push(Reading::new(&LIMIT, [], limit));
    out.push(Reading::new(&UTILIZATION, [], ratio(count, limit)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::tests::value;

    #[test]
    fn tells_the_share_that_is_taken() {
        let mut out = Vec::new();
        convert("50\n", "200\n", &mut out).expect("two numbers");
        assert_eq!(value(&out, "watchpost.conntrack.utilization", &[]), Some(0.25));
        assert!(convert("x", "200", &mut out).is_err());
    }
}
