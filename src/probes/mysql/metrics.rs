//! The metrics of MySQL: OpenTelemetry's names in records, mysqld_exporter's on `/metrics`.

use super::replication::{Gtid, gtids};
use super::talk::Named;
use crate::facts::{MysqlChannel, MysqlFacts};
use crate::record::{Metric, Reading};

/// Domains of a position that become metrics.
const GTIDS_MAX: usize = 32;

static UPTIME: Metric =
    Metric::counter("mysql.uptime", "s", "mysql_global_status_uptime", "Since the server started");
static QUERIES: Metric = Metric::counter(
    "mysql.query.count",
    "{query}",
    "mysql_global_status_queries",
    "Statements that the server ran, those within stored programs too",
);
static QUESTIONS: Metric = Metric::counter(
    "mysql.query.client.count",
    "{query}",
    "mysql_global_status_questions",
    "Statements that clients sent",
);
static SLOW: Metric = Metric::counter(
    "mysql.query.slow.count",
    "{query}",
    "mysql_global_status_slow_queries",
    "Statements that took longer than long_query_time",
);
static CONNECTIONS: Metric = Metric::counter(
    "mysql.connection.count",
    "{connection}",
    "mysql_global_status_connections",
    "Attempts to connect",
);
static CONNECTIONS_USED: Metric = Metric::gauge(
    "mysql.max_used_connections",
    "{connection}",
    "mysql_global_status_max_used_connections",
    "The most connections at once since the server started",
);
static CONNECTIONS_MAX: Metric = Metric::gauge(
    "watchpost.mysql.max_connections",
    "{connection}",
    "mysql_global_variables_max_connections",
    "Limit of connections",
);
static ERRORS: Metric = Metric::counter(
    "mysql.connection.errors",
    "{error}",
    "mysql_global_status_connection_errors_total",
    "Connections that failed or broke off",
)
.by(&["error"], &[""])
.named_by_value(&[
    ("aborted", "mysql_global_status_aborted_connects"),
    ("aborted_clients", "mysql_global_status_aborted_clients"),
]);
static THREADS: Metric =
    Metric::gauge("mysql.threads", "{thread}", "mysql_global_status_threads", "Threads by state")
        .by(&["kind"], &[""])
        .named_by_value(&[
            ("connected", "mysql_global_status_threads_connected"),
            ("running", "mysql_global_status_threads_running"),
        ]);
static COMMANDS: Metric = Metric::counter(
    "mysql.commands",
    "{command}",
    "mysql_global_status_commands_total",
    "Statements by command",
)
.by(&["command"], &["command"]);
static NETWORK: Metric = Metric::counter(
    "mysql.client.network.io",
    "By",
    "mysql_global_status_bytes",
    "Bytes between server and clients",
)
.by(&["kind"], &[""])
.named_by_value(&[
    ("received", "mysql_global_status_bytes_received"),
    ("sent", "mysql_global_status_bytes_sent"),
]);
static ROW_LOCKS: Metric = Metric::counter(
    "mysql.row_locks",
    "1",
    "mysql_global_status_innodb_row_lock",
    "Waits for row locks, and their time in milliseconds",
)
.by(&["kind"], &[""])
.named_by_value(&[
    ("waits", "mysql_global_status_innodb_row_lock_waits"),
    ("time", "mysql_global_status_innodb_row_lock_time"),
]);
static BUFFER_POOL: Metric = Metric::counter(
    "mysql.buffer_pool.operations",
    "{operation}",
    "mysql_global_status_innodb_buffer_pool",
    "Reads that the buffer pool was asked for, and those that went to disk",
)
.by(&["operation"], &[""])
.named_by_value(&[
    ("read_requests", "mysql_global_status_innodb_buffer_pool_read_requests"),
    ("reads", "mysql_global_status_innodb_buffer_pool_reads"),
]);
static READ_ONLY: Metric = Metric::gauge(
    "watchpost.mysql.read_only",
    "1",
    "mysql_global_variables_read_only",
    "Whether ordinary users may only read",
);
static REPLICAS: Metric = Metric::gauge(
    "watchpost.mysql.replicas_attached",
    "{replica}",
    "mysql_global_status_slaves_connected",
    "Replicas that are connected",
);
static FETCHING: Metric = Metric::gauge(
    "watchpost.mysql.replica.fetching",
    "1",
    "mysql_slave_status_slave_io_running",
    "Whether transactions are fetched from the origin",
)
.by(BY_CHANNEL, CHANNEL_LABELS);
static APPLYING: Metric = Metric::gauge(
    "watchpost.mysql.replica.applying",
    "1",
    "mysql_slave_status_slave_sql_running",
    "Whether fetched transactions are applied",
)
.by(BY_CHANNEL, CHANNEL_LABELS);
static BEHIND: Metric = Metric::gauge(
    "mysql.replica.time_behind_source",
    "s",
    "mysql_slave_status_seconds_behind_master",
    "What the replica takes for its lag; 0 while nothing arrives",
)
.by(BY_CHANNEL, CHANNEL_LABELS);
static DELAY: Metric =
    Metric::gauge("mysql.replica.sql_delay", "s", "mysql_slave_status_sql_delay", "The lag that is wanted")
        .by(BY_CHANNEL, CHANNEL_LABELS);
