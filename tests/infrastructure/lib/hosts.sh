# shellcheck shell=bash
# The network and the hosts on it.

# One bridge in a namespace of its own.
raise_network() {
    # What `ip netns` makes belongs to this lab alone, and goes with its mount namespace.
    mount -t tmpfs -o mode=0755 tmpfs /run
    mkdir /run/netns
    ip netns add switch
    ip -n switch link add bridge type bridge
    ip -n switch link set bridge up
}

# The directories of a host: its own /etc, /var, /run, /opt and /tmp.
make_root() {
    local host=$1 root=$D/hosts/$1 name
    mkdir -p "$root"/{etc,var,run,opt,tmp}
    chmod 1777 "$root/tmp"
    mkdir -p "$root"/etc/{ssl/certs,nginx/{conf.d,sites-enabled,tls},haproxy/certs,mysql,watchpost} \
        "$root"/var/{tmp,www/static,log/{nginx,mysql,app},lib/{nginx,haproxy,mysql,watchpost}} \
        "$root"/run/{haproxy,mysqld,lock}
    for name in ld.so.cache ld.so.conf ld.so.conf.d localtime ssl/openssl.cnf nginx/mime.types; do
        [ ! -e "/etc/$name" ] || cp -a "/etc/$name" "$root/etc/$name"
    done
    mkdir "$root/etc/alternatives"
    mount --bind /etc/alternatives "$root/etc/alternatives"
    cp "$CONF/passwd" "$CONF/group" "$root/etc/"
    printf 'passwd: files\ngroup: files\nhosts: files\n' >"$root/etc/nsswitch.conf"
    printf '%s\n' "$host" >"$root/etc/hostname"
    {
        echo '127.0.0.1 localhost'
        for name in "${!ADDRESS[@]}"; do echo "${ADDRESS[$name]} $name $name.lab"; done
        echo "${ADDRESS[lb]} shop.example"
    } >"$root/etc/hosts"
    cat /etc/ssl/certs/ca-certificates.crt "$D/ca/ca.pem" >"$root/etc/ssl/certs/ca-certificates.crt" 2>/dev/null ||
        cp "$D/ca/ca.pem" "$root/etc/ssl/certs/ca-certificates.crt"
    echo 'still' >"$root/var/www/static/still.txt"
    # As Debian's packages have them: readable for the group adm.
    : >"$root/var/log/nginx/access.log"
    : >"$root/var/log/nginx/error.log"
    : >"$root/var/log/haproxy.log"
    : >"$root/var/log/watchpost.log"
    chown 33:4 "$root"/var/log/nginx "$root"/var/log/nginx/*.log
    chmod 0640 "$root"/var/log/nginx/*.log "$root"/var/log/haproxy.log
    chmod 0755 "$root/var/log/nginx"
    chown 0:4 "$root/var/log/haproxy.log"
    chown 902:902 "$root"/var/lib/mysql "$root"/run/mysqld "$root"/var/log/mysql
    chown 904:4 "$root/var/log/app"
    chmod 0750 "$root/var/log/app"
    chown 903:903 "$root/var/lib/watchpost"
    chmod 0700 "$root/var/lib/watchpost"
    mkdir -p "$root/opt/lab"
    : >"$root/opt/watchpost"
    mount --bind "$WATCHPOST" "$root/opt/watchpost"
    mount --bind "$LIB" "$root/opt/lab"
}

# A namespace for everything that a host has of its own.
raise_host() {
    local host=$1 process
    ! is_up "$host" || return 0
    make_root "$host"
    ip netns add "$host"
    ip -n switch -batch - <<-BATCH
	link add $host type veth peer name eth0 netns $host
	link set $host master bridge up
	BATCH
    ip -n "$host" -batch - <<-BATCH
	link set lo up
	link set eth0 up
	address add ${ADDRESS[$host]}/24 dev eth0
	BATCH
    nsenter --net="/run/netns/$host" unshare --mount --pid --uts --fork --kill-child=KILL --mount-proc \
        --propagation slave sh "$LIB/host-init.sh" "$host" "$D/hosts/$host" \
        </dev/null >"$D/hosts/$host.log" 2>&1 &
    process=$!
    # nsenter becomes unshare, so the number stays.
    wait_quick "host $host" "$D/hosts/$host/run/up"
    echo "$process" >"$D/run/$host.pid"
    reload_firewall "$host"
}

# Waits for a file that comes within milliseconds.
wait_quick() {
    local left=3000
    until [ -e "$2" ]; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || die "waited in vain for $1"
        sleep 0.01
    done
}

# What the firewall of a host lets in, as rules.
accepted() {
    local web="{ ${ADDRESS[web1]}, ${ADDRESS[web2]} }" host=$1
    case $host in
        lb) echo 'tcp dport { 80, 443 } accept' ;;
        web*)
            if flagged plaintext-backend; then
                echo "ip saddr ${ADDRESS[lb]} tcp dport 80 accept"
            else
                echo "ip saddr ${ADDRESS[lb]} tcp dport 443 accept"
            fi
            ! flagged all-in-one || echo "ip saddr $web tcp dport 3306 accept"
            ;;
        app*) echo "ip saddr $web tcp dport 8000 accept" ;;
        db*)
            echo "ip saddr { ${ADDRESS[app1]}, ${ADDRESS[app2]}, ${ADDRESS[db1]}, ${ADDRESS[db2]} } tcp dport 3306 accept"
            ;;
        collector) echo 'tcp dport 7867 accept' ;;
    esac
    ! flagged port-beyond-allowed "$host" || echo 'tcp dport 9999 accept'
}

reload_firewall() {
    local host=$1 policy=drop final='counter drop' mark='' partition=''
    if flagged firewall-open "$host"; then
        policy=accept final=''
    fi
    case $host in
        # What the database itself asks of the other one is replication; the mark tells it from what the application asks.
        "$(db_host 1)" | "$(db_host 2)")
            mark='meta skuid 902 tcp dport 3306 ct mark set 1'
            ! flagged replica-partition || partition='ct mark 1 counter drop'
            ;;
    esac
    render firewall.nft POLICY=$policy FINAL="$final" MARK="$mark" PARTITION="$partition" \
        ACCEPT="$(accepted "$host")" >"$D/hosts/$host/etc/nftables.conf"
    in_host "$host" nft -f /etc/nftables.conf
}

reload_firewalls() {
    local host
    for host in $(hosts); do reload_firewall "$host"; done
}
