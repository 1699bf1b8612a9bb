# What budgets and compare share: a folder of their own, processes that all end with the script, HTTP, and what /proc tells.
# To be sourced. Nothing here needs more than bash and coreutils, and what runs while something is measured starts no process.
# shellcheck shell=bash

# Between two looks at a condition that is waited for, in seconds.
readonly LOOK_INTERVAL=0.02
# Longest wait for anything to come about, in seconds.
readonly PATIENCE=${WATCHPOST_TEST_PATIENCE:-120}
# Longest wait for an answer on a port, in seconds.
readonly ANSWER_PATIENCE=2

work=$(mktemp -d "${TMPDIR:-/tmp}/watchpost-measure.XXXXXX")
# Processes to end with the script.
declare -A started=()

finish() {
    local pid
    for pid in "${!started[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
        # The shell's own words on a process that was killed are no news.
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# The last words of all that was started, and the end.
give_up() {
    tail -n 5 "$work"/*.out >&2 || true
    fail "waited $PATIENCE s for $1"
}

# Nothing ever comes out of this, so that a read with a time limit waits without starting a process, as `sleep` would.
exec {never}<> <(:)
pause() {
    read -rt "$1" -u "$never" _ || true
}

# Runs a condition again and again until it holds: wait_until WHAT COMMAND...
wait_until() {
    local what=$1 deadline=$((SECONDS + PATIENCE))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || give_up "$what"
        pause "$LOOK_INTERVAL"
    done
}

# Starts a program with a bare environment and its output in $work/NAME.out: start NAME [VARIABLE=VALUE...] PROGRAM...
# Its process is $pid.
start() {
    local name=$1
    shift
    env -i PATH="$PATH" HOME="$work" "$@" >"$work/$name.out" 2>&1 &
    pid=$!
    started[$pid]=1
}

# Asks a process to end, and waits for that.
stop() {
    kill -TERM "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
    unset "started[$1]"
}

runs() {
    kill -0 "$1" 2>/dev/null
}

answers_on() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# A port of loopback on which nobody listens, in $port; below those that the kernel gives to clients.
free_port() {
    port=$((10000 + RANDOM % 20000))
    while answers_on "$port"; do port=$((10000 + RANDOM % 20000)); done
}

# The answer to GET of a path, in $answer; false where there is none.
get() {
    local connection
    answer=
    { exec {connection}<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$2" "$1" >&"$connection" || true
    answer=$(timeout "$ANSWER_PATIENCE" cat <&"$connection") || true
    exec {connection}>&-
    [ -n "$answer" ]
}

# Whole number that stands behind a key in $answer, in $number: the first one behind PREFIX, for keys that come twice.
number_of() {
    local rest=${answer#*"${2:-}"}
    rest=${rest#*"\"$1\":"}
    number=${rest%%[!0-9]*}
    [ -n "$number" ]
}

# A line of /proc/PID/status, in $number: status_of PID VmRSS, in KiB.
status_of() {
    local key value
    number=0
    while read -r key value _; do
        [ "$key" != "$2:" ] || number=$value
    done 2>/dev/null <"/proc/$1/status" || return 1
}

# Prints thousandths with two digits behind the point: 1234 is 1.23.
decimal() {
    local hundredths=$((($1 + 5) / 10))
    printf '%d.%02d' $((hundredths / 100)) $((hundredths % 100))
}

# A number with at most three digits behind the point, as thousandths, in $number.
thousandths() {
    local whole=${1%%.*} part=000
    [[ $1 != *.* ]] || part=${1#*.}000
    number=$((10#$whole * 1000 + 10#${part:0:3}))
}

# The sample log so many times over, each copy as one second of a busy server, the last one of now: corpus COPIES FILE. With
# its own times most lines would come late, which is dear and rare.
corpus() {
    local copy second time
    printf -v second '%(%s)T' -1
    for ((copy = 1 - $1; copy <= 0; copy++)); do
        TZ=UTC LC_ALL=C printf -v time '%(%d/%b/%Y:%H:%M:%S)T' $((second + copy))
        gzip -dc tests/data/access-combined.log.gz | sed "s|\[[^]]*\]|[$time +0000]|"
    done >"$2"
}
