#!/bin/sh
# The first process of a host: gives it directories and a name of its own, then collects its orphans until the lab ends.
set -eu
name=$1 root=$2
for directory in etc var run opt tmp; do
    mount --rbind "$root/$directory" "/$directory"
done
mount -t sysfs sysfs /sys 2>/dev/null || true
hostname "$name"
: >/run/up
while :; do
    sleep 1000000 &
    wait "$!" || true
done
