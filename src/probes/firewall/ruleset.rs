//! The rules of nftables as JSON (libnftables-json(5)): what becomes of a new TCP connection from outside, and the counters.
//!
//! Pure. Rules are read in their order as the kernel does, jumps included. What is not known of a connection (where it comes
//! from, by which interface, how many there were) may or may not match, and a statement that is not known never decides.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::facts::Passage;

/// The kernel's own limit (NFT_JUMP_STACK_SIZE).
const JUMPS_MAX: usize = 16;
/// Looks at rules for one connection; more are a riddle, not a firewall.
const STEPS_MAX: usize = 200_000;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// A table's family and name, and a name in it.
type Place = (String, String, String);

/// The rules as they were listed.
#[derive(Debug, Default)]
pub(super) struct Ruleset {
    /// Chains on the input hook that filter.
    inputs: Vec<(Place, bool)>,
    /// The expressions of every rule, by its chain.
    rules: HashMap<Place, Vec<Vec<Value>>>,
    /// The elements of sets and of maps, by name.
    elements: HashMap<Place, Vec<Value>>,
    /// What every policy does, by base chain.
    policies: HashMap<Place, bool>,
    /// Named counters.
    counters: Vec<(String, [u64; 2])>,
}

/// Packets and bytes that rules counted.
pub(super) type Counted = [u64; 2];

/// What may become of a connection in a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fate {
    /// Some are accepted.
    accepts: bool,
    /// What becomes of those that match nothing doubtful; `None`: they return from the chain.
    typical: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    Maybe,
}

use Match::{Maybe, No, Yes};

impl Ruleset {
    /// Reads the output of `nft -j list ruleset`.
    ///
    /// # Errors
    /// In words: no JSON, or not of this kind.
    pub(super) fn read(text: &[u8]) -> Result<Ruleset, String> {
        let listed: Value = serde_json::from_slice(text).map_err(|error| format!("no JSON: {error}"))?;
        let items = listed["nftables"].as_array().ok_or("no list of nftables")?;
        let mut ruleset = Ruleset::default();
        for item in items {
            let Some((kind, body)) = item.as_object().and_then(|item| item.iter().next()) else { continue };
            let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
            let place = |name: &str| (text("family"), text("table"), text(name));
            match kind.as_str() {
                "chain" if body["hook"].is_string() => {
                    let accepts = body["policy"] != "drop";
                    ruleset.policies.insert(place("name"), accepts);
                    if body["hook"] == "input" && body["type"] == "filter" {
                        ruleset.inputs.push((place("name"), accepts));
                    }
                }
                "rule" => {
                    let expressions = body["expr"].as_array().cloned().unwrap_or_default();
                    ruleset.rules.entry(place("chain")).or_default().push(expressions);
                }
                "set" | "map" => {
                    let elements = body["elem"].as_array().cloned().unwrap_or_default();
                    ruleset.elements.insert(place("name"), elements);
                }
                "counter" => {
                    let (family, table, name) = place("name");
                    ruleset.counters.push((format!("{family} {table} {name}"), counts(body)));
                }
                _ => {}
            }
        }
        Ok(ruleset)
    }

    /// Whether a new TCP connection from outside passes, to this port or, without one, to a port that no rule names.
    pub(super) fn passage(&self, family: Family, port: Option<u16>) -> Passage {
        let mut passage = Passage::Open;
        for (chain, policy) in self.inputs.iter().filter(|((of, ..), _)| covers(of, family)) {
            let mut look = Look { ruleset: self, family, port, steps: 0 };
            let fate = look.chain(chain, 0);
            let typical = fate.typical.unwrap_or(*policy);
            let here = match (typical, fate.accepts) {
                (true, _) => Passage::Open,
                (false, true) => Passage::Partly,
                (false, false) => Passage::Closed,
            };
            passage = passage.min(here);
        }
        passage
    }

    /// The chains on the input hook in words: the policy and the last rule.
    pub(super) fn inputs_in_words(&self) -> Vec<String> {
        let words = |((family, table, name), accepts): &(Place, bool)| {
            let place = (family.clone(), table.clone(), name.clone());
            let rules = self.rules.get(&place).map_or(&[][..], Vec::as_slice);
            let policy = if *accepts { "accept" } else { "drop" };
            let last = match rules.last() {
                None => "no rule".to_owned(),
                Some(rule) => {
                    let statements: Vec<&str> = rule
                        .iter()
                        .filter_map(|one| Some(one.as_object()?.keys().next()?.as_str()))
                        .collect();
                    format!("{} rules, the last: {}", rules.len(), statements.join(" "))
                }
            };
            format!("chain {family} {table} {name}: policy {policy}, {last}")
        };
        self.inputs.iter().map(words).collect()
    }

