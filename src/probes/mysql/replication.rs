//! Replication as a replica sees it: what was received, what was applied, for how long nothing came, and who wrote.
//!
//! `Seconds_Behind_Master` says 0 while nothing arrives, and both threads say Yes. So positions and heartbeats are watched from
//! run to run, and time is the agent's own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::talk::Named;
use crate::facts::MysqlChannel;

/// Characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 300;

/// One transaction of MariaDB: `domain-server-sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gtid {
    pub(super) domain: u64,
    pub(super) server: u64,
    pub(super) sequence: u64,
}

impl std::fmt::Display for Gtid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

/// The transactions of a position of MariaDB's; what is none, such as a set of MySQL's, is left out.
pub(super) fn gtids(position: &str) -> Vec<Gtid> {
    let gtid = |text: &str| {
        let mut parts = text.trim().split('-').map(|part| part.parse::<u64>().ok());
        let gtid = Gtid { domain: parts.next()??, server: parts.next()??, sequence: parts.next()?? };
        parts.next().is_none().then_some(gtid)
    };
    position.split(',').filter_map(gtid).collect()
}

/// How many transactions of one server are in a set of MySQL's: `uuid:1-5:7,other:1-3`. Tags between are passed over.
fn transactions_of(set: &str, uuid: &str) -> u64 {
    let of_interval = |interval: &str| {
        let (first, last) = interval.split_once('-').unwrap_or((interval, interval));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some((last + 1).saturating_sub(first))
    };
    let of_server = |part: &str| {
        let (server, intervals) = part.trim().split_once(':')?;
        server.eq_ignore_ascii_case(uuid).then(|| intervals.split(':').filter_map(of_interval).sum::<u64>())
    };
    set.split(',').filter_map(of_server).sum()
}

/// Transactions up to `received` that are not in `applied`.
fn missing(received: &[Gtid], applied: &[Gtid]) -> u64 {
    let of_domain = |domain: u64| {
        let reached = applied.iter().filter(|gtid| gtid.domain == domain).map(|gtid| gtid.sequence);
        reached.max().unwrap_or(0)
    };
    received.iter().map(|gtid| gtid.sequence.saturating_sub(of_domain(gtid.domain))).sum()
}

/// A place in the origin's log: the file, whose names sort by their numbers, and the bytes in it.
type LogPlace = (String, u64);

/// What is remembered of each channel between runs.
#[derive(Debug, Default)]
pub(super) struct Watch {
    channels: BTreeMap<String, Remembered>,
    /// The count or the last of its own transactions, when it was first seen as a replica.
    own_at_first: Option<u64>,
    /// The same when it was last seen. It falls only where the log was begun anew.
    own_last: u64,
    own_transaction: Option<String>,
}

#[derive(Debug)]
struct Remembered {
    /// What changes when anything comes from the origin.
    sign: (LogPlace, Option<u64>),
    sign_at: Instant,
    /// The place that was received and not applied, and when that was first seen.
    waiting: Option<(LogPlace, Instant)>,
}

impl Watch {
    /// The channels of `SHOW REPLICA STATUS`, with what was seen of each before.
    pub(super) fn channels(&mut self, rows: &[Named], applied: &str, now: Instant) -> Vec<MysqlChannel> {
        let mut remembered = std::mem::take(&mut self.channels);
        let mut channels = Vec::new();
        for row in rows {
            let columns = Columns(row);
            let mut channel = channel(&columns, applied);
            let received = columns.place("Master_Log_File", "Read_Master_Log_Pos");
            let applied = columns.place("Relay_Master_Log_File", "Exec_Master_Log_Pos");
            let heartbeats = columns.number("Slave_received_heartbeats");
            let sign = (received.clone(), heartbeats);
            let known = remembered.remove(&channel.name);
            let sign_at =
                known.as_ref().filter(|known| known.sign == sign).map_or(now, |known| known.sign_at);
            let waiting = match known.and_then(|known| known.waiting) {
                _ if applied >= received => None,
                Some((place, since)) if applied < place => Some((place, since)),
                _ => Some((received, now)),
            };
            channel.waiting_ms = waiting.as_ref().map_or(0, |(_, since)| ms(now - *since));
            channel.silent_ms = heartbeats.map(|_| ms(now - sign_at));
            self.channels.insert(channel.name.clone(), Remembered { sign, sign_at, waiting });
            channels.push(channel);
        }
        channels
    }

