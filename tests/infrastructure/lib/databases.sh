# shellcheck shell=bash
# MariaDB: one primary with a replica that is only read (`one-writer`), or a ring of two that both take writes.

# The data directory of a new server, made once and copied.
make_template() {
    # The names of its temporary files are made of its process number, which another lab's has too.
    mkdir "$D/template.tmp"
    TMPDIR=$D/template.tmp mariadb-install-db --no-defaults --user=root --datadir="$D/template" \
        --auth-root-authentication-method=socket --auth-root-socket-user=root --skip-test-db --skip-name-resolve --extra-file="$CONF/schema.sql" \
        --innodb-log-file-size=4M --innodb-buffer-pool-size=8M >"$D/template.log" 2>&1 ||
        die "mariadb-install-db: $(<"$D/template.log")"
    chown -R 902:902 "$D/template"
}

# SQL on a database by its number, as root.
sql() {
    in_host "$(db_host "$1")" mariadb --no-defaults --socket=/run/mysqld/mysqld.sock -BN -e "$2"
}

start_db() {
    local number=$1 host read_only=0 increment=2
    host=$(db_host "$number")
    if flagged one-writer; then
        increment=1
        [ "$number" = 1 ] || flagged second-writer || read_only=1
    fi
    render my.cnf ID="$number" READ_ONLY=$read_only INCREMENT=$increment >"$(file_of "$host" /etc/mysql/my.cnf)"
    daemon "$host" /var/log/mysql/error.log mariadbd
}

wait_db() {
    wait_for "database $1" sql "$1" 'SELECT 1'
}

stop_db() {
    local host
    host=$(db_host "$1")
    in_host "$host" pkill -TERM -x mariadbd || true
    wait_for "the end of database $1" db_is_gone "$host"
}

db_is_gone() {
    ! in_host "$1" pgrep -x mariadbd
}

# Lets database $1 follow database $2.
follow() {
    local leader
    leader=$(db_host "$2")
    sql "$1" "STOP SLAVE; CHANGE MASTER TO MASTER_HOST='${ADDRESS[$leader]}', MASTER_USER='repl', MASTER_PASSWORD='repl',
        MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos, MASTER_HEARTBEAT_PERIOD=2; START SLAVE;"
}

# Who follows whom and who may write, as the switches have it.
replicate() {
    local increment=2 read_only=0
    follow 2 1
    if flagged one-writer; then
        increment=1
        flagged second-writer || read_only=1
        sql 1 'STOP SLAVE; RESET SLAVE ALL;'
    else
        follow 1 2
    fi
    sql 1 "SET GLOBAL auto_increment_increment=$increment"
    sql 2 "SET GLOBAL auto_increment_increment=$increment; SET GLOBAL read_only=$read_only"
}

# Whether database $1 has everything that database $2 has written.
has_caught_up() {
    local position
    position=$(sql "$2" 'SELECT @@gtid_binlog_pos') || return 1
    # Without a write there is no position, and a thread that connects is the proof.
    [ "$(sql "$1" "SHOW STATUS LIKE 'Slave_running'" | cut -f 2)" = ON ] || return 1
    [ -z "$position" ] || [ "$(sql "$1" "SELECT MASTER_GTID_WAIT('$position', 1)")" = 0 ]
}

wait_replication() {
    wait_for 'replication from 1 to 2' has_caught_up 2 1
    flagged one-writer || wait_for 'replication from 2 to 1' has_caught_up 1 2
}
