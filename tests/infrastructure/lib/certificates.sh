# shellcheck shell=bash
# A certificate authority of the lab's own, and what it signs.

make_authority() {
    mkdir -p "$D/ca"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=Lab CA' \
        -keyout "$D/ca/ca.key" -out "$D/ca/ca.pem" 2>/dev/null
}

# A certificate for everybody to read, and FILE.key for its server: FILE NAME DAYS NAMES, where the names are those of
# subjectAltName. The agent compares the file with what is served; a file with a key in it, it could not read.
make_certificate() {
    local file=$1 name=$2 days=$3 names=$4 work
    work=$(mktemp -d "$D/ca/work.XXXXXX")
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
        -keyout "$work/key" -out "$work/request" 2>/dev/null
    # Each has a life of 90 days, of which DAYS are left. The serial is random: every certificate differs from the one before it.
    touch "$work/index"
    cat >"$work/ca.cnf" <<-END
	[ca]
	default_ca = lab
	[lab]
	database = $work/index
	new_certs_dir = $work
	rand_serial = yes
	default_md = sha256
	policy = any
	x509_extensions = site
	[any]
	commonName = supplied
	[site]
	subjectAltName = $names
	END
    openssl ca -batch -notext -config "$work/ca.cnf" -cert "$D/ca/ca.pem" -keyfile "$D/ca/ca.key" \
        -startdate "$(date -u -d "$((days - 90)) days" +%Y%m%d%H%M%SZ)" \
        -enddate "$(date -u -d "$days days" +%Y%m%d%H%M%SZ)" \
        -in "$work/request" -out "$work/pem" 2>/dev/null
    chmod 0600 "$work/key"
    chmod 0644 "$work/pem"
    mv "$work/key" "$file.key"
    mv "$work/pem" "$file"
    rm -r "$work"
}

# The certificate of the site, as the switches have it.
make_site_certificate() {
    local days=90 name=shop.example
    ! flagged certificate-expiring || days=5
    ! flagged certificate-wrong-name || name=other.example
    make_certificate "$(file_of lb /etc/haproxy/certs/site.pem)" "$name" "$days" "DNS:$name,DNS:www.$name"
}

# What nginx shows to the load balancer where the hop between them is encrypted: the load balancer asks for the host, and
# whoever comes past it for the site.
make_web_certificate() {
    make_certificate "$(file_of "$1" /etc/nginx/tls/web.pem)" "$1.lab" 90 "DNS:$1.lab,DNS:shop.example"
}
