//! Who writes to MySQL, and whether replicas follow.

use super::{Confidence, Dated, Draw, Evidence, Rule, Severity, Weakness};
use crate::facts::{MysqlChannel, MysqlFacts};

/// A transaction that waits longer than this on a replica, beyond the delay that is wanted, is late.
const LAG_MS_MAX: u64 = 30_000;
/// Heartbeats come at least this often, as a share of their interval in per cent. More patience would be too late: a replica
/// itself gives up after two intervals by default, and is broken from then on.
const SILENCE_PERCENT_MAX: u64 = 150;

/// Nobody takes over when this server goes.
pub(super) static SINGLE_WRITER: Rule = Rule {
    id: "mysql.single-writer",
    severity: Severity::High,
    title: "a single MySQL server takes all writes",
    draw: |known| {
        let Some(mysql) = known.mysql else { return Draw::Nothing };
        let facts = mysql.facts;
        // A node of a ring replicates from another that takes writes too; a replica is not the writer.
        if !facts.is_writable || facts.cluster.is_some() || facts.is_replica {
            return Draw::Clear;
        }
        let attached = match facts.replicas_attached {
            None => "it does not tell its replicas".to_owned(),
            Some(1) => "1 replica attached".to_owned(),
            Some(count) => format!("{count} replicas attached"),
        };
        let what = format!(
            "read_only OFF, wsrep_on OFF, no group replication, replicates from nobody, {attached}; writers on other hosts that do \
             not replicate here cannot be seen"
        );
        let advice = "add a second node that can take writes: Galera (wsrep_on=ON) with three nodes, or a second primary in a ring \
                      with auto_increment_increment=2 and different auto_increment_offset; and fail over by itself (MaxScale, \
                      ProxySQL with Orchestrator), since a replica takes no writes until somebody promotes it";
        found(mysql, server(facts), Confidence::Likely, what, advice.to_owned())
    },
};

/// Replication stands still.
pub(super) static REPLICA_BROKEN: Rule = Rule {
    id: "mysql.replica-broken",
    severity: Severity::High,
    title: "a MySQL replica does not replicate",
    draw: |known| {
        per_channel(known.mysql, |mysql, channel| {
            let stands = |thread: &str| matches!(thread, "No" | "Connecting");
            if !stands(&channel.fetching) && !stands(&channel.applying) {
                return None;
            }
            let said = if channel.error.is_empty() { "no error: it was stopped" } else { &channel.error };
            let what = format!("fetching: {}, applying: {}; {said}", channel.fetching, channel.applying);
            let advice = if stands(&channel.applying) {
                "mend what the error names, then START SLAVE (START REPLICA); where the data differ, build the replica anew from a \
                 backup of the primary rather than skip transactions"
            } else {
                "let the replica reach the primary (firewall, user, password), then START SLAVE (START REPLICA)"
            };
            Some(weakness(mysql, subject(channel), Confidence::Certain, what, advice.to_owned()))
        })
    },
};

/// Readers of the replica see old data, and a failover loses what waits.
pub(super) static REPLICA_LAGGING: Rule = Rule {
    id: "mysql.replica-lagging",
    severity: Severity::Medium,
    title: "a MySQL replica is late",
    draw: |known| {
        per_channel(known.mysql, |mysql, channel| {
            let told_ms = channel.seconds_behind.unwrap_or(0).saturating_mul(1000);
            let late_ms =
                channel.waiting_ms.max(told_ms).saturating_sub(channel.delay_s.saturating_mul(1000));
            if late_ms < LAG_MS_MAX {
                return None;
            }
            let count = channel.transactions_behind;
            let waiting = count
                .map_or(String::new(), |count| format!("{count} transactions received and not applied, "));
            let told = channel.seconds_behind.map_or("NULL".to_owned(), |seconds| seconds.to_string());
            let what = format!(
                "{waiting}the oldest for {} s or more; Seconds_Behind_Master {told}; received {}, applied {}",
                channel.waiting_ms / 1000,
                channel.received_position,
                mysql.facts.applied_position
            );
            let advice = "apply in parallel (slave_parallel_threads, replica_parallel_workers), look for long transactions and for \
                          tables without a primary key, or give the replica a faster disk"
                .to_owned();
            Some(weakness(mysql, subject(channel), Confidence::Certain, what, advice))
        })
    },
};

