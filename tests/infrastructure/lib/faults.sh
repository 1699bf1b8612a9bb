# shellcheck shell=bash
# Weaknesses and faults by name. A switch is a flag and whatever is configured from it; the others are done once.

# name | the host that it is for unless told, `-` where it is for all, `once` behind it | what it is
NAMES='
plaintext-backend|-|the hop from the load balancer to nginx is not encrypted
one-writer|-|one database takes all writes, the other one only follows
all-in-one|-|nginx, application and database share a host
second-writer|-|the replica may be written too: its read_only is off (with one-writer)
firewall-open|web1|policy accept, and nothing is dropped at the end
port-beyond-allowed|web1|something listens on port 9999, and the firewall lets everybody in
certificate-expiring|-|the certificate of the site is valid for 5 more days
certificate-wrong-name|-|the certificate of the site is for other.example
certificate-file-differs|-|the certificate was renewed on disk, and HAProxy not reloaded
tls-weak-protocol|-|HAProxy speaks TLS 1.0 and 1.1
http-no-redirect|-|plain HTTP is answered, not redirected
hsts-missing|-|no Strict-Transport-Security
stub-status-open|web1|/stub_status is answered to everybody, over the site too
health-logged|web1|the health checks of the load balancer are in the access log
replica-stopped|-|the SQL thread of the replica is stopped
replica-lagging|-|the SQL thread of the replica runs and waits for a lock
replica-partition|-|packets of replication are dropped both ways, without a word
replica-written|-|root has written on the replica
log-buffered|web1|access_log with buffer=64k and without flush=
log-flushed|web1|access_log with buffer=64k flush=5s
log-without-request-time|web1|access_log in the format combined
app-killed|1|the application of this number is killed
haproxy-stopped|-|HAProxy is not there
collector-stopped|-|the collector is not there
haproxy-reload|once|HAProxy reloads: a new process, counters from zero
nginx-reload|web1 once|nginx reloads: new workers, counters go on
nginx-restart|web1 once|nginx ends and starts: counters from zero
nginx-usr1|web1 once|nginx opens its logs again
logrotate|web1 once|logrotate renames the access log and tells nginx
copytruncate|web1 once|logrotate copies the access log and truncates it
worker-killed|web1 once|kill -9 of a worker of nginx
worker-killed-buffered|web1 once|with buffer=64k flush=5s, 40 requests through the load balancer, then kill -9 of a worker
'

list_names() {
    local name host text
    while IFS='|' read -r name host text; do
        [ -z "$name" ] || printf '%-26s %-10s %s\n' "$name" "$host" "$text"
    done <<<"$NAMES"
}

# Sets `host` and `once` for a name.
look_up() {
    local row name=$1
    row=$(grep -- "^$name|" <<<"$NAMES") || die "there is no $name; lab list names them"
    host=$(cut -d '|' -f 2 <<<"$row")
    once=
    if [[ $host == *once ]]; then
        once=yes host=${host%once} host=${host% }
    fi
    [ "$host" != - ] || host=
    [ -z "${2:-}" ] || [ -n "$host" ] || die "$name is not for one host"
    host=${2:-$host}
}

break_it() {
    local host once name=${1:?a name}
    look_up "$name" "${2:-}"
    if [ -n "$once" ]; then
        do_once "$name" "$host"
        say "$name: done"
        return
    fi
    ! flagged "$name" "$host" || die "$name is on already"
    is_possible "$name"
    switch "$name" "$host" on
    say "$name${host:+ on $host}: on"
}

mend_it() {
    local host once name=${1:?a name}
    look_up "$name" "${2:-}"
    if [ -n "$once" ]; then
        say "$name: was done once, there is nothing to mend"
        return
    fi
    flagged "$name" "$host" || die "$name is not on"
    switch "$name" "$host" off
    say "$name${host:+ on $host}: off"
}

# What goes only with something else.
is_possible() {
    case $1 in
        second-writer | replica-written) flagged one-writer || die "$1 needs one-writer: both are writers here" ;;
        log-buffered) ! flagged log-flushed "$host" || die 'mend log-flushed first' ;;
        log-flushed) ! flagged log-buffered "$host" || die 'mend log-buffered first' ;;
    esac
}

