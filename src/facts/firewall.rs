//! What the probe of the firewall saw: its rules, what listens behind them, and which programs run here.

use std::net::IpAddr;
use std::ops::RangeInclusive;

/// The firewall of this host and what stands behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct FirewallFacts {
    /// The ports that may be reached from outside; `None` where that is not said.
    pub allowed: Option<Vec<RangeInclusive<u16>>>,
    /// What the rules say.
    pub rules: Rules,
    /// TCP sockets that listen, on any address.
    pub listeners: Vec<Listener>,
    /// The paths of unix sockets that listen.
    pub unix_sockets: Vec<String>,
    /// Programs that run, each with its user once; `None` where those of others cannot be seen.
    pub programs: Option<Vec<Program>>,
}

/// The rules of nftables, as far as they decide over what comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rules {
    /// They were read.
    Read {
        /// The chains on the input hook, each with its policy and its last rule, in words.
        input_chains: Vec<String>,
        /// What becomes of a new TCP connection to a port that no rule names: over IPv4, over IPv6.
        unnamed: [Passage; 2],
        /// Whether the kernel has the filter of the older iptables as well, whose rules were not read.
        has_legacy: bool,
    },
    /// They cannot be read.
    Unread {
        /// Why.
        why: String,
        /// How to grant it.
        cure: String,
    },
}

/// Whether new connections from outside pass, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Passage {
    /// None does.
    Closed,
    /// Some do: from some addresses, by some interface, or now and then.
    Partly,
    /// They do, but for some that are kept out by a rule of their own.
    Open,
}

/// A TCP socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address; unspecified for all of this host.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The user who made it.
    pub uid: u32,
    /// Whether it can be reached through the rules, where they were read.
    pub passage: Option<Passage>,
}

/// A program that runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// The name of its process.
    pub name: String,
    /// Its effective user.
    pub uid: u32,
}
