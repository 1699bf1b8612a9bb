//! MySQL and MariaDB: what they do, who writes, and whether replicas follow.
//!
//! One connection is kept. `talk` is a question on it, `replication` watches what a replica tells from run to run, `metrics`
//! names the numbers. The privilege USAGE is enough for all but the state of replication.

mod metrics;
mod replication;
mod talk;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mysql_async::Conn;

use super::{Probe, ProbeError, Run, Seen, Spec};
use crate::facts::{Facts, MysqlFacts};
use crate::secret::Secret;

use replication::Watch;
use talk::{Failure, Named};

/// Between two looks; three answers of a few KiB.
const INTERVAL: Duration = Duration::from_secs(5);
/// Of a connection and four answers.
const DEADLINE: Duration = Duration::from_secs(15);
/// After a refusal: each try stands in the server's log and in its count of aborted connections.
const DENIED_INTERVAL: Duration = Duration::from_secs(300);
/// Where packages of MariaDB and MySQL have the socket.
const SOCKETS: [&str; 4] = [
    "/run/mysqld/mysqld.sock",
    "/var/run/mysqld/mysqld.sock",
    "/var/lib/mysql/mysql.sock",
    "/tmp/mysql.sock",
];

/// Settings of the server, in lower case; a server answers those that it has.
const VARIABLES: [&str; 14] = [
    "version",
    "server_id",
    "server_uuid",
    "read_only",
    "super_read_only",
    "wsrep_on",
    "group_replication_group_name",
    "auto_increment_increment",
    "max_connections",
    "gtid_binlog_pos",
    "gtid_binlog_state",
    "gtid_slave_pos",
    "gtid_executed",
    "log_bin",
];
/// Of the server's status, beside what becomes metrics.
const FURTHER_STATUS: [&str; 3] = ["slaves_connected", "replicas_connected", "slave_running"];

pub(super) static SPEC: Spec = Spec {
    name: "mysql",
    help: "what MySQL or MariaDB does, who writes, and whether replicas follow",
    setting: "WATCHPOST_MYSQL",
    metrics: metrics::ALL,
    interval: INTERVAL,
    deadline: DEADLINE,
    make: |wanted| Some(Box::new(MysqlProbe::new(wanted.mysql.clone()?))),
};

/// Where to ask MySQL, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlTarget {
    /// `None`: at the well-known sockets.
    pub place: Option<Place>,
    /// The user.
    pub user: String,
    /// Its password; none where the socket tells the server who asks.
    pub password: Option<Secret>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A Unix socket.
    Socket(PathBuf),
    /// A host and a port.
    Port(String, u16),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Socket(path) => write!(formatter, "{}", path.display()),
            Place::Port(host, port) => write!(formatter, "{host}:{port}"),
        }
    }
}

struct MysqlProbe {
    target: MysqlTarget,
    conn: Option<Conn>,
    watch: Watch,
    /// The refusal that is believed until then.
    denied: Option<(ProbeError, Instant)>,
}

/// What one run was answered.
struct Answers {
    variables: Named,
    status: Named,
    /// `None`: the agent may not know.
    replication: Option<Vec<Named>>,
}

impl MysqlProbe {
    fn new(target: MysqlTarget) -> MysqlProbe {
        MysqlProbe { target, conn: None, watch: Watch::default(), denied: None }
    }