    /// What rules counted, by chain and verdict. A counter that stands alone at the end counts what the policy decides.
    pub(super) fn counted(&self) -> BTreeMap<(String, &'static str), Counted> {
        let mut sums: BTreeMap<(String, &'static str), Counted> = BTreeMap::new();
        for (place, rules) in &self.rules {
            let (family, table, chain) = place;
            for (index, rule) in rules.iter().enumerate() {
                let Some(counter) =
                    rule.iter().find_map(|one| one.get("counter").filter(|one| one.is_object()))
                else {
                    continue;
                };
                let is_last = index + 1 == rules.len();
                let verdict = match self.policies.get(place) {
                    Some(accepts) if is_last && rule.len() == 1 => {
                        if *accepts {
                            "accept"
                        } else {
                            "drop"
                        }
                    }
                    _ => verdict_of(rule),
                };
                let sum = sums.entry((format!("{family} {table} {chain}"), verdict)).or_default();
                let [packets, bytes] = counts(counter);
                *sum = [sum[0].saturating_add(packets), sum[1].saturating_add(bytes)];
            }
        }
        sums
    }

    /// Named counters.
    pub(super) fn counters(&self) -> &[(String, Counted)] {
        &self.counters
    }
}

fn covers(family: &str, wanted: Family) -> bool {
    match wanted {
        Family::V4 => matches!(family, "ip" | "inet"),
        Family::V6 => matches!(family, "ip6" | "inet"),
    }
}

fn counts(counter: &Value) -> Counted {
    ["packets", "bytes"].map(|key| counter[key].as_u64().unwrap_or(0))
}

fn verdict_of(rule: &[Value]) -> &'static str {
    let has = |name: &str| rule.iter().any(|one| one.get(name).is_some());
    match () {
        () if has("accept") => "accept",
        () if has("drop") || has("reject") => "drop",
        () => "other",
    }
}

/// One connection on its way through the rules.
struct Look<'a> {
    ruleset: &'a Ruleset,
    family: Family,
    port: Option<u16>,
    steps: usize,
}

impl<'a> Look<'a> {
    fn chain(&mut self, place: &Place, depth: usize) -> Fate {
        let mut fate = Fate::default();
        let ruleset = self.ruleset;
        let rules = ruleset.rules.get(place).map_or(&[][..], Vec::as_slice);
        for rule in rules {
            self.steps += 1;
            if depth > JUMPS_MAX || self.steps > STEPS_MAX {
                break;
            }
            if self.rule(place, rule, depth, &mut fate) {
                return fate;
            }
        }
        fate
    }

    /// True when all that is typical is decided.
    fn rule(&mut self, place: &Place, rule: &[Value], depth: usize, fate: &mut Fate) -> bool {
        let mut matches = Yes;
        for statement in rule {
            let Some((kind, body)) = statement.as_object().and_then(|one| one.iter().next()) else {
                continue;
            };
            let found = match kind.as_str() {
                "match" => self.condition(place, body),
                "limit" | "quota" | "ct count" | "xt" => Maybe,
                "vmap" => return self.vmap(place, body, matches, depth, fate),
                _ if is_verdict(kind) => return self.verdict(place, (kind, body), matches, depth, fate),
                _ => Yes,
            };
            match found {
                No => return false,
                Maybe => matches = Maybe,
                Yes => {}
            }
        }
        false
    }

    fn verdict(
        &mut self,
        place: &Place,
        (kind, body): (&str, &Value),
        matches: Match,
        depth: usize,
        fate: &mut Fate,
    ) -> bool {
        let is_typical = matches == Yes;
        let decided = match kind {
            "accept" | "queue" => Some(true),
            "drop" | "reject" => Some(false),
            "jump" | "goto" => {
                let target = body["target"].as_str().unwrap_or_default();
                let inner = self.chain(&(place.0.clone(), place.1.clone(), target.to_owned()), depth + 1);
                fate.accepts |= inner.accepts;
                if is_typical {
                    fate.typical = inner.typical;
                }
                return is_typical && (inner.typical.is_some() || kind == "goto");
            }
            // `return` leaves the chain; `continue` goes on.
            _ => return is_typical && kind == "return",
        };
        fate.accepts |= decided == Some(true);
        if is_typical {
            fate.typical = decided;
        }
        is_typical
    }

