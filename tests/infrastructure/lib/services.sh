# shellcheck shell=bash
# The daemons: their configurations, starts and reloads.

configure_haproxy() {
    local plain='http-request redirect scheme https code 301' hsts number server=()
    hsts='http-response set-header Strict-Transport-Security "max-age=31536000"'
    local tls_min=TLSv1.2 ciphers='ECDHE+AESGCM:ECDHE+CHACHA20'
    ! flagged http-no-redirect || plain='default_backend web'
    ! flagged hsts-missing || hsts=''
    if flagged tls-weak-protocol; then
        # The library refuses old protocols at its usual level of security.
        tls_min=TLSv1.0 ciphers='DEFAULT:@SECLEVEL=0'
    fi
    for number in 1 2; do
        if flagged plaintext-backend; then
            server[number]="${ADDRESS[web$number]}:80 check"
        else
            server[number]="${ADDRESS[web$number]}:443 check ssl verify required ca-file /etc/haproxy/ca.pem"
            server[number]+=" verifyhost web$number.lab sni str(web$number.lab) check-sni web$number.lab"
        fi
    done
    cp "$D/ca/ca.pem" "$(file_of lb /etc/haproxy/ca.pem)"
    render haproxy.cfg PLAIN="$plain" HSTS="$hsts" TLS_MIN="$tls_min" TLS_CIPHERS="$ciphers" \
        WEB1="${server[1]}" WEB2="${server[2]}" >"$(file_of lb /etc/haproxy/haproxy.cfg)"
}

start_haproxy() {
    configure_haproxy
    daemon lb /var/log/haproxy.log haproxy -W -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid
    wait_for HAProxy haproxy_says 'show info'
}

# A question to the socket that may only be read.
haproxy_says() {
    in_host lb /usr/bin/python3 /opt/lab/ask.py /run/haproxy/ro.sock "$1"
}

haproxy_process() {
    haproxy_says 'show info' | sed -n 's/^Pid: //p'
}

reload_haproxy() {
    local before
    configure_haproxy
    in_host lb haproxy -c -q -f /etc/haproxy/haproxy.cfg || die 'HAProxy does not like its configuration'
    before=$(haproxy_process)
    # shellcheck disable=SC2016 # The host's shell reads the file.
    in_host lb sh -c 'kill -USR2 "$(cat /run/haproxy.pid)"'
    wait_for "HAProxy's new process" haproxy_is_new "$before"
}

haproxy_is_new() {
    local now
    now=$(haproxy_process)
    [ -n "$now" ] && [ "$now" != "$1" ]
}

