# The other agents of compare, each with the least configuration that does the work. To be sourced by it.
# shellcheck shell=bash

# A nginx line up to its status.
readonly UP_TO_STATUS='^[^"]*"[^"]*" '

# Waits for a peer that counts: `port` answers with counters in Prometheus's text, whose sum is the lines.
has_counted() {
    local metric=$1 line sum=0
    runs "$pid" || fail "it ended: $(tail -n 5 "$work"/daemon.out)"
    get "$port" /metrics || return 1
    while read -r line; do
        [[ $line == *"$metric"*"{"* ]] || continue
        number=${line##*\} }
        sum=$((sum + ${number%%[!0-9]*}))
    done <<<"$answer"
    [ "$sum" -ge "$lines" ]
}

# Starts a peer that ships to the sink, and looks at it when all lines are there: ship_with PROGRAM...; $sink_port is set.
ship_with() {
    start daemon "$@"
    wait_until "$lines lines at the receiver" has_arrived records
    look_at "$pid"
    stop "$pid"
    stop "$sink"
}

work_goaccess() {
    run_to_the_end goaccess "$log" --no-global-config --log-format=COMBINED -o "$work/goaccess.json"
    grep -q "\"valid_requests\": *$lines," "$work/goaccess.json" || fail "goaccess did not see $lines lines"
}

work_mtail() {
    mkdir -p "$work/mtail"
    printf '%s\n' 'counter lines by status' "/$UP_TO_STATUS(?P<status>\\d+) / {" '  lines[$status]++' '}' >"$work/mtail/status.mtail"
    run_to_the_end mtail --one_shot --progs "$work/mtail" --logs "$log"
}

# A file is read from its start where it takes another's name; so it does once collectd has the empty one open.
work_collectd() {
    local status
    mkdir -p "$work/collectd"
    : >"$work/collectd/access.log"
    {
        printf '%s\n' 'Interval 1' "BaseDir \"$work/collectd\"" "PIDFile \"$work/collectd/pid\"" 'LoadPlugin csv' \
            'LoadPlugin tail' '<Plugin csv>' " DataDir \"$work/collectd/csv\"" '</Plugin>' '<Plugin tail>' \
            " <File \"$work/collectd/access.log\">" '  Instance "access"'
        for status in 200 206 301 304 403 404 416 500; do
            printf '%s\n' '  <Match>' "   Regex \"\\\" $status \"" '   DSType "CounterInc"' '   Type "counter"' \
                "   Instance \"$status\"" '  </Match>'
        done
        printf '%s\n' ' </File>' '</Plugin>'
    } >"$work/collectd.conf"
    start daemon collectd -f -C "$work/collectd.conf"
    wait_until "collectd to open the log" is_at "$work/collectd/access.log" 0
    ln "$log" "$work/collectd/next"
    mv "$work/collectd/next" "$work/collectd/access.log"
    wait_until "collectd to read the log" is_at "$work/collectd/access.log" "$(stat -c %s "$log")"
    look_at "$pid"
    stop "$pid"
    rm -r "$work/collectd"
}

# Whether the process has a file open and is at this place of it.
is_at() {
    local descriptor key value
    runs "$pid" || fail "it ended: $(tail -n 5 "$work"/daemon.out)"
    for descriptor in "/proc/$pid/fd"/*; do
        [ "$descriptor" -ef "$1" ] || continue
        read -r key value <"/proc/$pid/fdinfo/${descriptor##*/}" && [ "$key" = pos: ] && [ "$value" -ge "$2" ] && return
    done
    return 1
}

fluent_bit_input() {
    printf '%s\n' '[SERVICE]' ' flush 1' ' log_level error' " parsers_file $work/fluent-bit-parsers.conf" '[INPUT]' ' name tail' \
        " path $log" ' tag access' ' read_from_head on' ' mem_buf_limit 32M' ' buffer_chunk_size 256k' ' buffer_max_size 256k'
    printf '%s\n' '[PARSER]' ' name status' ' format regex' " regex $UP_TO_STATUS(?<code>[0-9]+) " >"$work/fluent-bit-parsers.conf"
}

work_fluent_bit() {
    start_sink
    {
        fluent_bit_input
        printf '%s\n' '[OUTPUT]' ' name http' ' match *' ' host 127.0.0.1' " port $sink_port" ' uri /fluent-bit' \
            ' format json_lines' ' compress gzip'
    } >"$work/fluent-bit.conf"
    ship_with fluent-bit -c "$work/fluent-bit.conf"
}

work_fluent_bit_count() {
    free_port
    {
        fluent_bit_input
        printf '%s\n' ' parser status' '[FILTER]' ' name log_to_metrics' ' match access' ' tag counts' ' metric_mode counter' \
            ' metric_name lines' ' metric_description lines by status' ' label_field code' ' discard_logs on' \
            '[OUTPUT]' ' name prometheus_exporter' ' match counts' ' host 127.0.0.1' " port $port"
    } >"$work/fluent-bit.conf"
    start daemon fluent-bit -c "$work/fluent-bit.conf"
    wait_until "fluent-bit to count $lines lines" has_counted counter_lines
    look_at "$pid"
    stop "$pid"
}

