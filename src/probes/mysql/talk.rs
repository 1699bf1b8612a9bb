//! One connection to MySQL, and questions on it.
//!
//! It is kept from run to run: a server counts each that comes and goes. What it answers is bounded in bytes, rows and time.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, IoError, OptsBuilder, Row, Value};
use tokio::time::timeout;

use super::{MysqlTarget, Place};
use crate::probes::ProbeError;

/// For a connection, or for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of one packet of an answer.
const PACKET_BYTES_MAX: usize = 1 << 20;
/// Rows of one answer: variables that are asked for by name, or channels of replication.
const ANSWER_ROWS_MAX: usize = 500;

/// Access denied, with and without a password; to a database; from this host; for want of a privilege.
const DENIED: [u16; 5] = [1045, 1698, 1044, 1130, 1227];
/// What a server does not understand: an older command, or a newer one.
const NOT_UNDERSTOOD: u16 = 1064;

/// One row of an answer by the names of its columns; NULL is not there.
pub(super) type Named = BTreeMap<String, String>;

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server says that the agent lacks a right.
    Denied(String),
    /// The server does not know the command; the connection is good.
    NotUnderstood,
    /// Nothing that the connection survives.
    Broken(String),
}

/// Connects.
///
/// # Errors
/// [`ProbeError::Denied`] with the statements that grant access, or what else went wrong.
pub(super) async fn connect(target: &MysqlTarget, place: &Place) -> Result<Conn, ProbeError> {
    let options = OptsBuilder::default()
        .user(Some(target.user.as_str()))
        .pass(target.password.as_ref().map(|password| password.expose().to_owned()))
        .prefer_socket(false)
        .max_allowed_packet(Some(PACKET_BYTES_MAX))
        // Known beforehand, so that it need not be asked for: only a pool uses it.
        .wait_timeout(Some(1));
    let options = match place {
        Place::Socket(path) => options.socket(Some(path.display().to_string())),
        Place::Port(host, port) => options.ip_or_hostname(host.as_str()).tcp_port(*port),
    };
    let connected = timeout(ANSWER_TIMEOUT, Conn::new(options)).await;
    let late = |_| ProbeError::Failed(format!("{place}: no answer within {} s", ANSWER_TIMEOUT.as_secs()));
    connected.map_err(late)?.map_err(|error| {
        if let Error::Io(IoError::Io(io)) = &error
            && io.kind() == ErrorKind::PermissionDenied
        {
            let cure =
                "let the agent's user open the socket: its directory must be open to others".to_owned();
            return ProbeError::Denied { what: format!("{place}: {io}"), cure };
        }
        match failure(error) {
            Failure::Denied(what) => {
                ProbeError::Denied { what: format!("{place}: {what}"), cure: grants(target, place) }
            }
            Failure::Broken(what) => ProbeError::Failed(format!("{place}: {what}")),
            Failure::NotUnderstood => ProbeError::Failed(format!("{place}: not understood")),
        }
    })
}

/// What lets the agent in. A user that is made on a replica would be a transaction of the replica's own.
fn grants(target: &MysqlTarget, place: &Place) -> String {
    let user = target.user.as_str();
    match place {
        Place::Socket(_) => format!(
            "on the primary, or on a replica after SET SESSION sql_log_bin = 0: CREATE USER {user}@localhost IDENTIFIED VIA \
             unix_socket; GRANT REPLICA MONITOR ON *.* TO {user}@localhost; (MySQL: IDENTIFIED WITH auth_socket, GRANT \
             REPLICATION CLIENT)"
        ),
        Place::Port(..) => format!(
            "set WATCHPOST_MYSQL_PASSWORD to the password of {user}, which needs USAGE and REPLICA MONITOR (MySQL: REPLICATION CLIENT) alone"
        ),
    }
}

/// The rows of an answer.
pub(super) async fn rows(conn: &mut Conn, question: &str) -> Result<Vec<Named>, Failure> {
    let ask = async {
        let mut answer = conn.query_iter(question).await.map_err(failure)?;
        let mut rows = Vec::new();
        while let Some(row) = answer.next().await.map_err(failure)? {
            if rows.len() == ANSWER_ROWS_MAX {
                return Err(Failure::Broken(format!("more than {ANSWER_ROWS_MAX} rows")));
            }
            rows.push(named(row));
        }
        Ok(rows)
    };
    let late = |_| Failure::Broken(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
    timeout(ANSWER_TIMEOUT, ask).await.map_err(late)?
}

/// An answer whose rows are a name and a value each, such as `SHOW GLOBAL STATUS`; names in lower case.
pub(super) async fn pairs(conn: &mut Conn, question: &str) -> Result<Named, Failure> {
    let pair = |mut row: Named| {
        let value = row.remove("Value")?;
        Some((row.remove("Variable_name")?.to_ascii_lowercase(), value))
    };
    Ok(rows(conn, question).await?.into_iter().filter_map(pair).collect())
}

fn named(row: Row) -> Named {
    let columns = row.columns();
    let texts = row.unwrap().into_iter().map(|value| match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(false)),
    });
    let names = columns.iter().map(|column| column.name_str().into_owned());
    names.zip(texts).filter_map(|(name, text)| Some((name, text?))).collect()
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Server(error) if DENIED.contains(&error.code) => {
            Failure::Denied(format!("{} (error {})", error.message, error.code))
        }
        Error::Server(error) if error.code == NOT_UNDERSTOOD => Failure::NotUnderstood,
        Error::Server(error) => Failure::Broken(format!("{} (error {})", error.message, error.code)),
        Error::Io(IoError::Io(error)) => Failure::Broken(error.to_string()),
        error => Failure::Broken(error.to_string()),
    }
}
