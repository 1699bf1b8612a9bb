//! The findings: what is weak about this host and what it guards, each drawn by a rule from what was read.
//!
//! A finding stands until its rule says that it is mended. What could not be read changes nothing: neither does a finding
//! appear without evidence, nor does one go for want of it. Where rights are missing the rule says `unknown`, and how to grant
//! them.

mod certificates;
mod firewall;
mod haproxy;
mod mysql;
mod nginx;
mod placement;

use std::collections::BTreeMap;

use serde::Serialize;

use super::reconcile::Circumstances;
use crate::facts::{CertificateFacts, FirewallFacts, HaproxyFacts, MysqlFacts, NginxFacts};
use crate::record::EpochMs;

/// Every rule, in the order in which findings are shown.
pub const RULES: &[&Rule] = &[
    // nginx's
    &nginx::STUB_STATUS_OPEN,
    &nginx::BUFFER_WITHOUT_FLUSH,
    &nginx::NO_REQUEST_TIME,
    // HAProxy's
    &haproxy::BACKEND_PLAINTEXT,
    &haproxy::SERVER_DOWN,
    &haproxy::LOGS_DROPPED,
    // MySQL's
    &mysql::SINGLE_WRITER,
    &mysql::REPLICA_BROKEN,
    &mysql::REPLICA_PARTITIONED,
    &mysql::REPLICA_WRITTEN,
    &mysql::REPLICA_LAGGING,
    // Of TLS, and of HTTP beside it.
    &certificates::EXPIRES_AT_ONCE,
    &certificates::EXPIRING,
    &certificates::WRONG_NAME,
    &certificates::UNTRUSTED,
    &certificates::DIFFERS_FROM_FILE,
    &certificates::WEAK_PROTOCOL,
    &certificates::NO_REDIRECT,
    &certificates::HSTS_MISSING,
    // Those of the host itself
    &firewall::OPEN_BY_DEFAULT,
    &firewall::PORT_BEYOND_ALLOWED,
    &placement::ALL_IN_ONE,
];

/// Subjects of one rule that are kept; a farm with more broken certificates has other worries.
const FINDINGS_PER_RULE_MAX: usize = 100;

/// One rule: what it may find, and how.
pub struct Rule {
    /// The id of its findings.
    pub id: &'static str,
    /// How much they matter.
    pub severity: Severity,
    /// What they say, as a sentence without a full stop.
    pub title: &'static str,
    /// Looks at what is known.
    pub draw: fn(&Knowledge<'_>) -> Draw,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// To be mended in the ordinary course of work.
    Medium,
    /// An outage or a breach waits to happen.
    High,
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// It was read as it stands.
    Certain,
    /// It follows from what was read, but for cases that one host cannot tell apart; the evidence names them.
    Likely,
    /// It could not be read; the advice says how it can be.
    Unknown,
}

/// One thing that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// What was read.
    pub what: String,
    /// Where it stands.
    #[serde(rename = "where")]
    pub place: String,
    /// When it was read.
    pub at: EpochMs,
}

/// One weakness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule that drew it, such as `nginx.stub-status-open`.
    pub id: &'static str,
    /// What it is about: a server, a file, a port.
    pub subject: String,
    /// How much it matters.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// What is weak, as a sentence.
    pub title: String,
    /// What was read.
    pub evidence: Vec<Evidence>,
    /// What to change: lines of configuration, or a command.
    pub advice: String,
    /// When it was first drawn.
    pub since: EpochMs,
}

/// What a rule came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Nothing was read that says either way.
    Nothing,
    /// It was read that all is well.
    Clear,
    /// These are weak, and nothing else of this rule is.
    Found(Vec<Weakness>),
    /// It cannot be read.
    Unknown {
        /// Why not.
        why: String,
        /// How to grant it.
        cure: String,
    },
}

/// What a rule says of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weakness {
    /// What it is about.
    pub subject: String,
    /// How sure it is.
    pub confidence: Confidence,
    /// What was read.
    pub evidence: Vec<Evidence>,
    /// What to change.
    pub advice: String,
}

/// Something that was read, and when.
#[derive(Debug)]
pub struct Dated<'a, T> {
    /// What was read.
    pub facts: &'a T,
    /// When.
    pub at: EpochMs,
}

impl<T> Clone for Dated<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Dated<'_, T> {}

/// All that is known at one moment; `None` where nothing was read since the agent started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Knowledge<'a> {
    /// nginx's counters and who may ask for them.
    pub nginx: Option<Dated<'a, NginxFacts>>,
    /// HAProxy's counters, its servers, and where TLS ends.
    pub haproxy: Option<Dated<'a, HaproxyFacts>>,
    /// Who writes to MySQL, and whether replicas follow.
    pub mysql: Option<Dated<'a, MysqlFacts>>,
    /// TLS servers and their certificates.
    pub certificates: Option<Dated<'a, CertificateFacts>>,
    /// The firewall, and what listens.
    pub firewall: Option<Dated<'a, FirewallFacts>>,
    /// What nginx's configuration says of its logs.
    pub logs: Option<Dated<'a, Circumstances>>,
}