static UNAPPLIED: Metric = Metric::gauge(
    "watchpost.mysql.replica.transactions_behind",
    "{transaction}",
    "watchpost_mysql_replica_transactions_behind",
    "Transactions that were received and are not applied",
)
.by(BY_CHANNEL, CHANNEL_LABELS);
static SILENT: Metric = Metric::gauge(
    "watchpost.mysql.replica.silent",
    "s",
    "watchpost_mysql_replica_silent_seconds",
    "Since a transaction or a heartbeat last came from the origin",
)
.by(BY_CHANNEL, CHANNEL_LABELS);
/// By these a primary and its replicas are compared: the same domain, `binlog` there and `applied` here.
static POSITION: Metric = Metric::counter(
    "watchpost.mysql.gtid.sequence",
    "{transaction}",
    "watchpost_mysql_gtid_sequence",
    "The last transaction of each domain, by its sequence number",
)
.by(&["position", "domain", "server_id"], &["position", "domain", "server_id"]);

const BY_CHANNEL: &[&str] = &["channel", "origin"];
const CHANNEL_LABELS: &[&str] = &["channel_name", "master_host"];

/// Every metric of MySQL.
pub(super) const ALL: &[&Metric] = &[
    &UPTIME,
    &QUERIES,
    &QUESTIONS,
    &SLOW,
    &CONNECTIONS,
    &CONNECTIONS_USED,
    &CONNECTIONS_MAX,
    &ERRORS,
    &THREADS,
    &COMMANDS,
    &NETWORK,
    &ROW_LOCKS,
    &BUFFER_POOL,
    &READ_ONLY,
    &REPLICAS,
    &FETCHING,
    &APPLYING,
    &BEHIND,
    &DELAY,
    &UNAPPLIED,
    &SILENT,
    &POSITION,
];

/// The names of `SHOW GLOBAL STATUS` that become metrics, in lower case, each with the value of its attribute.
pub(super) const STATUS: &[(&str, &Metric, &str)] = &[
    ("uptime", &UPTIME, ""),
    ("queries", &QUERIES, ""),
    ("questions", &QUESTIONS, ""),
    ("slow_queries", &SLOW, ""),
    ("connections", &CONNECTIONS, ""),
    ("max_used_connections", &CONNECTIONS_USED, ""),
    ("aborted_connects", &ERRORS, "aborted"),
    ("aborted_clients", &ERRORS, "aborted_clients"),
    ("connection_errors_max_connections", &ERRORS, "max_connections"),
    ("threads_connected", &THREADS, "connected"),
    ("threads_running", &THREADS, "running"),
    ("com_select", &COMMANDS, "select"),
    ("com_insert", &COMMANDS, "insert"),
    ("com_update", &COMMANDS, "update"),
    ("com_delete", &COMMANDS, "delete"),
    ("bytes_received", &NETWORK, "received"),
    ("bytes_sent", &NETWORK, "sent"),
    ("innodb_row_lock_waits", &ROW_LOCKS, "waits"),
    ("innodb_row_lock_time", &ROW_LOCKS, "time"),
    ("innodb_buffer_pool_read_requests", &BUFFER_POOL, "read_requests"),
    ("innodb_buffer_pool_reads", &BUFFER_POOL, "reads"),
];

/// What the server tells of itself.
pub(super) fn readings(status: &Named, variables: &Named, facts: &MysqlFacts) -> Vec<Reading> {
    let number = |named: &Named, name: &str| named.get(name)?.parse::<f64>().ok();
    let mut readings: Vec<Reading> = Vec::new();
    for (name, metric, attribute) in STATUS {
        let Some(value) = number(status, name) else { continue };
        readings.push(match metric.attributes {
            [] => Reading::new(metric, [], value),
            _ => Reading::new(metric, [attribute], value),
        });
    }
    let limit = number(variables, "max_connections");
    readings.extend(limit.map(|limit| Reading::new(&CONNECTIONS_MAX, [], limit)));
    readings.push(Reading::new(&READ_ONLY, [], truth(!facts.is_writable)));
    readings.extend(facts.replicas_attached.map(|count| Reading::new(&REPLICAS, [], count as f64)));
    let binlog = gtids(&facts.written_position);
    let applied = gtids(&facts.applied_position);
    readings.extend(positions("binlog", &binlog).chain(positions("applied", &applied)));
    for channel in facts.channels.iter().flatten() {
        readings.extend(of_channel(channel));
    }
    readings
}

fn of_channel(channel: &MysqlChannel) -> Vec<Reading> {
    let by = [channel.name.as_str(), channel.origin.as_str()];
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let values = [
        (&FETCHING, Some(truth(channel.fetching == "Yes"))),
        (&APPLYING, Some(truth(channel.applying == "Yes"))),
        (&BEHIND, channel.seconds_behind.map(|seconds| seconds as f64)),
        (&DELAY, Some(channel.delay_s as f64)),
        (&UNAPPLIED, channel.transactions_behind.map(|count| count as f64)),
        (&SILENT, channel.silent_ms.map(seconds)),
    ];
    let readings = values.into_iter().filter_map(|(metric, value)| Some(Reading::new(metric, by, value?)));
    let received = gtids(&channel.received_position);
    readings.chain(positions("received", &received)).collect()
}

fn positions<'a>(position: &'a str, gtids: &'a [Gtid]) -> impl Iterator<Item = Reading> + 'a {
    gtids.iter().take(GTIDS_MAX).map(move |gtid| {
        let (domain, server) = (gtid.domain.to_string(), gtid.server.to_string());
        Reading::new(&POSITION, [position, &domain, &server], gtid.sequence as f64)
    })
}

fn truth(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}
