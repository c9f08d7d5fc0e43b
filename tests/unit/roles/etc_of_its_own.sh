#!/bin/sh
# Usage, in a mount namespace: etc_of_its_own.sh DIRECTORY FILES COMMAND…
# Runs a command to which /etc is this machine's with FILES laid over it, and whose changes stay in DIRECTORY, in memory.
set -eu
directory=$1 files=$2
shift 2
mount -t tmpfs none "$directory"
mkdir "$directory/upper" "$directory/work"
cp -r "$files/." "$directory/upper"
mount -t overlay -o "lowerdir=/etc,upperdir=$directory/upper,workdir=$directory/work" overlay /etc
exec "$@"
