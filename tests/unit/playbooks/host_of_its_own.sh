#!/bin/sh
# Usage, in a mount namespace: host_of_its_own.sh DIRECTORY
# Makes of this machine a host whose /etc, /usr/bin and /var/lib may change: changes stay in DIRECTORY, in memory. It says
# "ready", and lasts until its standard input ends.
set -eu
mount -t tmpfs none "$1"
for place in /etc /usr/bin /var/lib; do
  upper="$1/upper$place" work="$1/work$place"
  mkdir -p "$upper" "$work"
  mount -t overlay -o "lowerdir=$place,upperdir=$upper,workdir=$work" overlay "$place"
done
echo ready
cat