/// A replica that hears nothing believes that it is up to date.
pub(super) static REPLICA_PARTITIONED: Rule = Rule {
    id: "mysql.replica-partitioned",
    severity: Severity::High,
    title: "a MySQL replica hears nothing of its primary and does not say so",
    draw: |known| {
        per_channel(known.mysql, |mysql, channel| {
            let silent_ms =
                channel.silent_ms.filter(|_| channel.heartbeat_ms > 0 && channel.fetching == "Yes")?;
            if silent_ms <= channel.heartbeat_ms.saturating_mul(SILENCE_PERCENT_MAX) / 100 {
                return None;
            }
            let what = format!(
                "neither a transaction nor a heartbeat for {} s, where one is due every {} s; the replica says fetching: Yes, \
                 Seconds_Behind_Master: {}",
                silent_ms / 1000,
                channel.heartbeat_ms as f64 / 1000.0,
                channel.seconds_behind.unwrap_or(0)
            );
            let advice = "look at the primary and the network between: it hangs, or packets are dropped without an answer; until \
                          then do not read from this replica, and do not promote it without comparing its gtid_slave_pos"
                .to_owned();
            Some(weakness(mysql, subject(channel), Confidence::Likely, what, advice))
        })
    },
};

/// What a replica writes itself is on no other server, and the next transaction of the primary may meet it.
pub(super) static REPLICA_WRITTEN: Rule = Rule {
    id: "mysql.replica-written",
    severity: Severity::High,
    title: "a MySQL replica was written to",
    draw: |known| {
        let Some(mysql) = known.mysql else { return Draw::Nothing };
        let facts = mysql.facts;
        // Several servers hand out keys: a ring, where each writes.
        if !facts.is_replica || facts.cluster.is_some() || facts.key_step > 1 {
            return Draw::Clear;
        }
        let Some(transaction) = &facts.own_transaction else { return Draw::Clear };
        let (confidence, read_only) = if facts.is_writable {
            (Confidence::Likely, "OFF, so it may be meant to take writes")
        } else {
            (Confidence::Certain, "ON, which does not stop users with SUPER or READ_ONLY ADMIN, such as root")
        };
        let what = format!(
            "{transaction} was made here (server_id {}) while replicating; its log ends at {}, and {} was applied; read_only {read_only}",
            facts.server_id, facts.written_position, facts.applied_position
        );
        let advice = "find out who wrote (mysqlbinlog --start-position), undo it or build the replica anew from a backup of the \
                      primary; what must be done on a replica alone, do after SET SESSION sql_log_bin = 0";
        found(mysql, server(facts), confidence, what, advice.to_owned())
    },
};

fn server(facts: &MysqlFacts) -> String {
    format!("server_id {} at {}", facts.server_id, facts.source)
}

fn subject(channel: &MysqlChannel) -> String {
    match channel.name.as_str() {
        "" => format!("from {}", channel.origin),
        name => format!("{name} from {}", channel.origin),
    }
}

