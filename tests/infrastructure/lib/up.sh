# shellcheck shell=bash
# From nothing to a lab that answers, and its end.

# Commands that must be there, with their Debian packages.
NEEDED=(ip:iproute2 nft:nftables nsenter:util-linux setpriv:util-linux nginx:nginx-light haproxy:haproxy
    mariadbd:mariadb-server-core mariadb:mariadb-client-core mariadb-install-db:mariadb-server-core openssl:openssl
    curl:curl logrotate:logrotate pgrep:procps /usr/bin/python3:python3)

check_needed() {
    local pair missing=()
    for pair in "${NEEDED[@]}"; do
        command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    /usr/bin/python3 -c 'import pymysql' 2>/dev/null || missing+=(python3-pymysql)
    [ "${#missing[@]}" = 0 ] || die "packages are missing, tests/run installs them: ${missing[*]}"
}

# Becomes the outer process, the end of which is the end of everything.
up() {
    local candidate
    need_root
    check_needed
    case $FORM in
        diagram | mended) ;;
        *) die "there is no form $FORM: diagram or mended" ;;
    esac
    for candidate in "$WATCHPOST" "$HERE/../../target/release/watchpost" "$HERE/../../target/debug/watchpost"; do
        [ -n "$candidate" ] && [ -x "$candidate" ] && break
        [ -z "$WATCHPOST" ] || die "--watchpost $WATCHPOST: no such binary"
    done
    [ -x "$candidate" ] || die 'there is no watchpost: cargo build, or --watchpost BINARY'
    WATCHPOST=$(realpath -- "$candidate")
    prepare_directory
    # What somebody else unmounts goes here too, or the lab would keep their file systems busy.
    exec unshare --mount --pid --fork --kill-child=KILL --mount-proc --propagation slave \
        "$HERE/lab" _inside --dir "$D" supervise
}

# An empty directory for this lab; that of a lab which has ended is used again.
prepare_directory() {
    local process
    [[ $D/ != /run/* ]] || die 'not below /run: the lab has one of its own'
    if [ -e "$D/lab.pid" ]; then
        process=$(<"$D/lab.pid")
        ! is_outer "$process" || die "a lab stands in $D already, process $process"
        rm -rf -- "${D:?}"
    fi
    mkdir -p "$D"
    [ -z "$(ls -A "$D")" ] || die "$D is not empty, and not a lab's"
    mkdir "$D"/{flags,hosts,run}
    echo "$$" >"$D/lab.pid"
    printf '%s=%q\n' FORM "$FORM" WATCHPOST "$WATCHPOST" SETTINGS "$SETTINGS" >"$D/settings"
}

# The first process of the lab: raises it, then waits for the end of stdin, or for a signal. When it goes, the kernel
# ends every process below it, and with them go the namespaces and what was mounted in them.
supervise() {
    local began
    trap 'exit 0' INT TERM HUP
    # shellcheck source=/dev/null
    . "$D/settings"
    began=$(date +%s%N)
    raise
    show_status
    cat <<-LOOK
	look:    $HERE/lab exec --dir $D client curl -s https://shop.example/order
	         $HERE/lab exec --dir $D web1 /opt/watchpost status
	         $HERE/lab load --dir $D --requests 1000
	files:   $D/hosts/HOST/{etc,var,run}
	the end: Ctrl-C
	LOOK
    printf 'the lab is ready after %d ms\n' $((($(date +%s%N) - began) / 1000000))
    while read -r _; do :; done
}

# Every step waits until what it made answers, from the databases to the load balancer.
raise() {
    local host number template
    if [ "$FORM" = diagram ]; then
        flag plaintext-backend
        flag one-writer
        flag all-in-one
    fi
    make_template &
    template=$!
    make_authority
    raise_network
    for host in client lb web1 web2 collector; do raise_host "$host"; done
    flagged all-in-one || for host in app1 app2 db1 db2; do raise_host "$host"; done
    make_site_certificate
    start_receiver
    wait "$template" || exit 1
    for number in 1 2; do
        cp -a "$D/template/." "$(file_of "$(db_host "$number")" /var/lib/mysql)"
        start_db "$number"
    done
    # What an agent finds at its start, it follows: nginx is configured before.
    for host in web1 web2; do configure_nginx "$host"; done
    for host in $(servers); do
        configure_agent "$host"
        start_agent "$host"
    done
    for number in 1 2; do start_app "$number"; done
    for host in web1 web2; do start_nginx "$host"; done
    for number in 1 2; do wait_db "$number"; done
    replicate
    for host in web1 web2; do wait_for "$host" answers_health "$host"; done
    start_haproxy
    wait_ready
}

# Whether nginx of a host answers the load balancer through its application and databases.
answers_health() {
    if flagged plaintext-backend; then
        in_host lb curl -fsS -m 5 "http://${ADDRESS[$1]}/health"
    else
        in_host lb curl -fsS -m 5 "https://$1.lab/health"
    fi
}

# Whether an order of the client comes to the application of this number.
orders_at() {
    in_host client curl -fsS -m 10 -D - https://shop.example/order | grep -qix "x-app: app$1"$'\r'
}

has_collector() {
    in_host lb curl -fsS -m 5 "http://${ADDRESS[collector]}:7867/stats"
}

wait_ready() {
    local host number
    wait_for 'the collector' has_collector
    for host in $(servers); do wait_for "the agent of $host" agent_is_ready "$host"; done
    for number in 1 2; do wait_for "an order at application $number" orders_at "$number"; done
    wait_replication
}

show_status() {
    local host name broken=()
    say "form $FORM in $D, agent $WATCHPOST"
    for host in $(hosts); do printf '  %-10s %s\n' "$host" "${ADDRESS[$host]}"; done
    for name in "$D"/flags/*; do
        [ ! -e "$name" ] || broken+=("$(basename "$name")")
    done
    echo "  broken:    ${broken[*]:-nothing}"
}

# The share of the memory that each process has, summed up.
show_memory() {
    cat /proc/[0-9]*/smaps_rollup 2>/dev/null | awk '/^Pss:/ { sum += $2 } END { print sum }'
}

# lab set HOST NAME=VALUE...
set_it() {
    local host=$1 file pair
    shift
    is_up "$host" || die "there is no host $host"
    file=$(file_of "$host" /etc/watchpost/watchpost.env)
    [ -e "$file" ] || die "there is no agent on $host"
    for pair in "$@"; do
        [[ $pair =~ ^WATCHPOST_[A-Z_]+= ]] || die "not a setting: $pair"
        sed -i "/^${pair%%=*}=/d" "$file"
        printf '%s\n' "$pair" >>"$file"
    done
    stop_agent "$host"
    start_agent "$host"
    wait_for "the agent of $host" agent_is_ready "$host"
}
