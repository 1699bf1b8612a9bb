//! The firewall of this host, which ports listen behind it, and which programs share the host.
//!
//! The rules need a right (CAP_NET_ADMIN) that the agent does not have by default; all else here needs none and is told in any
//! case. A connection to oneself passes no firewall, so nothing is tried: the rules are read.

mod host;
mod nft;
mod ruleset;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{Probe, ProbeError, Run, Seen, Spec};
use crate::facts::{Facts, FirewallFacts, Listener, Passage, Rules};
use crate::record::{Metric, Reading};
use ruleset::{Family, Ruleset};

/// Rules change by hand; their counters are to be a rate.
const INTERVAL: Duration = Duration::from_secs(30);
/// Of one short command that has its own, and of what the kernel tells at once.
const DEADLINE: Duration = Duration::from_secs(15);
/// Chains and named counters whose counts are told.
const COUNTERS_MAX: usize = 100;

static PACKETS: Metric = Metric::counter(
    "watchpost.firewall.packets",
    "{packet}",
    "watchpost_firewall_packets_total",
    "Packets that rules with a counter saw, by chain and what those rules do",
)
.by(&["firewall.chain", "firewall.verdict"], &["chain", "verdict"]);
static BYTES: Metric = Metric::counter(
    "watchpost.firewall.bytes",
    "By",
    "watchpost_firewall_bytes_total",
    "Bytes that rules with a counter saw, by chain and what those rules do",
)
.by(&["firewall.chain", "firewall.verdict"], &["chain", "verdict"]);
static COUNTER_PACKETS: Metric = Metric::counter(
    "watchpost.firewall.counter.packets",
    "{packet}",
    "watchpost_firewall_counter_packets_total",
    "Packets of a named counter",
)
.by(&["firewall.counter"], &["counter"]);
static COUNTER_BYTES: Metric = Metric::counter(
    "watchpost.firewall.counter.bytes",
    "By",
    "watchpost_firewall_counter_bytes_total",
    "Bytes of a named counter",
)
.by(&["firewall.counter"], &["counter"]);
static DISCARDED: Metric = Metric::counter(
    "watchpost.ip.discarded",
    "{packet}",
    "watchpost_ip_input_discarded_packets_total",
    "Packets of IPv4 that came in and were neither delivered nor forwarded: dropped by the firewall, mostly",
);

pub(super) static SPEC: Spec = Spec {
    name: "firewall",
    help: "the rules of nftables, what they drop, and which ports and programs are behind them",
    setting: "WATCHPOST_FIREWALL",
    metrics: &[&PACKETS, &BYTES, &COUNTER_PACKETS, &COUNTER_BYTES, &DISCARDED],
    interval: INTERVAL,
    deadline: DEADLINE,
    make: |wanted| {
        let target = wanted.firewall.clone()?;
        Some(Box::new(FirewallProbe { target, lacking: None, discarded: 0 }))
    },
};

/// What the firewall is held to, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirewallTarget {
    allowed: Option<Vec<RangeInclusive<u16>>>,
    command: Option<PathBuf>,
}

impl FirewallTarget {
    /// With the ports that may be reached from outside, where that is said.
    pub fn new(allowed: Option<Vec<RangeInclusive<u16>>>) -> FirewallTarget {
        FirewallTarget { allowed, command: nft::find() }
    }
}

struct FirewallProbe {
    target: FirewallTarget,
    /// Why the rules could not be read in the last run.
    lacking: Option<ProbeError>,
    /// The most that was discarded: the kernel's counts are read one after the other, and their difference may step back.
    discarded: u64,
}

impl FirewallProbe {
    async fn see(&mut self) -> Result<Seen, ProbeError> {
        let mut readings = Vec::new();
        let asked = nft::ruleset(self.target.command.as_ref()).await;
        let read = asked.and_then(|text| Ruleset::read(&text).map_err(ProbeError::Failed));
        let mut listeners = host::listeners()
            .map_err(|error| ProbeError::Failed(format!("the kernel does not tell what listens: {error}")))?;
        let rules = match &read {
            Ok(ruleset) => {
                readings.extend(counts(ruleset));
                judge(ruleset, &mut listeners);
                Rules::Read {
                    input_chains: ruleset.inputs_in_words(),
                    unnamed: [Family::V4, Family::V6].map(|family| ruleset.passage(family, None)),
                    has_legacy: host::has_legacy(),
                }
            }
            Err(ProbeError::Denied { what, cure }) => Rules::Unread { why: what.clone(), cure: cure.clone() },
            Err(error) => {
                Rules::Unread { why: error.to_string(), cure: "nft -j list ruleset, as root".to_owned() }
            }
        };
        self.lacking = read.err();
        if let Some(discarded) = host::discarded() {
            self.discarded = self.discarded.max(discarded);
            readings.push(Reading::new(&DISCARDED, [], self.discarded as f64));
        }
        let facts = FirewallFacts {
            allowed: self.target.allowed.clone(),
            rules,
            listeners,
            unix_sockets: host::unix_sockets(),
            programs: host::programs().await,
        };
        Ok(Seen { readings, facts: Facts::Firewall(facts), again_in: None })
    }
}

impl Probe for FirewallProbe {
    fn run(&mut self) -> Run<'_> {
        Box::pin(self.see())
    }

    fn lacking(&self) -> Option<ProbeError> {
        self.lacking.clone()
    }
}

/// Whether each can be reached. One on every address of IPv6 takes those of IPv4 as well, mostly.
fn judge(ruleset: &Ruleset, listeners: &mut [Listener]) {
    let mut known: BTreeMap<(u16, bool), Passage> = BTreeMap::new();
    for listener in listeners {
        let mut ask = |family: Family| {
            let key = (listener.port, family == Family::V4);
            *known.entry(key).or_insert_with(|| ruleset.passage(family, Some(listener.port)))
        };
        listener.passage = Some(match listener.address {
            address if address.is_ipv4() => ask(Family::V4),
            address if address.is_unspecified() => ask(Family::V4).max(ask(Family::V6)),
            _ => ask(Family::V6),
        });
    }
}

fn counts(ruleset: &Ruleset) -> Vec<Reading> {
    let mut readings = Vec::new();
    for ((chain, verdict), [packets, bytes]) in ruleset.counted().into_iter().take(COUNTERS_MAX) {
        readings.push(Reading::new(&PACKETS, [&chain, verdict], packets as f64));
        readings.push(Reading::new(&BYTES, [&chain, verdict], bytes as f64));
    }
    for (counter, [packets, bytes]) in ruleset.counters().iter().take(COUNTERS_MAX) {
        readings.push(Reading::new(&COUNTER_PACKETS, [counter], *packets as f64));
        readings.push(Reading::new(&COUNTER_BYTES, [counter], *bytes as f64));
    }
    readings
}
