# Builds one release: sh -s ARTIFACT RELEASE INTERPRETER, as root, with this script on standard input.
# The release is complete when its .complete file stands, or it is gone again: another run begins anew.
set -eu
umask 022
artifact=$1 release=$2 interpreter=$3

exec 9> "/run/lock/$(basename "$release").build"
if ! flock --nonblock 9; then
  echo "another play is building $release on this host right now; wait for it to end, then run this one again" >&2
  exit 75
fi
[ ! -e "$release/.complete" ] || exit 0

give_up() {
  left=$(df -Pk "$release" | awk 'NR == 2 { print $4 }')
  [ "$left" -gt 10240 ] || echo "the disk is full: $left KiB are left for $release; make room and run the play again" >&2
  rm -rf "$release"
}
trap give_up EXIT
rm -rf "$release"
mkdir -p "$release"
cd "$release"
unzip -q "$artifact"
"$interpreter" -m venv venv

# An artifact that carries its wheels needs no index.
set -- --quiet --no-input --no-cache-dir --disable-pip-version-check --requirement requirements.txt
[ ! -d wheels ] || set -- "$@" --no-index --find-links wheels
venv/bin/python -m pip install "$@"

# The service can't write here, so nothing would compile its modules later.
venv/bin/python -m compileall -q -x '/venv/' "$release"
chown -R root:root .
chmod -R u=rwX,go=rX .
sha256sum "$artifact" | cut -d ' ' -f 1 > .complete
trap - EXIT
