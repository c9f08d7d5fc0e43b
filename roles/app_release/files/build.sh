# Builds one release: sh -s ARTIFACT RELEASE INTERPRETER SHA256, as root, with this script on standard input. It takes
# the artifact away again, unless another play is building from it.
# The release is complete when its .complete file stands, or it is as it was before: another run begins anew.
# With RELEASE alone it tells by its exit code whether that release still is what was built.
set -eu
umask 022

# One digest of all names, kinds, modes, owners and sizes, but for bytecode, which comes and goes, and the marks.
digest() {
  listing=$(find "$1" -name __pycache__ -prune -o ! -name '.complete*' ! -name .activated \
    \( -type d -printf '%P/ %m %U:%G\n' -o -printf '%P %m %U:%G %s %l\n' \)) || return
  printf '%s\n' "$listing" | LC_ALL=C sort | sha256sum | cut -d ' ' -f 1
}
stands() {
  [ -e "$1/.complete" ] && [ "$(sed -n 2p "$1/.complete")" = "$(digest "$1")" ]
}
if [ $# = 1 ]; then
  stands "$1"
  exit
fi
artifact=$1 release=$2 interpreter=$3 sha256=$4

# Where another user may open the lock, another user may hold it.
umask 077
exec 9> "/run/lock/$(basename "$release").build"
umask 022
if ! flock --nonblock 9; then
  echo "another play is building $release on this host right now; wait for it to end, then run this one again" >&2
  exit 75
fi
trap 'rm -f "$artifact"' EXIT

# What builds that were killed have left: a part of a release and, of one that was built anew, the whole of it beside.
live=$(readlink -f "$(dirname "$(dirname "$release")")/current") || :
tidy() {
  if [ -e "$1/.complete" ]; then
    rm -rf "$1.damaged"
  elif [ -e "$1.damaged" ]; then
    rm -rf "$1"
    mv -T "$1.damaged" "$1"
  elif [ "$(readlink -f "$1")" != "$live" ]; then
    rm -rf "$1"
  fi
}
for left in "$(dirname "$release")"/*; do
  left=${left%.damaged}
  [ "$left" != "$release" ] || continue
  [ -e "$left.damaged" ] || { [ -e "$left" ] && [ ! -e "$left/.complete" ]; } || continue
  (umask 077 && exec 8> "/run/lock/$(basename "$left").build" && umask 022 && flock --nonblock 8 && tidy "$left") || :
done
tidy "$release"
! stands "$release" || exit 0

give_up() {
  left=$(df -Pk "$(dirname "$release")" | awk 'NR == 2 { print $4 }')
  [ "$left" -gt 10240 ] || echo "the disk is full: $left KiB are left for $release; make room and run the play again" >&2
  rm -rf "$release" "$artifact"
  [ ! -e "$release.damaged" ] || mv "$release.damaged" "$release"
}
# It may be the live one, which then is away for as long as this takes; what runs has its code in memory.
if [ -e "$release" ]; then
  mv "$release" "$release.damaged"
fi
trap give_up EXIT
mkdir -p "$release"
cd "$release"
# Another user may have the artifact open, or have put it there: what counts is what stands in a copy of root's own.
install -m 600 "$artifact" .artifact.zip
if [ "$(sha256sum .artifact.zip | cut -d ' ' -f 1)" != "$sha256" ]; then
  echo "$artifact has changed on its way to this host: its SHA-256 is not $sha256; run the play again" >&2
  exit 1
fi
said=$("$interpreter" -m zipfile -e .artifact.zip . 2>&1) || {
  printf '%s\n' "$said" | tail -n 1 >&2
  exit 1
}
rm .artifact.zip

# An artifact that carries pip needs none of the distribution's, and none in its venv.
set -- installer/pip-*.whl
if [ -e "$1" ]; then
  "$interpreter" -m venv --without-pip venv
  pip=$1/pip
else
  "$interpreter" -m venv venv
  pip='-m pip'
fi
# One that carries its wheels needs no index.
set -- --quiet --no-input --no-cache-dir --disable-pip-version-check --requirement requirements.txt
[ ! -d wheels ] || set -- "$@" --no-index --find-links wheels
# shellcheck disable=SC2086 # two words, or a path without spaces
venv/bin/python $pip install "$@"

# The service can't write here, so nothing would compile its modules later.
venv/bin/python -m compileall -q -x '/venv/' "$release"
chown -R root:root .
chmod -R u=rwX,go=rX .
[ ! -e "$release.damaged/.activated" ] || cp -p "$release.damaged/.activated" .activated
{ echo "$sha256" && digest "$release"; } > .complete.new
# It is as old as it was: the order of the releases says which one is before which.
[ ! -e "$release.damaged/.complete" ] || touch -r "$release.damaged/.complete" .complete.new
mv .complete.new .complete
trap - EXIT
rm -rf "$release.damaged" "$artifact"
