//! What a MySQL or MariaDB server told of itself: plain data. Does no I/O.

/// What one run of the probe saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MysqlFacts {
    /// Where it was asked: the path of a socket, or host and port.
    pub source: String,
    /// The user that asked.
    pub user: String,
    /// Its version as it says it, such as `10.11.19-MariaDB-log`.
    pub version: String,
    /// Its `server_id`.
    pub server_id: u64,
    /// Whether users without special rights may write: neither `read_only` nor `super_read_only`.
    pub is_writable: bool,
    /// The cluster that it writes in together with others: Galera or group replication.
    pub cluster: Option<String>,
    /// `auto_increment_increment`: more than 1 where several servers hand out keys.
    pub key_step: u64,
    /// Replicas that are connected to it; `None` where it does not tell.
    pub replicas_attached: Option<u64>,
    /// The last transaction of each domain in its own log (`gtid_binlog_pos`), or all that it ran (`gtid_executed`).
    pub written_position: String,
    /// The last transaction of each domain that it took from another server (`gtid_slave_pos`).
    pub applied_position: String,
    /// Whether it replicates from another server, running or not.
    pub is_replica: bool,
    /// From where it replicates; `None` where the agent may not know.
    pub channels: Option<Vec<MysqlChannel>>,
    /// A transaction of its own, made while it was a replica.
    pub own_transaction: Option<String>,
}

/// One replication from another server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MysqlChannel {
    /// Its name; empty for the only one.
    pub name: String,
    /// The server it comes from: host and port.
    pub origin: String,
    /// `Yes`, `No`, `Connecting` or `Preparing`: whether transactions are fetched.
    pub fetching: String,
    /// `Yes` or `No`: whether they are applied.
    pub applying: String,
    /// What stopped either, in the server's words.
    pub error: String,
    /// `Seconds_Behind_Master`; it says 0 while nothing arrives.
    pub seconds_behind: Option<u64>,
    /// The delay that is wanted.
    pub delay_s: u64,
    /// Transactions received and not applied; `None` where positions are not GTIDs of MariaDB.
    pub transactions_behind: Option<u64>,
    /// The last transaction of each domain that was received.
    pub received_position: String,
    /// For how long the same received transaction has waited to be applied, as far as the agent has seen.
    pub waiting_ms: u64,
    /// For how long nothing has come from the origin, no transaction and no heartbeat; `None` where that is not told.
    pub silent_ms: Option<u64>,
    /// Between two heartbeats while nothing else is sent; 0: there are none.
    pub heartbeat_ms: u64,
}