    /// A transaction that the server made itself while it was a replica. Once seen it is remembered: later ones of the origin
    /// hide it, and undo nothing.
    pub(super) fn own_transaction(&mut self, variables: &Named, is_replica: bool) -> Option<String> {
        if !is_replica {
            (self.own_at_first, self.own_transaction) = (None, None);
            return None;
        }
        let text = |name: &str| variables.get(name).map_or("", String::as_str);
        let (now, made) = if let Some(uuid) = variables.get("server_uuid") {
            (transactions_of(text("gtid_executed"), uuid), None)
        } else {
            let server: u64 = text("server_id").parse().unwrap_or_default();
            let is_own = |gtid: &Gtid| gtid.server == server;
            let newest = |gtids: Vec<Gtid>| gtids.into_iter().filter(is_own).max_by_key(|gtid| gtid.sequence);
            let own = newest(gtids(text("gtid_binlog_state")));
            // The last of its log, and beyond what it took from the origin: not of a time when it was the origin itself.
            let applied = gtids(text("gtid_slave_pos"));
            let last = newest(gtids(text("gtid_binlog_pos"))).filter(|own| missing(&[*own], &applied) > 0);
            (own.map_or(0, |own| own.sequence), last)
        };
        if now < self.own_last {
            // RESET MASTER, or a replica that was built anew: what it wrote is gone.
            (self.own_at_first, self.own_transaction) = (None, None);
        }
        self.own_last = now;
        let before = *self.own_at_first.get_or_insert(now);
        if let Some(gtid) = made {
            self.own_transaction = Some(gtid.to_string());
        } else if now > before && self.own_transaction.is_none() {
            self.own_transaction =
                Some(format!("transaction {now} of its own, {} since the agent watches", now - before));
        }
        self.own_transaction.clone()
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn channel(columns: &Columns<'_>, applied: &str) -> MysqlChannel {
    let received = columns.text("Gtid_IO_Pos");
    let errors = [columns.text("Last_IO_Error"), columns.text("Last_SQL_Error")];
    let errors: Vec<String> =
        errors.into_iter().filter(|error| !error.is_empty()).map(without_data).collect();
    let heartbeat_s: f64 = columns.text("Slave_heartbeat_period").parse().unwrap_or(0.0);
    let name = columns.text("Connection_name");
    let transactions_behind = (!received.is_empty()).then(|| missing(&gtids(received), &gtids(applied)));
    MysqlChannel {
        name: if name.is_empty() { columns.text("Channel_Name") } else { name }.to_owned(),
        origin: format!("{}:{}", columns.text("Master_Host"), columns.text("Master_Port")),
        fetching: columns.text("Slave_IO_Running").to_owned(),
        applying: columns.text("Slave_SQL_Running").to_owned(),
        error: errors.join("; "),
        seconds_behind: columns.number("Seconds_Behind_Master"),
        delay_s: columns.number("SQL_Delay").unwrap_or(0),
        transactions_behind,
        received_position: received.to_owned(),
        waiting_ms: 0,
        silent_ms: None,
        heartbeat_ms: (heartbeat_s * 1000.0) as u64,
    }
}

/// An error without what customers wrote: the statement that failed, and the key that stood there already.
fn without_data(error: &str) -> String {
    let head = error.split(" Query: ").next().unwrap_or_default();
    let head: String = head.chars().take(ERROR_CHARS_MAX).collect();
    match (head.split_once("entry '"), head.rsplit_once("' for key")) {
        (Some((before, _)), Some((_, behind))) => format!("{before}entry '***' for key{behind}"),
        _ => head,
    }
}

/// The columns of a row under the names that all versions had at first; MySQL 8.0.22 renamed them.
struct Columns<'a>(&'a Named);

impl<'a> Columns<'a> {
    fn text(&self, name: &str) -> &'a str {
        let renamed = name.replace("Master", "Source").replace("Slave", "Replica");
        self.0.get(name).or_else(|| self.0.get(&renamed)).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    fn place(&self, file: &str, offset: &str) -> LogPlace {
        (self.text(file).to_owned(), self.number(offset).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a MariaDB 10.11 replica whose SQL thread met a key that stood there already.
    const BROKEN: &str = include_str!("tests/replica-broken.txt");
    /// Of a MariaDB 10.11 replica in good order.
    const WELL: &str = include_str!("tests/replica.txt");

    /// A row as the client's `\G` prints it.
    fn row(text: &str) -> Named {
        let pair = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().to_owned(), value.trim().to_owned())).filter(|(_, value)| value != "NULL")
        };
        text.lines().filter_map(pair).collect()
    }

