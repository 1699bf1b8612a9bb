//! Rulesets as nft printed them, and small ones for one statement each.

use serde_json::json;

use super::*;

const FINAL_DROP: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/nft-final-drop.json"));
const POLICY_DROP: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/nft-policy-drop.json"));

fn passages(ruleset: &Ruleset, family: Family, ports: &[u16]) -> Vec<Passage> {
    ports.iter().map(|port| ruleset.passage(family, Some(*port))).collect()
}

#[test]
fn policy_accept_with_a_final_drop_is_closed_but_for_what_is_accepted() {
    use Passage::{Closed, Open, Partly};
    let ruleset = Ruleset::read(FINAL_DROP.as_bytes()).expect("it reads");
    for family in [Family::V4, Family::V6] {
        assert_eq!(ruleset.passage(family, None), Closed);
        assert_eq!(passages(&ruleset, family, &[80, 443, 8000, 8010]), [Open; 4]);
        assert_eq!(passages(&ruleset, family, &[8005, 25, 53, 3306]), [Closed; 4]);
    }
    // From some addresses of IPv4 alone.
    assert_eq!(passages(&ruleset, Family::V4, &[22, 9005, 9011]), [Partly, Partly, Closed]);
    assert_eq!(passages(&ruleset, Family::V6, &[22, 9005]), [Closed; 2]);
    let words = ruleset.inputs_in_words();
    assert_eq!(words, ["chain inet filter input: policy accept, 11 rules, the last: counter drop"]);
    let counted: Vec<_> = ruleset.counted().into_keys().collect();
    assert_eq!(counted, [("inet filter input".to_owned(), "drop")]);
    assert_eq!(ruleset.counters(), [("inet filter web_hits".to_owned(), [0, 0])]);
}

#[test]
fn policy_drop_with_maps_jumps_and_flags() {
    use Passage::{Closed, Open, Partly};
    let ruleset = Ruleset::read(POLICY_DROP.as_bytes()).expect("it reads");
    assert_eq!(passages(&ruleset, Family::V4, &[22, 80, 81]), [Open; 3]);
    assert_eq!(passages(&ruleset, Family::V4, &[3306, 5432]), [Closed, Partly]);
    // Of IPv6 the table says nothing: all passes.
    assert_eq!((ruleset.passage(Family::V6, None), ruleset.passage(Family::V4, None)), (Open, Partly));
    // The counter at the end counts what the policy drops.
    assert_eq!(ruleset.counted().into_keys().next(), Some(("ip filter INPUT".to_owned(), "drop")));
}

/// One chain with policy accept and these rules.
fn chain(rules: &[Value]) -> Ruleset {
    let mut items = vec![json!({"chain": {"family": "inet", "table": "t", "name": "c", "type": "filter",
                                          "hook": "input", "prio": 0, "policy": "accept"}})];
    for rule in rules {
        items.push(json!({"rule": {"family": "inet", "table": "t", "chain": "c", "expr": rule}}));
    }
    Ruleset::read(json!({ "nftables": items }).to_string().as_bytes()).expect("it reads")
}

#[test]
fn no_rule_and_rules_that_do_not_decide_leave_it_open() {
    let open = |rules: &[Value]| chain(rules).passage(Family::V4, None);
    assert_eq!(Ruleset::default().passage(Family::V4, None), Passage::Open);
    assert_eq!(open(&[]), Passage::Open);
    let condition =
        |left: Value, op: &str, right: Value| json!({"match": {"op": op, "left": left, "right": right}});
    let drop = json!({"drop": null});
    let from = condition(json!({"payload": {"protocol": "ip", "field": "saddr"}}), "==", json!("192.0.2.1"));
    assert_eq!(open(&[json!([from, drop])]), Passage::Open);
    assert_eq!(open(&[json!([{"xt": null}, drop])]), Passage::Open);
    assert_eq!(open(&[json!([{"limit": {"rate": 1}}, drop])]), Passage::Open);
    let not_lo = condition(json!({"meta": {"key": "iifname"}}), "!=", json!("lo"));
    assert_eq!(open(&[json!([not_lo, drop])]), Passage::Closed, "from outside is not by lo");
    let not_web = condition(json!({"payload": {"protocol": "tcp", "field": "dport"}}), "!=", json!(80));
    assert_eq!(open(&[json!([not_web, drop])]), Passage::Closed);
    assert_eq!(open(&[json!([{"counter": {"packets": 1, "bytes": 2}}, {"reject": null}])]), Passage::Closed);
    // A chain that jumps to itself, as the kernel would not take it.
    assert_eq!(open(&[json!([{"jump": {"target": "c"}}])]), Passage::Open);
}

#[test]
fn garbage_is_an_error_or_nothing() {
    for garbage in ["", "[]", "{}", "{\"nftables\":1}", "nft: command not found"] {
        assert!(Ruleset::read(garbage.as_bytes()).is_err(), "{garbage}");
    }
    let odd = json!({"nftables": [1, null, {}, {"rule": 1}, {"chain": {"hook": "input"}}, {"set": null},
                                  {"rule": {"expr": [1, {}, {"match": null}, {"vmap": 3}, {"jump": null}]}}]});
    assert_eq!(
        Ruleset::read(odd.to_string().as_bytes()).expect("it reads").passage(Family::V4, Some(1)),
        Passage::Open
    );
}
