#!/bin/sh
# The first process of a host: gives it directories and a name of its own, then collects its orphans until the lab ends.
set -eu
name=$1 root=$2
# From within the directory, since the path to it may lead through what is covered.
cd "$root"
for directory in etc var run opt tmp; do
    mount --no-canonicalize --rbind "./$directory" "/$directory"
done
cd /
mount -t sysfs sysfs /sys 2>/dev/null || true
hostname "$name"
: >/run/up
while :; do
    sleep 1000000 &
    wait "$!" || true
done