    fn seconds(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_replica_of_mariadb_is_read() {
        let now = Instant::now();
        let mut watch = Watch::default();
        let found = watch.channels(&[row(WELL)], "0-1-5", now).remove(0);
        assert_eq!((found.fetching.as_str(), found.applying.as_str()), ("Yes", "Yes"));
        assert_eq!((found.origin.as_str(), found.seconds_behind), ("127.0.0.1:28306", Some(0)));
        assert_eq!((found.transactions_behind, found.heartbeat_ms), (Some(0), 1000));
        assert_eq!((found.silent_ms, found.waiting_ms, found.error.as_str()), (Some(0), 0, ""));
        let broken = watch.channels(&[row(BROKEN)], "0-1-5", now).remove(0);
        assert_eq!((broken.applying.as_str(), broken.seconds_behind), ("No", None));
        assert_eq!(
            broken.error,
            "Error 'Duplicate entry '***' for key 'PRIMARY'' on query. Default database: ''."
        );
        assert_eq!(broken.transactions_behind, Some(1));
        // The same under the names of MySQL 8.0.22 and later.
        let renamed = row(&WELL.replace("Master", "Source").replace("Slave", "Replica"));
        assert_eq!(Watch::default().channels(&[renamed], "0-1-5", now).remove(0).origin, "127.0.0.1:28306");
    }

    #[test]
    fn silence_and_lag_are_timed_from_what_changes() {
        let start = Instant::now();
        let mut watch = Watch::default();
        let mut see = |received: u64, applied: u64, heartbeats: u64, at: u64| {
            let mut row = row(WELL);
            for (name, value) in [
                ("Read_Master_Log_Pos", received),
                ("Exec_Master_Log_Pos", applied),
                ("Slave_received_heartbeats", heartbeats),
            ] {
                row.insert(name.to_owned(), value.to_string());
            }
            let found = watch.channels(&[row], "0-1-5", seconds(start, at)).remove(0);
            (found.silent_ms, found.waiting_ms)
        };
        assert_eq!(see(10, 10, 1, 0), (Some(0), 0));
        assert_eq!(see(10, 10, 1, 5), (Some(5_000), 0), "nothing came");
        assert_eq!(see(10, 10, 2, 10), (Some(0), 0), "a heartbeat");
        assert_eq!(see(20, 10, 2, 15), (Some(0), 0), "a transaction, to be applied");
        assert_eq!(see(30, 19, 2, 20), (Some(0), 5_000), "it is not yet");
        assert_eq!(see(40, 20, 2, 25), (Some(0), 0), "now it is, and others wait");
        assert_eq!(see(40, 39, 2, 35), (Some(10_000), 10_000));
        assert_eq!(see(40, 40, 2, 40), (Some(15_000), 0));
    }

    #[test]
    fn writes_of_a_replica_are_told_from_those_of_a_former_primary() {
        let variables = |state: &str, last: &str, applied: &str| {
            let named = [
                ("server_id", "2"),
                ("gtid_binlog_state", state),
                ("gtid_binlog_pos", last),
                ("gtid_slave_pos", applied),
            ];
            named.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect::<Named>()
        };
        let mut watch = Watch::default();
        // It was the primary until 0-2-100, and follows 0-1 since.
        assert_eq!(watch.own_transaction(&variables("0-2-100", "0-2-100", "0-2-100"), true), None);
        assert_eq!(watch.own_transaction(&variables("0-2-100,0-1-105", "0-1-105", "0-1-105"), true), None);
        // Now somebody writes to it, and the origin goes on.
        let written = watch.own_transaction(&variables("0-1-105,0-2-106", "0-2-106", "0-1-105"), true);
        assert_eq!(written.as_deref(), Some("0-2-106"));
        let later = watch.own_transaction(&variables("0-2-106,0-1-110", "0-1-110", "0-1-110"), true);
        assert_eq!(later.as_deref(), Some("0-2-106"), "it is not forgotten");
        assert_eq!(
            watch.own_transaction(&variables("0-1-111", "0-1-111", "0-1-111"), true),
            None,
            "built anew"
        );
        assert_eq!(watch.own_transaction(&variables("0-2-120", "0-2-120", ""), false), None, "promoted");
        // Written between two looks, and already hidden by the origin's next.
        let mut watch = Watch::default();
        watch.own_transaction(&variables("0-2-100,0-1-105", "0-1-105", "0-1-105"), true);
        let hidden = watch.own_transaction(&variables("0-2-106,0-1-107", "0-1-107", "0-1-107"), true);
        assert!(hidden.is_some_and(|said| said.contains("106")));
        // MySQL's sets.
        let mut watch = Watch::default();
        let mysql = |set: &str| {
            let named = [("server_uuid", "aa-1"), ("gtid_executed", set)];
            named.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect::<Named>()
        };
        assert_eq!(watch.own_transaction(&mysql("bb-2:1-77,AA-1:1-5:7-8"), true), None);
        assert_eq!(watch.own_transaction(&mysql("bb-2:1-99,aa-1:1-5:7-8"), true), None);
        assert!(watch.own_transaction(&mysql("bb-2:1-99,aa-1:1-9"), true).is_some());
    }

    #[test]
    fn positions_are_read_and_compared_by_domain() {
        let found = gtids("0-1-5, 7-2-18446744073709551615,x,1-2,1-2-3-4,");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].to_string(), "0-1-5");
        assert_eq!(missing(&gtids("0-1-9,1-1-4"), &gtids("0-1-7,2-1-9")), 2 + 4);
        assert_eq!(missing(&gtids("0-1-9"), &gtids("0-2-12")), 0);
        assert_eq!(transactions_of("u:1-5:9,v:1-3", "u"), 6);
        assert_eq!(transactions_of("u:tag:1-5", "u"), 5);
    }
}
