//! The metrics of HAProxy: OpenTelemetry's names in records, those of HAProxy's own exporter on `/metrics`.
//!
//! One table for all that a row of `show stat` tells; a row is of a frontend, a backend or a server.

use watchpost_parsers::haproxy::{Info, Kind, Numbers, StatRow};

use crate::record::{Metric, Reading};

/// Rows that become metrics, frontends and backends first; more would fill the records of an agent with nothing else.
const ROWS_MAX: usize = 200;

const MILLISECOND: f64 = 0.001;

/// Names a metric for each column, and says how to read it. The last part of the name on `/metrics` is the same for all three
/// kinds of rows.
macro_rules! row_metrics {
    ($($id:ident: $kind:ident($name:literal, $unit:literal, $suffix:literal, $help:literal), $column:ident * $scale:expr;)*) => {
        $(static $id: Metric = Metric::$kind($name, $unit, concat!("haproxy_server_", $suffix), $help)
            .by(&["proxy", "server"], &["proxy", ""])
            .named_by_value(&[
                ("FRONTEND", concat!("haproxy_frontend_", $suffix)),
                ("BACKEND", concat!("haproxy_backend_", $suffix)),
            ]);)*
        const BY_ROW: &[(&Metric, fn(&Numbers) -> Option<u64>, f64)] =
            &[$((&$id, |numbers| numbers.$column, $scale),)*];
        /// Every metric of HAProxy.
        pub(super) const ALL: &[&Metric] = &[
            $(&$id,)* &ANSWERS, &STATUS, &UPTIME, &DROPPED_LOGS, &CONNECTIONS, &CONNECTIONS_MAX, &TLS_RATE, &IDLE, &OMITTED,
        ];
    };
}

row_metrics! {
    REQUESTS: counter("watchpost.haproxy.http_requests", "{request}", "http_requests_total", "HTTP requests"), req_tot * 1.0;
    SESSIONS: gauge("haproxy.sessions.count", "{session}", "current_sessions", "Sessions now"), scur * 1.0;
    SESSIONS_MAX: gauge("watchpost.haproxy.sessions_limit", "{session}", "limit_sessions", "Limit of sessions"), slim * 1.0;
    SESSIONS_TOTAL: counter("haproxy.sessions.total", "{session}", "sessions_total", "Sessions"), stot * 1.0;
    QUEUED: gauge("haproxy.requests.queued", "{request}", "current_queue", "Requests in the queue now"), qcur * 1.0;
    BYTES_IN: counter("haproxy.bytes.input", "By", "bytes_in_total", "Bytes from clients"), bin * 1.0;
    BYTES_OUT: counter("haproxy.bytes.output", "By", "bytes_out_total", "Bytes to clients"), bout * 1.0;
    DENIED: counter("haproxy.requests.denied", "{request}", "requests_denied_total", "Requests that a rule denied"), dreq * 1.0;
    BAD_REQUESTS: counter("haproxy.requests.errors", "{error}", "request_errors_total", "Requests that were no good"), ereq * 1.0;
    BAD_ANSWERS: counter("haproxy.responses.errors", "{error}", "response_errors_total", "Answers of servers that were no good"), eresp * 1.0;
    BAD_CONNECTIONS: counter("haproxy.connections.errors", "{error}", "connection_errors_total", "Connections to servers that failed"), econ * 1.0;
    RETRIES: counter("haproxy.connections.retries", "{retry}", "retry_warnings_total", "Connections to servers that were tried again"), wretr * 1.0;
    REDISPATCHES: counter("haproxy.requests.redispatched", "{request}", "redispatch_warnings_total", "Requests that were sent to another server"), wredis * 1.0;
    CLIENT_ABORTS: counter("haproxy.clients.canceled", "{cancellation}", "client_aborts_total", "Transfers that clients gave up"), cli_abrt * 1.0;
    SERVER_ABORTS: counter("watchpost.haproxy.server_aborts", "{cancellation}", "server_aborts_total", "Transfers that servers gave up"), srv_abrt * 1.0;
    RESPONSE_TIME: gauge("watchpost.haproxy.response_time", "s", "response_time_average_seconds", "Time to the answer, average over the last 1024 requests"), rtime * MILLISECOND;
    CHECK_FAILURES: counter("haproxy.failed_checks", "{check}", "check_failures_total", "Checks that failed while the server was up"), chkfail * 1.0;
}