# Switches a name on or off: the flag first, then everything that is made from it.
switch() {
    local name=$1 host=$2 to=$3
    # The parts move while nothing runs, so before the flag.
    case $name in
        all-in-one | one-writer) "move_${name//-/_}" "$to" && return ;;
        app-killed) [ "$to" = off ] || stop_app "$host" KILL ;;
    esac
    if [ "$to" = on ]; then flag "$name" "$host"; else unflag "$name" "$host"; fi
    case $name in
        plaintext-backend)
            reload_firewalls
            for host in web1 web2; do reload_nginx "$host"; done
            reload_haproxy
            wait_served
            ;;
        firewall-open) reload_firewall "$host" ;;
        port-beyond-allowed) switch_port "$host" "$to" ;;
        certificate-expiring | certificate-wrong-name) make_site_certificate && reload_haproxy ;;
        certificate-file-differs) if [ "$to" = on ]; then make_site_certificate; else reload_haproxy; fi ;;
        tls-weak-protocol | http-no-redirect | hsts-missing) reload_haproxy ;;
        stub-status-open | health-logged | log-buffered | log-flushed | log-without-request-time) reload_nginx "$host" ;;
        second-writer) if [ "$to" = on ]; then sql 2 'SET GLOBAL read_only=0'; else sql 2 'SET GLOBAL read_only=1'; fi ;;
        replica-stopped) if [ "$to" = on ]; then sql 2 'STOP SLAVE SQL_THREAD'; else sql 2 'START SLAVE SQL_THREAD'; fi ;;
        replica-lagging) switch_lag "$to" ;;
        replica-partition) switch_partition "$to" ;;
        replica-written) switch_written "$to" ;;
        app-killed) [ "$to" = on ] || { start_app "$host" && wait_served; } ;;
        haproxy-stopped) switch_haproxy "$to" ;;
        collector-stopped) switch_collector "$to" ;;
    esac
}

# Until the load balancer sends orders to both applications again.
wait_served() {
    local number
    for number in 1 2; do
        flagged app-killed "$number" || wait_for "web$number" answers_health "web$number"
    done
    for number in 1 2; do
        flagged app-killed "$number" || wait_for "web$number behind the load balancer" is_in_turn "web$number"
    done
}

# Whether HAProxy takes a web host for well: field 18 of its row.
is_in_turn() {
    haproxy_says 'show stat' | awk -F , -v name="$1" '$1 == "web" && $2 == name { found = $18 } END { exit found != "UP" }'
}

switch_port() {
    if [ "$2" = on ]; then
        daemon "$1" /var/log/listen.log /usr/bin/python3 /opt/lab/listen.py 9999
        wait_for 'port 9999' in_host "$1" sh -c 'ss -Hltn sport = :9999 | grep -q .'
    else
        in_host "$1" pkill -f /opt/lab/listen.py || true
    fi
    reload_firewall "$1"
}

# A session on the replica that reads the table and keeps everybody else from writing it.
switch_lag() {
    local host
    host=$(db_host 2)
    if [ "$1" = on ]; then
        daemon "$host" /var/log/lag.log mariadb --no-defaults --socket=/run/mysqld/mysqld.sock \
            -e 'LOCK TABLES shop.orders READ; SELECT SLEEP(1000000) AS the_lock_is_held'
        wait_for 'the lock' holds_lock
    else
        sql 2 "$(sql 2 "SELECT CONCAT('KILL ', ID) FROM information_schema.PROCESSLIST WHERE INFO LIKE '%the_lock_is_held'
            AND ID != CONNECTION_ID()")"
        wait_replication
    fi
}