/// What is weak about each replication; nothing where this server has none.
fn per_channel(
    mysql: Option<Dated<'_, MysqlFacts>>,
    judge: impl Fn(Dated<'_, MysqlFacts>, &MysqlChannel) -> Option<Weakness>,
) -> Draw {
    let Some(mysql) = mysql else { return Draw::Nothing };
    let Some(channels) = &mysql.facts.channels else {
        let user = &mysql.facts.user;
        return Draw::Unknown {
            why: format!("{user} may not see the state of replication at {}", mysql.facts.source),
            cure: format!(
                "GRANT REPLICA MONITOR ON *.* TO {user}@localhost; (MySQL, and MariaDB before 10.5: REPLICATION CLIENT)"
            ),
        };
    };
    let weaknesses: Vec<Weakness> = channels.iter().filter_map(|channel| judge(mysql, channel)).collect();
    if weaknesses.is_empty() { Draw::Clear } else { Draw::Found(weaknesses) }
}

fn found(
    mysql: Dated<'_, MysqlFacts>,
    subject: String,
    confidence: Confidence,
    what: String,
    advice: String,
) -> Draw {
    Draw::Found(vec![weakness(mysql, subject, confidence, what, advice)])
}

fn weakness(
    mysql: Dated<'_, MysqlFacts>,
    subject: String,
    confidence: Confidence,
    what: String,
    advice: String,
) -> Weakness {
    let place = format!("{} {}", mysql.facts.source, mysql.facts.version);
    Weakness { subject, confidence, evidence: vec![Evidence { what, place, at: mysql.at }], advice }
}

#[cfg(test)]
mod tests {
    use super::super::Knowledge;
    use super::*;

    fn draw(rule: &Rule, facts: &MysqlFacts) -> Draw {
        (rule.draw)(&Knowledge { mysql: Some(Dated { facts, at: 7 }), ..Knowledge::default() })
    }

    fn the_one(rule: &Rule, facts: &MysqlFacts) -> Weakness {
        match draw(rule, facts) {
            Draw::Found(mut found) if found.len() == 1 => found.remove(0),
            other => panic!("{}: {other:?}", rule.id),
        }
    }

    fn primary() -> MysqlFacts {
        MysqlFacts {
            source: "/run/mysqld/mysqld.sock".to_owned(),
            user: "watchpost".to_owned(),
            server_id: 1,
            is_writable: true,
            key_step: 1,
            replicas_attached: Some(1),
            channels: Some(Vec::new()),
            ..MysqlFacts::default()
        }
    }

    fn replica(change: impl FnOnce(&mut MysqlChannel)) -> MysqlFacts {
        let mut channel = MysqlChannel {
            origin: "db1:3306".to_owned(),
            fetching: "Yes".to_owned(),
            applying: "Yes".to_owned(),
            seconds_behind: Some(0),
            silent_ms: Some(900),
            heartbeat_ms: 1_000,
            ..MysqlChannel::default()
        };
        change(&mut channel);
        MysqlFacts {
            server_id: 2,
            is_writable: false,
            is_replica: true,
            channels: Some(vec![channel]),
            ..primary()
        }
    }

    #[test]
    fn a_single_writer_is_one_that_nobody_shares_the_writes_with() {
        let found = the_one(&SINGLE_WRITER, &primary());
        assert_eq!(found.confidence, Confidence::Likely);
        assert!(found.evidence[0].what.contains("1 replica attached"), "{found:?}");
        let clear = |change: fn(&mut MysqlFacts)| {
            let mut facts = primary();
            change(&mut facts);
            assert_eq!(draw(&SINGLE_WRITER, &facts), Draw::Clear, "{facts:?}");
        };
        clear(|facts| facts.is_writable = false);
        clear(|facts| facts.cluster = Some("Galera".to_owned()));
        clear(|facts| facts.is_replica = true);
        // What may not be read of replication is told by its status all the same.
        assert_eq!(
            the_one(&SINGLE_WRITER, &MysqlFacts { channels: None, ..primary() }).subject,
            found.subject
        );
    }

    #[test]
    fn replication_that_stands_is_late_or_hears_nothing_is_found() {
        let well = replica(|_| {});
        for rule in [&REPLICA_BROKEN, &REPLICA_LAGGING, &REPLICA_PARTITIONED, &REPLICA_WRITTEN] {
            assert_eq!(draw(rule, &well), Draw::Clear, "{}", rule.id);
            assert_eq!(draw(rule, &primary()), Draw::Clear, "{}", rule.id);
        }
        let error = "Error 'Duplicate entry'".to_owned();
        let broken = replica(|channel| (channel.applying, channel.error) = ("No".to_owned(), error));
        let found = the_one(&REPLICA_BROKEN, &broken);
        assert_eq!(found.subject, "from db1:3306");
        assert!(found.evidence[0].what.contains("applying: No; Error 'Duplicate entry'"), "{found:?}");
        let refused = replica(|channel| channel.fetching = "Connecting".to_owned());
        assert!(the_one(&REPLICA_BROKEN, &refused).advice.contains("reach the primary"));

        assert_eq!(draw(&REPLICA_LAGGING, &replica(|channel| channel.waiting_ms = 29_000)), Draw::Clear);
        let late = replica(|channel| (channel.waiting_ms, channel.transactions_behind) = (31_000, Some(4)));
        assert!(the_one(&REPLICA_LAGGING, &late).evidence[0].what.contains("4 transactions received"));
        the_one(&REPLICA_LAGGING, &replica(|channel| channel.seconds_behind = Some(40)));
        let wanted = replica(|channel| (channel.seconds_behind, channel.delay_s) = (Some(3_610), 3_600));
        assert_eq!(draw(&REPLICA_LAGGING, &wanted), Draw::Clear, "the delay is wanted");

        let silent = replica(|channel| channel.silent_ms = Some(6_000));
        assert!(the_one(&REPLICA_PARTITIONED, &silent).evidence[0].what.contains("for 6 s"));
        for change in [
            (|channel| channel.silent_ms = None) as fn(&mut MysqlChannel),
            |channel| (channel.silent_ms, channel.heartbeat_ms) = (Some(6_000), 0),
            |channel| (channel.silent_ms, channel.fetching) = (Some(6_000), "Connecting".to_owned()),
        ] {
            assert_eq!(draw(&REPLICA_PARTITIONED, &replica(change)), Draw::Clear);
        }
    }

    #[test]
    fn a_written_replica_is_found_and_a_ring_is_not() {
        let mut facts = replica(|_| {});
        facts.own_transaction = Some("0-2-106".to_owned());
        let found = the_one(&REPLICA_WRITTEN, &facts);
        assert_eq!(found.confidence, Confidence::Certain);
        assert!(found.evidence[0].what.contains("0-2-106 was made here"), "{found:?}");
        facts.is_writable = true;
        assert_eq!(the_one(&REPLICA_WRITTEN, &facts).confidence, Confidence::Likely);
        facts.key_step = 2;
        assert_eq!(draw(&REPLICA_WRITTEN, &facts), Draw::Clear);
    }

    #[test]
    fn what_may_not_be_read_is_unknown_with_the_grant() {
        let facts = MysqlFacts { channels: None, ..primary() };
        let Draw::Unknown { cure, .. } = draw(&REPLICA_BROKEN, &facts) else { panic!("it was not read") };
        assert!(cure.contains("GRANT REPLICA MONITOR ON *.* TO watchpost@localhost"), "{cure}");
    }
}
