# shellcheck shell=bash
# What every part of the lab shares: hosts, addresses, flags, and how to get into a host.

CONF=$HERE/conf
LIB=$HERE/lib
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# The lab's directory: everything that the hosts write.
D=${D:-}

declare -A ADDRESS=([client]=10.77.0.10 [lb]=10.77.0.20 [web1]=10.77.0.31 [web2]=10.77.0.32 [app1]=10.77.0.41
    [app2]=10.77.0.42 [db1]=10.77.0.51 [db2]=10.77.0.52 [collector]=10.77.0.60)

# Longest wait for anything, in tenths of a second.
PATIENCE=600

die() {
    echo "lab: $*" >&2
    exit 1
}

say() {
    echo "lab: $*"
}

# Waits until a command succeeds.
wait_for() {
    local what=$1 left=$PATIENCE
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || die "waited in vain for $what: $*"
        sleep 0.1
    done
}

# A file of conf/ with every @NAME@ replaced; arguments are NAME=VALUE.
render() {
    local text pair
    text=$(<"$CONF/$1")
    shift
    for pair in "$@"; do
        text=${text//"@${pair%%=*}@"/"${pair#*=}"}
    done
    printf '%s\n' "$text"
}

# Whether a name is switched on, on this host where it belongs to one.
flagged() {
    [ -e "$D/flags/$1${2:+@$2}" ]
}

flag() {
    : >"$D/flags/$1${2:+@$2}"
}

unflag() {
    rm -f "$D/flags/$1${2:+@$2}"
}

# Where the parts stand, which is what the forms differ in.
app_host() {
    if flagged all-in-one; then echo "web$1"; else echo "app$1"; fi
}

db_host() {
    if flagged all-in-one; then echo "web$1"; else echo "db$1"; fi
}

# Whether this process is the outer one of the lab in this directory.
is_outer() {
    tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -qF -- "_inside --dir $D supervise"
} 2>/dev/null

# The hosts that are up.
hosts() {
    local file
    for file in "$D"/run/*.pid; do
        [ ! -e "$file" ] || basename "$file" .pid
    done
}

# The hosts with a Watchpost on them.
servers() {
    hosts | grep -Ev '^(client|collector)$'
}

is_up() {
    [ -e "$D/run/$1.pid" ]
}

# Runs a command in a host; works inside the lab only (see `inside`).
in_host() {
    local host=$1 process
    shift
    is_up "$host" || die "there is no host $host; there are: $(hosts | tr '\n' ' ')"
    process=$(<"$D/run/$host.pid")
    nsenter --mount="/proc/$process/ns/mnt" --uts="/proc/$process/ns/uts" --net="/run/netns/$host" \
        --pid="/proc/$process/ns/pid_for_children" -- \
        env -i PATH="$PATH" HOME=/root TERM="${TERM:-dumb}" "$@"
}

# The file or directory of a host as it is seen from without.
file_of() {
    echo "$D/hosts/$1$2"
}

# Starts a command in a host and leaves it running; its output goes to a file of the host.
daemon() {
    local host=$1 log
    log=$(file_of "$host" "$2")
    shift 2
    in_host "$host" setsid -f "$@" </dev/null >>"$log" 2>&1
}

# The process number of a host's process, as the host sees it.
process_of() {
    in_host "$1" pgrep -o -x "$2"
}
