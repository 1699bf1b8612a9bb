//! What the firewall of this host lets through.

use super::{Confidence, Draw, Evidence, Rule, Severity, Weakness};
use crate::facts::{FirewallFacts, Listener, Passage, Rules};
use crate::record::EpochMs;

const CLOSE: &str = "end the input chain with a drop: nft add chain inet filter input '{ type filter hook input priority 0; \
                     policy drop; }', after rules that accept lo, ct state established,related, SSH and the ports of the \
                     service; try it with a timed way back";

/// What no rule names passes.
pub(super) static OPEN_BY_DEFAULT: Rule = Rule {
    id: "firewall.open-by-default",
    severity: Severity::High,
    title: "the firewall lets through what no rule names",
    draw: |known| {
        let Some(firewall) = known.firewall else { return Draw::Nothing };
        match &firewall.facts.rules {
            Rules::Unread { why, cure } => Draw::Unknown { why: why.clone(), cure: cure.clone() },
            Rules::Read { input_chains, unnamed, has_legacy } => {
                if unnamed.iter().all(|passage| *passage != Passage::Open) {
                    return Draw::Clear;
                }
                let [v4, v6] = unnamed.map(|passage| passage == Passage::Open);
                let over = match (v4, v6) {
                    (true, true) => "IPv4 and IPv6",
                    (true, false) => "IPv4",
                    _ => "IPv6",
                };
                let mut read =
                    vec![format!("a new connection over {over} to a port that no rule names is accepted")];
                if input_chains.is_empty() {
                    read.push("no chain of nftables filters what comes in".to_owned());
                }
                read.extend(input_chains.iter().cloned());
                if *has_legacy {
                    read.push(
                        "the older iptables is loaded too; its rules were not read (iptables-legacy -S)"
                            .to_owned(),
                    );
                }
                let confidence = if *has_legacy { Confidence::Likely } else { Confidence::Certain };
                let advice = CLOSE.to_owned();
                let evidence = evidence(read, firewall.at);
                Draw::Found(vec![Weakness { subject: String::new(), confidence, evidence, advice }])
            }
        }
    },
};

/// Something listens where nothing should be reached.
pub(super) static PORT_BEYOND_ALLOWED: Rule = Rule {
    id: "firewall.port-beyond-allowed",
    severity: Severity::High,
    title: "a port that is not among the allowed ones can be reached",
    draw: |known| {
        let Some(firewall) = known.firewall else { return Draw::Nothing };
        let facts = firewall.facts;
        let Some(allowed) = &facts.allowed else { return Draw::Clear };
        let is_beyond = |listener: &&Listener| {
            !listener.address.is_loopback() && !allowed.iter().any(|ports| ports.contains(&listener.port))
        };
        let beyond: Vec<&Listener> = facts.listeners.iter().filter(is_beyond).collect();
        if beyond.is_empty() {
            return Draw::Clear;
        }
        if let Rules::Unread { why, cure } = &facts.rules {
            let listed: Vec<String> = beyond.iter().map(|listener| in_words(facts, listener)).collect();
            let why = format!("{} listen beyond the allowed ports; {why}", listed.join(", "));
            return Draw::Unknown { why, cure: cure.clone() };
        }
        let reached = beyond.into_iter().filter(|listener| listener.passage > Some(Passage::Closed));
        let found: Vec<Weakness> = reached.map(|listener| weakness(facts, listener, firewall.at)).collect();
        if found.is_empty() { Draw::Clear } else { Draw::Found(found) }
    },
};

fn weakness(facts: &FirewallFacts, listener: &Listener, at: EpochMs) -> Weakness {
    let is_open = listener.passage == Some(Passage::Open);
    let passes = if is_open {
        "the rules accept new connections to it".to_owned()
    } else {
        "the rules accept some connections to it: from some addresses, by some interface, or now and then"
            .to_owned()
    };
    let has_legacy = matches!(facts.rules, Rules::Read { has_legacy: true, .. });
    let port = listener.port;
    Weakness {
        subject: format!("port {port} on {}", listener.address),
        confidence: if is_open && !has_legacy { Confidence::Certain } else { Confidence::Likely },
        evidence: evidence(vec![format!("{} listens", in_words(facts, listener)), passes], at),
        advice: format!(
            "have it listen on 127.0.0.1, or let no rule accept tcp dport {port}; if it is meant to be reached, add {port} to \
             WATCHPOST_FIREWALL"
        ),
    }
}