    async fn see(&mut self) -> Result<Seen, ProbeError> {
        if let Some((error, due)) = &self.denied
            && Instant::now() < *due
        {
            return Err(error.clone());
        }
        self.denied = None;
        let place = match &self.target.place {
            Some(place) => place.clone(),
            None => well_known().ok_or_else(|| {
                ProbeError::Absent("no MySQL runs here, or its socket is at no usual place".to_owned())
            })?,
        };
        // Taken, so that a run that is given up in the middle leaves no half-read answer to the next.
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.connect(&place).await?,
        };
        let answers = ask(&mut conn).await.map_err(|failure| match failure {
            Failure::Denied(what) | Failure::Broken(what) => ProbeError::Failed(format!("{place}: {what}")),
            Failure::NotUnderstood => ProbeError::Failed(format!("{place}: this is no MySQL that is known")),
        })?;
        self.conn = Some(conn);
        let facts = self.facts(&place, &answers, Instant::now());
        let readings = metrics::readings(&answers.status, &answers.variables, &facts);
        Ok(Seen { readings, facts: Facts::Mysql(facts), again_in: None })
    }

    async fn connect(&mut self, place: &Place) -> Result<Conn, ProbeError> {
        let connected = talk::connect(&self.target, place).await;
        if let Err(error @ ProbeError::Denied { .. }) = &connected {
            self.denied = Some((error.clone(), Instant::now() + DENIED_INTERVAL));
        }
        connected
    }

    fn facts(&mut self, place: &Place, answers: &Answers, now: Instant) -> MysqlFacts {
        let text = |name: &str| answers.variables.get(name).cloned().unwrap_or_default();
        let is_on = |name: &str| matches!(text(name).to_ascii_uppercase().as_str(), "ON" | "1" | "YES");
        let status = |name: &str| answers.status.get(name);
        let applied_position = text("gtid_slave_pos");
        let channels =
            answers.replication.as_ref().map(|rows| self.watch.channels(rows, &applied_position, now));
        let runs = status("slave_running").is_some_and(|running| running == "ON");
        let is_replica = runs || channels.as_ref().is_some_and(|channels| !channels.is_empty());
        let attached = status("slaves_connected").or_else(|| status("replicas_connected"));
        let group = text("group_replication_group_name");
        let mut written_position = text("gtid_binlog_pos");
        if written_position.is_empty() {
            written_position = text("gtid_executed");
        }
        MysqlFacts {
            source: place.to_string(),
            user: self.target.user.clone(),
            version: text("version"),
            server_id: text("server_id").parse().unwrap_or_default(),
            is_writable: !is_on("read_only") && !is_on("super_read_only"),
            cluster: if is_on("wsrep_on") {
                Some("Galera".to_owned())
            } else {
                (!group.is_empty()).then(|| format!("group replication {group}"))
            },
            key_step: text("auto_increment_increment").parse().unwrap_or(1),
            replicas_attached: attached.and_then(|count| count.parse().ok()),
            written_position,
            applied_position,
            is_replica,
            channels,
            own_transaction: self.watch.own_transaction(&answers.variables, is_replica),
        }
    }
}

impl Probe for MysqlProbe {
    fn run(&mut self) -> Run<'_> {
        Box::pin(self.see())
    }
}

fn well_known() -> Option<Place> {
    let mut sockets = SOCKETS.iter().map(PathBuf::from);
    sockets.find(|path| path.symlink_metadata().is_ok()).map(Place::Socket)
}

async fn ask(conn: &mut Conn) -> Result<Answers, Failure> {
    let quoted =
        |names: Vec<&str>| names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(",");
    let show = |what: &str, names: Vec<&str>| {
        format!("SHOW GLOBAL {what} WHERE LOWER(Variable_name) IN ({})", quoted(names))
    };
    let variables = talk::pairs(conn, &show("VARIABLES", VARIABLES.to_vec())).await?;
    let shown = metrics::STATUS.iter().map(|(name, ..)| *name).chain(FURTHER_STATUS).collect();
    let status = talk::pairs(conn, &show("STATUS", shown)).await?;
    let is_mariadb = variables.get("version").is_some_and(|version| version.contains("MariaDB"));
    let commands: &[&str] =
        if is_mariadb { &["SHOW ALL SLAVES STATUS"] } else { &["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"] };
    let mut replication = None;
    for command in commands {
        match talk::rows(conn, command).await {
            Ok(rows) => replication = Some(rows),
            Err(Failure::NotUnderstood) => continue,
            Err(Failure::Denied(_)) => {}
            Err(failure) => return Err(failure),
        }
        break;
    }
    Ok(Answers { variables, status, replication })
}