vector_input() {
    mkdir -p "$work/vector"
    printf '%s\n' "data_dir = \"$work/vector\"" '[sources.log]' 'type = "file"' "include = [\"$log\"]" 'read_from = "beginning"'
}

work_vector() {
    start_sink
    {
        vector_input
        printf '%s\n' '[sinks.out]' 'type = "http"' 'inputs = ["log"]' "uri = \"http://127.0.0.1:$sink_port/vector\"" \
            'compression = "gzip"' 'framing.method = "newline_delimited"' 'encoding.codec = "json"' \
            'encoding.only_fields = ["message", "timestamp"]'
    } >"$work/vector.toml"
    ship_with vector --quiet --config "$work/vector.toml"
    rm -r "$work/vector"
}

work_vector_count() {
    free_port
    {
        vector_input
        printf '%s\n' '[transforms.parsed]' 'type = "remap"' 'inputs = ["log"]' \
            "source = '''. = parse_regex!(.message, r'$UP_TO_STATUS(?P<status>[0-9]+) ')'''" \
            '[transforms.counts]' 'type = "log_to_metric"' 'inputs = ["parsed"]' '[[transforms.counts.metrics]]' \
            'type = "counter"' 'field = "status"' 'name = "lines"' 'tags.status = "{{status}}"' \
            '[sinks.out]' 'type = "prometheus_exporter"' 'inputs = ["counts"]' "address = \"127.0.0.1:$port\""
    } >"$work/vector.toml"
    start daemon vector --quiet --config "$work/vector.toml"
    wait_until "vector to count $lines lines" has_counted lines
    look_at "$pid"
    stop "$pid"
    rm -r "$work/vector"
}

# Its queue is direct, so that a line that was read is written. Debian's has no output over HTTP with gzip, and writes a file.
work_rsyslogd() {
    local output
    start_sink
    output="type=\"omfile\" file=\"$work/rsyslog.gz\" zipLevel=\"1\" ioBufferSize=\"256k\" flushOnTXEnd=\"off\""
    printf '%s\n' 'module(load="imfile")' 'main_queue(queue.type="Direct")' 'template(name="raw" type="string" string="%msg%\n")' \
        "input(type=\"imfile\" file=\"$log\" tag=\"access\")" >"$work/rsyslog.conf"
    if has_omhttp; then
        echo 'module(load="omhttp")' >>"$work/rsyslog.conf"
        output="type=\"omhttp\" server=\"127.0.0.1\" serverport=\"$sink_port\" useHttps=\"off\" batch=\"on\" \
            batch.format=\"newline\" compress=\"on\" compress.level=\"1\" restPath=\"rsyslog\""
    fi
    echo "action($output template=\"raw\")" >>"$work/rsyslog.conf"
    mkdir -p "$work/rsyslog"
    if has_omhttp; then
        ship_with rsyslogd -n -f "$work/rsyslog.conf" -i "$work/rsyslog/pid"
    else
        start daemon rsyslogd -n -f "$work/rsyslog.conf" -i "$work/rsyslog/pid"
        wait_until "rsyslogd to read the log" is_at "$log" "$(stat -c %s "$log")"
        look_at "$pid"
        stop "$pid"
        stop "$sink"
        [ "$(gzip -dc "$work/rsyslog.gz" | wc -l)" -ge "$lines" ] || fail "rsyslogd did not write $lines lines"
    fi
    rm -rf "$work/rsyslog" "$work/rsyslog.gz"
}

has_omhttp() {
    compgen -G '/usr/lib/*/rsyslog/omhttp.so' >/dev/null || [ -e /usr/lib/rsyslog/omhttp.so ]
}

work_syslog_ng() {
    start_sink
    local config=$work/syslog-ng.conf version compression=
    version=$(syslog-ng -V | sed -n 's/^Config version: //p')
    for compression in 'content-compression("gzip")' ''; do
        printf '%s\n' "@version: $version" 'options { stats-freq(0); };' \
            "source nginx { file(\"$log\" follow-freq(1) flags(no-parse) log-fetch-limit(1000) log-iw-size(10000)); };" \
            "destination sink { http(url(\"http://127.0.0.1:$sink_port/syslog-ng\") method(\"POST\") workers(1)" \
            "  batch-lines(1000) batch-timeout(1000) delimiter(\"\\n\") body(\"\${MESSAGE}\") log-fifo-size(100000)" \
            "  $compression); };" 'log { source(nginx); destination(sink); flags(flow-control); };' >"$config"
        ! syslog-ng --syntax-only -f "$config" >"$work/syslog-ng.out" 2>&1 || break
    done
    mkdir -p "$work/syslog-ng"
    ship_with syslog-ng -F -f "$config" --persist-file "$work/syslog-ng/persist" --pidfile "$work/syslog-ng/pid" \
        --control "$work/syslog-ng/control"
    rm -r "$work/syslog-ng"
}