static ANSWERS: Metric = Metric::counter(
    "haproxy.requests.total",
    "{request}",
    "haproxy_server_http_responses_total",
    "HTTP answers",
)
.by(&["proxy", "server", "status_code"], &["proxy", "", "code"])
.named_by_value(&[
    ("FRONTEND", "haproxy_frontend_http_responses_total"),
    ("BACKEND", "haproxy_backend_http_responses_total"),
]);
static STATUS: Metric = Metric::gauge(
    "watchpost.haproxy.server_status",
    "1",
    "haproxy_server_status",
    "Whether a server is in this state",
)
.by(&["proxy", "server", "state"], &["proxy", "server", "state"]);
static UPTIME: Metric = Metric::gauge(
    "watchpost.haproxy.uptime",
    "s",
    "haproxy_process_uptime_seconds",
    "Since HAProxy's process started",
);
static DROPPED_LOGS: Metric = Metric::counter(
    "watchpost.haproxy.dropped_logs",
    "{line}",
    "haproxy_process_dropped_logs_total",
    "Log lines that HAProxy could not send",
);
static CONNECTIONS: Metric = Metric::gauge(
    "watchpost.haproxy.connections",
    "{connection}",
    "haproxy_process_current_connections",
    "Connections of clients now",
);
static CONNECTIONS_MAX: Metric = Metric::gauge(
    "watchpost.haproxy.connections_limit",
    "{connection}",
    "haproxy_process_max_connections",
    "Limit of connections",
);
static TLS_RATE: Metric = Metric::gauge(
    "watchpost.haproxy.tls_session_rate",
    "{session}/s",
    "haproxy_process_current_ssl_rate",
    "TLS sessions in the last second",
);
static IDLE: Metric = Metric::gauge(
    "watchpost.haproxy.idle_percent",
    "%",
    "haproxy_process_idle_time_percent",
    "Share of the last second that HAProxy spent waiting",
);
static OMITTED: Metric = Metric::gauge(
    "watchpost.haproxy.rows_omitted",
    "{row}",
    "watchpost_haproxy_rows_omitted",
    "Rows of HAProxy's statistics that are not shown: beyond the limit, or unreadable",
);

/// The states of a server, as HAProxy's exporter has them, and how `show stat` begins to name each.
const STATES: [&str; 5] = ["UP", "DOWN", "MAINT", "DRAIN", "NOLB"];

/// What the process tells of itself.
pub(super) fn of_process(info: &Info<'_>) -> Vec<Reading> {
    let values = [
        (&UPTIME, info.uptime_sec),
        (&DROPPED_LOGS, info.dropped_logs),
        (&CONNECTIONS, info.curr_conns),
        (&CONNECTIONS_MAX, info.maxconn),
        (&TLS_RATE, info.ssl_rate),
        (&IDLE, info.idle_pct),
    ];
    let reading =
        |(metric, value): (&'static Metric, Option<u64>)| Some(Reading::new(metric, [], value? as f64));
    values.into_iter().filter_map(reading).collect()
}

/// What the rows tell; `unread` are those that could not be read.
pub(super) fn of_rows(rows: &[StatRow<'_>], unread: usize) -> Vec<Reading> {
    let is_told = |row: &&StatRow<'_>| row.kind != Kind::Listener;
    let mut shown: Vec<&StatRow<'_>> = rows.iter().filter(is_told).collect();
    shown.sort_by_key(|row| row.kind == Kind::Server);
    let omitted = unread + shown.len().saturating_sub(ROWS_MAX);
    shown.truncate(ROWS_MAX);
    let mut readings: Vec<Reading> = shown.into_iter().flat_map(of_row).collect();
    readings.push(Reading::new(&OMITTED, [], omitted as f64));
    readings
}

fn of_row(row: &StatRow<'_>) -> Vec<Reading> {
    let (proxy, server, numbers) = (row.proxy.as_ref(), row.server.as_ref(), &row.numbers);
    let by_row = BY_ROW.iter().filter_map(|(metric, read, scale)| {
        Some(Reading::new(metric, [proxy, server], read(numbers)? as f64 * scale))
    });
    let mut readings: Vec<Reading> = by_row.collect();
    let answers = answers_by_code(numbers)
        .into_iter()
        .filter_map(|(code, count)| Some(Reading::new(&ANSWERS, [proxy, server, code], count? as f64)));
    readings.extend(answers);
    if let (Kind::Server, Some(status)) = (row.kind, row.status.as_deref()) {
        // A server that nobody checks is up, as HAProxy's exporter has it.
        let status = if status == "no check" { "UP" } else { status };
        let is = |state: &str| {
            status.strip_prefix(state).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
        };
        let known = STATES.iter().any(|state| is(state));
        let states = STATES.iter().filter(|_| known);
        readings.extend(
            states.map(|state| Reading::new(&STATUS, [proxy, server, state], f64::from(u8::from(is(state))))),
        );
    }
    readings
}

/// Answers by class of their status; `None` where the row has no HTTP.
pub(super) fn answers_by_code(numbers: &Numbers) -> [(&'static str, Option<u64>); 6] {
    [
        ("1xx", numbers.hrsp_1xx),
        ("2xx", numbers.hrsp_2xx),
        ("3xx", numbers.hrsp_3xx),
        ("4xx", numbers.hrsp_4xx),
        ("5xx", numbers.hrsp_5xx),
        ("other", numbers.hrsp_other),
    ]
}