/// An address with the programs of its user: the kernel tells strangers no more.
fn in_words(facts: &FirewallFacts, listener: &Listener) -> String {
    const NAMES_MAX: usize = 5;
    let address = std::net::SocketAddr::new(listener.address, listener.port);
    let programs = facts.programs.iter().flatten().filter(|program| program.uid == listener.uid);
    let names: Vec<&str> = programs.map(|program| program.name.as_str()).take(NAMES_MAX + 1).collect();
    match (listener.uid, names.as_slice()) {
        // Root runs too much to guess.
        (0, _) | (_, []) => format!("{address} of user {}", listener.uid),
        (uid, names) if names.len() > NAMES_MAX => format!("{address} of user {uid}"),
        (uid, names) => format!("{address} of user {uid}, who runs {}", names.join(", ")),
    }
}

fn evidence(read: Vec<String>, at: EpochMs) -> Vec<Evidence> {
    let place = "nft list ruleset, and the sockets of this host";
    read.into_iter().map(|what| Evidence { what, place: place.to_owned(), at }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Dated, Knowledge};
    use super::*;
    use crate::facts::Program;

    fn facts(rules: Rules, passage: Option<Passage>) -> FirewallFacts {
        let listener = |address: &str, port| Listener {
            address: address.parse().expect("an address"),
            port,
            uid: 103,
            passage,
        };
        FirewallFacts {
            allowed: Some(vec![22..=22, 80..=90]),
            rules,
            listeners: vec![listener("127.0.0.1", 9), listener("0.0.0.0", 85), listener("10.0.0.1", 3306)],
            unix_sockets: Vec::new(),
            programs: Some(vec![Program { name: "mariadbd".to_owned(), uid: 103 }]),
        }
    }

    fn read(unnamed: [Passage; 2], has_legacy: bool) -> Rules {
        Rules::Read { input_chains: Vec::new(), unnamed, has_legacy }
    }

    fn draw(rule: &Rule, facts: &FirewallFacts) -> Draw {
        (rule.draw)(&Knowledge { firewall: Some(Dated { facts, at: 1 }), ..Knowledge::default() })
    }

    fn confidences(draw: Draw) -> Vec<Confidence> {
        let Draw::Found(found) = draw else { panic!("{draw:?}") };
        found.iter().map(|weakness| weakness.confidence).collect()
    }

    #[test]
    fn the_policy_is_judged_with_the_rules_behind_it() {
        use Passage::{Closed, Open, Partly};
        let judged = |rules| draw(&OPEN_BY_DEFAULT, &facts(rules, None));
        assert_eq!(judged(read([Closed, Partly], false)), Draw::Clear);
        assert_eq!(confidences(judged(read([Closed, Open], false))), [Confidence::Certain]);
        assert_eq!(confidences(judged(read([Open, Open], true))), [Confidence::Likely]);
        let unread = Rules::Unread { why: "no right".to_owned(), cure: "grant it".to_owned() };
        assert!(matches!(judged(unread), Draw::Unknown { .. }));
    }

    #[test]
    fn a_listener_beyond_the_allowed_ports_counts_where_it_can_be_reached() {
        let rules = || read([Passage::Closed; 2], false);
        let judged = |facts: &FirewallFacts| draw(&PORT_BEYOND_ALLOWED, facts);
        assert_eq!(judged(&facts(rules(), Some(Passage::Closed))), Draw::Clear);
        assert_eq!(confidences(judged(&facts(rules(), Some(Passage::Partly)))), [Confidence::Likely]);
        let Draw::Found(found) = judged(&facts(rules(), Some(Passage::Open))) else { panic!("found") };
        assert_eq!((found.len(), found[0].subject.as_str()), (1, "port 3306 on 10.0.0.1"));
        assert!(found[0].evidence[0].what.contains("who runs mariadbd"), "{found:?}");
        let unread = Rules::Unread { why: "no right".to_owned(), cure: "grant it".to_owned() };
        let Draw::Unknown { why, .. } = judged(&facts(unread, None)) else { panic!("unknown") };
        assert!(why.contains("10.0.0.1:3306"), "{why}");
        let nothing_said = FirewallFacts { allowed: None, ..facts(rules(), Some(Passage::Open)) };
        assert_eq!(judged(&nothing_said), Draw::Clear);
    }
}