holds_lock() {
    [ "$(sql 2 "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP%the_lock_is_held'")" = 1 ]
}

switch_partition() {
    reload_firewall "$(db_host 1)"
    reload_firewall "$(db_host 2)"
    if [ "$1" = off ]; then
        # TCP would try again only after as long a time as it was cut off.
        sql 2 'STOP SLAVE IO_THREAD; START SLAVE IO_THREAD'
        flagged one-writer || sql 1 'STOP SLAVE IO_THREAD; START SLAVE IO_THREAD'
        wait_replication
    fi
}

switch_written() {
    if [ "$1" = on ]; then
        sql 2 "INSERT INTO shop.orders (note) VALUES ('written on the replica')"
    else
        # As if it had never been: the row goes without a trace, and so does the log of what was written here.
        sql 2 "STOP SLAVE; SET sql_log_bin=0; DELETE FROM shop.orders WHERE note='written on the replica';
            SET sql_log_bin=1; RESET MASTER; START SLAVE;"
        wait_replication
    fi
}

switch_haproxy() {
    if [ "$1" = on ]; then
        # shellcheck disable=SC2016 # The host's shell reads the file.
        in_host lb sh -c 'kill -TERM "$(cat /run/haproxy.pid)"'
        wait_for 'the end of HAProxy' haproxy_is_gone
    else
        start_haproxy
    fi
}

haproxy_is_gone() {
    ! in_host lb pgrep -x haproxy
}

switch_collector() {
    if [ "$1" = on ]; then
        in_host collector pkill -TERM -x watchpost || true
        wait_for 'the end of the collector' collector_is_gone
    else
        start_receiver
        wait_for 'the collector' has_collector
    fi
}

collector_is_gone() {
    ! in_host collector pgrep -x watchpost
}

# Applications and databases move to the hosts of nginx, or to hosts of their own, with what is in them.
move_all_in_one() {
    local number from to host
    from=("" "$(db_host 1)" "$(db_host 2)")
    for number in 1 2; do stop_app "$number"; done
    for number in 1 2; do stop_db "$number"; done
    if [ "$1" = on ]; then flag all-in-one; else unflag all-in-one; fi
    for number in 1 2; do
        for host in "$(app_host "$number")" "$(db_host "$number")"; do
            if ! is_up "$host"; then
                raise_host "$host"
                configure_agent "$host"
                start_agent "$host"
            fi
        done
        to=$(db_host "$number")
        find "$(file_of "$to" /var/lib/mysql)" -mindepth 1 -delete
        cp -a "$(file_of "${from[number]}" /var/lib/mysql)/." "$(file_of "$to" /var/lib/mysql)"
        find "$(file_of "${from[number]}" /var/lib/mysql)" -mindepth 1 -delete
    done
    reload_firewalls
    for number in 1 2; do start_db "$number"; done
    for number in 1 2; do wait_db "$number"; done
    restart_apps
}

# The applications learn at their start where to write.
move_one_writer() {
    local number
    for number in 1 2; do stop_app "$number"; done
    wait_replication
    if [ "$1" = on ]; then flag one-writer; else unflag one-writer; fi
    restart_apps
}

restart_apps() {
    local number
    replicate
    for number in 1 2; do flagged app-killed "$number" || start_app "$number"; done
    for number in 1 2; do reload_nginx "web$number"; done
    wait_served
    wait_replication
}

do_once() {
    local host=$2
    case $1 in
        haproxy-reload) reload_haproxy ;;
        nginx-reload) reload_nginx "$host" ;;
        nginx-restart) stop_nginx "$host" && start_nginx "$host" ;;
        nginx-usr1) signal_nginx "$host" USR1 ;;
        logrotate) rotate "$host" create ;;
        copytruncate) rotate "$host" copytruncate ;;
        worker-killed) kill_worker "$host" ;;
        worker-killed-buffered)
            flagged log-flushed "$host" || switch log-flushed "$host" on
            in_host client /usr/bin/python3 /opt/lab/load.py --requests 40 --concurrency 8
            kill_worker "$host"
            ;;
    esac
}

rotate() {
    cp "$CONF/logrotate.$2" "$(file_of "$1" /etc/logrotate.conf)"
    chmod 0644 "$(file_of "$1" /etc/logrotate.conf)"
    in_host "$1" logrotate -f -s /var/lib/logrotate.state /etc/logrotate.conf
}

kill_worker() {
    local worker
    worker=$(nginx_workers "$1" | head -n 1)
    in_host "$1" kill -9 "$worker"
    wait_for "nginx's next worker" nginx_has_new_workers "$1" "$worker"
}