    fn vmap(&mut self, place: &Place, body: &Value, matches: Match, depth: usize, fate: &mut Fate) -> bool {
        let key = &body["key"];
        let named = body["data"].as_str().map(|name| self.elements_of(place, name));
        let elements = named.unwrap_or_else(|| body["data"]["set"].as_array().map_or(&[][..], Vec::as_slice));
        for element in elements {
            let Some([value, verdict]) = element.as_array().map(Vec::as_slice) else { continue };
            let found = match (self.holds(place, key, value), matches) {
                (No, _) => continue,
                (Yes, Yes) => Yes,
                _ => Maybe,
            };
            let Some((kind, body)) = verdict.as_object().and_then(|one| one.iter().next()) else { continue };
            if self.verdict(place, (kind, body), found, depth, fate) {
                return true;
            }
            if found == Yes {
                break;
            }
        }
        false
    }

    fn condition(&self, place: &Place, body: &Value) -> Match {
        let found = self.holds(place, &body["left"], &body["right"]);
        match (body["op"].as_str(), found) {
            (Some("==" | "in"), found) => found,
            (Some("!="), Yes) => No,
            (Some("!="), No) => Yes,
            // Ports are compared by size now and then.
            _ => Maybe,
        }
    }

    /// Whether what is asked of the connection is this value, or among these.
    fn holds(&self, place: &Place, left: &Value, right: &Value) -> Match {
        let among = |is: &dyn Fn(&Value) -> Match| self.among(place, right, is);
        let word = |known: &'static [&'static str]| {
            move |value: &Value| {
                if value.as_str().is_some_and(|word| known.contains(&word)) { Yes } else { No }
            }
        };
        let payload = |key: &str| left["payload"][key].as_str().unwrap_or_default();
        match (left["meta"]["key"].as_str(), left["ct"]["key"].as_str()) {
            (Some("iifname" | "iif"), _) => among(&|value| if value == "lo" { No } else { Maybe }),
            (Some("l4proto"), _) => among(&word(&["tcp"])),
            (Some("nfproto"), _) => among(&word(match self.family {
                Family::V4 => &["ipv4"],
                Family::V6 => &["ipv6"],
            })),
            (_, Some("state")) => among(&word(&["new"])),
            _ => match (payload("protocol"), payload("field")) {
                ("tcp" | "th", "dport") => among(&|value| port_is(self.port, value)),
                ("udp" | "icmp" | "icmpv6" | "sctp" | "dccp" | "udplite" | "esp" | "ah", _) => No,
                ("ip", _) if self.family == Family::V6 => No,
                ("ip6", _) if self.family == Family::V4 => No,
                ("ip", "protocol") | ("ip6", "nexthdr") => among(&word(&["tcp"])),
                // What a first segment must look like, mostly: with SYN and nothing else.
                _ if left["&"][0]["payload"]["field"] == "flags" && *right == "syn" => Yes,
                _ => Maybe,
            },
        }
    }

    /// The best match among one value, a list, or a set.
    fn among(&self, place: &Place, right: &Value, is: &dyn Fn(&Value) -> Match) -> Match {
        let elements = match right {
            Value::Array(elements) => elements.as_slice(),
            Value::String(name) if name.starts_with('@') => self.elements_of(place, name),
            Value::Object(object) => match object.get("set") {
                Some(Value::Array(elements)) => elements.as_slice(),
                _ => return is(right),
            },
            _ => return is(right),
        };
        let mut best = No;
        for element in elements {
            // With a time out or a comment the value stands inside.
            let value = element.get("elem").map_or(element, |inner| &inner["val"]);
            match is(value) {
                Yes => return Yes,
                Maybe => best = Maybe,
                No => {}
            }
        }
        best
    }

    fn elements_of(&self, place: &Place, name: &str) -> &'a [Value] {
        let name = name.trim_start_matches('@').to_owned();
        self.ruleset.elements.get(&(place.0.clone(), place.1.clone(), name)).map_or(&[][..], Vec::as_slice)
    }
}

fn is_verdict(kind: &str) -> bool {
    matches!(kind, "accept" | "drop" | "reject" | "jump" | "goto" | "return" | "continue" | "queue")
}

fn port_is(port: Option<u16>, value: &Value) -> Match {
    let as_port = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
    let range = match value["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => as_port(first).zip(as_port(last)),
        _ => as_port(value).map(|one| (one, one)),
    };
    let Some((first, last)) = range else { return Maybe };
    // Of a port that no rule names, a range as wide as the world says nothing that it could be excepted from.
    let is_in = port.map_or(first <= 1 && last == u16::MAX, |port| (first..=last).contains(&port));
    if is_in { Yes } else { No }
}

#[cfg(test)]
mod tests;