/// What a look at everything changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Appeared(Finding),
    /// It is mended.
    Cleared(Finding),
}

/// What stands, by rule and subject.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    standing: BTreeMap<(usize, String), Finding>,
}

impl Findings {
    /// No finding yet.
    pub fn new() -> Findings {
        Findings::default()
    }

    /// What stands, in the order of the rules.
    pub fn standing(&self) -> impl Iterator<Item = &Finding> {
        self.standing.values()
    }

    /// Draws every rule anew.
    pub fn draw(&mut self, known: &Knowledge<'_>, at: EpochMs) -> Vec<Change> {
        let mut changes = Vec::new();
        for (index, rule) in RULES.iter().enumerate() {
            let weaknesses = match (rule.draw)(known) {
                Draw::Nothing => continue,
                Draw::Clear => Vec::new(),
                Draw::Found(weaknesses) => weaknesses,
                Draw::Unknown { why, cure } => vec![Weakness {
                    subject: String::new(),
                    confidence: Confidence::Unknown,
                    evidence: vec![Evidence { what: why, place: "this host".to_owned(), at }],
                    advice: cure,
                }],
            };
            self.replace(index, rule, weaknesses, at, &mut changes);
        }
        changes
    }

    /// Puts what one rule drew in the place of what it drew before.
    fn replace(
        &mut self,
        index: usize,
        rule: &Rule,
        weaknesses: Vec<Weakness>,
        at: EpochMs,
        changes: &mut Vec<Change>,
    ) {
        let is_unknown =
            |weaknesses: &[Weakness]| weaknesses.iter().any(|weak| weak.confidence == Confidence::Unknown);
        let stands = self
            .standing
            .iter()
            .any(|((of, _), finding)| *of == index && finding.confidence != Confidence::Unknown);
        if stands && is_unknown(&weaknesses) {
            return;
        }
        let drawn: BTreeMap<String, Weakness> = weaknesses
            .into_iter()
            .take(FINDINGS_PER_RULE_MAX)
            .map(|weakness| (weakness.subject.clone(), weakness))
            .collect();
        let gone: Vec<(usize, String)> = self
            .standing
            .keys()
            .filter(|(of, subject)| *of == index && !drawn.contains_key(subject))
            .cloned()
            .collect();
        for key in gone {
            changes.extend(self.standing.remove(&key).map(Change::Cleared));
        }
        for (subject, weakness) in drawn {
            let key = (index, subject);
            let known = self.standing.get(&key).filter(|known| known.confidence == weakness.confidence);
            let is_new = known.is_none();
            let finding = rule.finding(weakness, known.map_or(at, |known| known.since));
            if is_new {
                changes.push(Change::Appeared(finding.clone()));
            }
            self.standing.insert(key, finding);
        }
    }
}

impl Rule {
    fn finding(&self, weakness: Weakness, since: EpochMs) -> Finding {
        let Weakness { subject, confidence, evidence, advice } = weakness;
        let title = match confidence {
            Confidence::Unknown => format!("it cannot be told whether {}", self.title),
            _ if subject.is_empty() => self.title.to_owned(),
            _ => format!("{}: {subject}", self.title),
        };
        Finding { id: self.id, subject, severity: self.severity, confidence, title, evidence, advice, since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::OutsideAnswer;

    fn nginx(outside: Option<u16>) -> NginxFacts {
        NginxFacts {
            url: "http://127.0.0.1/s".to_owned(),
            bracket: None,
            master: None,
            asked_from_outside: outside
                .map(|status| OutsideAnswer { url: "http://10.0.0.1/s".to_owned(), status }),
        }
    }

    fn named(changes: &[Change]) -> Vec<String> {
        let name = |change: &Change| match change {
            Change::Appeared(finding) => format!("+{} {}", finding.id, finding.subject),
            Change::Cleared(finding) => format!("-{} {}", finding.id, finding.subject),
        };
        changes.iter().map(name).collect()
    }

    #[test]
    fn a_finding_appears_once_stands_without_evidence_and_goes_when_mended() {
        let mut findings = Findings::new();
        let mut look = |facts: Option<&NginxFacts>, at| {
            let nginx = facts.map(|facts| Dated { facts, at });
            named(&findings.draw(&Knowledge { nginx, ..Knowledge::default() }, at))
        };
        let (open, shut, unsaid) = (nginx(Some(200)), nginx(Some(403)), nginx(None));
        assert_eq!(look(None, 1), [""; 0]);
        assert_eq!(look(Some(&open), 2), ["+nginx.stub-status-open http://10.0.0.1/s"]);
        assert_eq!(look(Some(&open), 3), [""; 0]);
        assert_eq!(look(None, 4), [""; 0]);
        assert_eq!(look(Some(&unsaid), 5), ["-nginx.stub-status-open http://10.0.0.1/s"]);
        assert_eq!(look(Some(&open), 6).len(), 1);
        assert_eq!(look(Some(&shut), 7).len(), 1);
        assert_eq!(findings.standing().count(), 0);
    }

    #[test]
    fn ids_are_unique() {
        let ids: std::collections::BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), RULES.len());
    }
}