configure_nginx() {
    local host=$1 listen log=watchpost stub='' health='access_log off;' app
    if flagged plaintext-backend; then
        listen='listen 80;'
    else
        listen='listen 443 ssl; ssl_certificate tls/web.pem; ssl_certificate_key tls/web.pem.key;
    add_header Strict-Transport-Security max-age=31536000 always;'
        [ -e "$(file_of "$host" /etc/nginx/tls/web.pem)" ] || make_web_certificate "$host"
    fi
    ! flagged log-without-request-time "$host" || log=combined
    if flagged log-buffered "$host"; then
        log+=' buffer=64k'
    elif flagged log-flushed "$host"; then
        log+=' buffer=64k flush=5s'
    fi
    ! flagged stub-status-open "$host" || stub='location = /stub_status { stub_status; access_log off; }'
    ! flagged health-logged "$host" || health=''
    app=127.0.0.1
    flagged all-in-one || app=${ADDRESS[app${host#web}]}
    cp "$HERE/../../config/nginx-log-format.conf" "$(file_of "$host" /etc/nginx/conf.d/watchpost.conf)"
    render nginx.conf LOG="$log" APP="$app:8000" >"$(file_of "$host" /etc/nginx/nginx.conf)"
    render site.conf LISTEN="$listen" NAME="$host" STUB="$stub" HEALTH_LOG="$health" \
        >"$(file_of "$host" /etc/nginx/sites-enabled/shop.conf)"
}

start_nginx() {
    configure_nginx "$1"
    in_host "$1" nginx </dev/null >>"$(file_of "$1" /var/log/nginx/start.log)" 2>&1 ||
        die "nginx does not start: $(<"$(file_of "$1" /var/log/nginx/start.log)")"
}

# Reloads, and waits until every worker of before is gone or going.
reload_nginx() {
    local before
    configure_nginx "$1"
    in_host "$1" nginx -t -q || die 'nginx does not like its configuration'
    before=$(nginx_workers "$1")
    signal_nginx "$1" HUP
    wait_for "nginx's new workers" nginx_has_new_workers "$1" "$before"
}

nginx_workers() {
    in_host "$1" pgrep -f '^nginx: worker process$'
}

nginx_has_new_workers() {
    local now old
    now=$(nginx_workers "$1")
    [ "$(wc -w <<<"$now")" = 2 ] || return 1
    for old in $2; do
        ! grep -qx "$old" <<<"$now" || return 1
    done
}

signal_nginx() {
    in_host "$1" sh -c "kill -$2 \"\$(cat /run/nginx.pid)\""
}

stop_nginx() {
    signal_nginx "$1" QUIT
    wait_for "the end of nginx" nginx_is_gone "$1"
}

nginx_is_gone() {
    ! in_host "$1" pgrep -x nginx
}

start_app() {
    local host write=127.0.0.1 read=127.0.0.1 number=$1 listen=127.0.0.1 writer=$1
    host=$(app_host "$number")
    ! flagged one-writer || writer=1
    if ! flagged all-in-one; then
        listen=0.0.0.0 read=${ADDRESS[db$number]} write=${ADDRESS[db$writer]}
    elif [ "$writer" != "$number" ]; then
        write=${ADDRESS[web$writer]}
    fi
    daemon "$host" /var/log/app/out.log setpriv --reuid=904 --regid=904 --clear-groups \
        /usr/bin/python3 -u /opt/lab/app.py --name "app$number" --listen "$listen:8000" \
        --read "$read" --write "$write" --log /var/log/app/app.log
}

# Ends the application of a number with a signal, wherever it stands.
stop_app() {
    local host
    host=$(app_host "$1")
    in_host "$host" pkill "-${2:-TERM}" -f /opt/lab/app.py || true
    wait_for "the end of the application" app_is_gone "$host"
}

app_is_gone() {
    ! in_host "$1" pgrep -f /opt/lab/app.py
}

start_receiver() {
    daemon collector /var/log/receiver.log setpriv --reuid=903 --regid=903 --clear-groups \
        /opt/watchpost receiver --listen "${ADDRESS[collector]}:7867" --allow-remote --store /var/lib/watchpost/received
}

# The settings of a host's agent: those of all, then those that `--settings DIR` has for it.
configure_agent() {
    local host=$1 extra
    {
        cat "$CONF/watchpost.env"
        case $host in
            web*) ;;
            # haproxy.cfg does not say for which names it serves.
            lb)
                echo 'WATCHPOST_ACCESS_LOGS=none'
                echo "WATCHPOST_CERTIFICATES=shop.example@${ADDRESS[lb]}:443=/etc/haproxy/certs/site.pem"
                ;;
            *) echo 'WATCHPOST_ACCESS_LOGS=none' ;;
        esac
        for extra in all "$host"; do
            [ -z "$SETTINGS" ] || [ ! -e "$SETTINGS/$extra.env" ] || cat "$SETTINGS/$extra.env"
        done
    } >"$(file_of "$host" /etc/watchpost/watchpost.env)"
    chown 0:4 "$(file_of "$host" /etc/watchpost/watchpost.env)"
    chmod 0640 "$(file_of "$host" /etc/watchpost/watchpost.env)"
}

# Starts the agent as its own user, which can read what the group adm can, with the settings of its file.
start_agent() {
    local host=$1 line name value settings=()
    while IFS= read -r line; do
        [[ $line =~ ^(WATCHPOST_[A-Z_]+)=(.*)$ ]] || continue
        name=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
        if [[ $value =~ ^\'(.*)\'$ || $value =~ ^\"(.*)\"$ ]]; then value=${BASH_REMATCH[1]}; fi
        settings+=("$name=$value")
    done <"$(file_of "$host" /etc/watchpost/watchpost.env)"
    daemon "$host" /var/log/watchpost.log setpriv --reuid=903 --regid=903 --groups=4 \
        --inh-caps=+net_admin --ambient-caps=+net_admin --no-new-privs \
        env "${settings[@]}" /opt/watchpost run
}

stop_agent() {
    in_host "$1" pkill -TERM -f '^/opt/watchpost run$' || true
    wait_for "the end of the agent" agent_is_gone "$1"
}

agent_is_gone() {
    ! in_host "$1" pgrep -f '^/opt/watchpost run$'
}

agent_is_ready() {
    in_host "$1" curl -fsS -m 5 -o /dev/null http://127.0.0.1:7866/readyz
}
