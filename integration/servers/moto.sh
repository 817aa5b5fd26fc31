#!/usr/bin/env bash
# moto, a stand-in for AWS services written by others, on 127.0.0.1, for tests: Kinesis among them. It keeps all in memory,
# never throttles and looks at no signature.
#
#   moto.sh fetch      brings it by pip into a virtual environment (60 MB) unless it is there
#   moto.sh run PORT   becomes the server
#
# Environment: FOREBAY_MOTO_CACHE (where it is kept).
# Needs bash, flock, Python 3 with venv and pip. Exits 69 when one is missing.
set -euo pipefail

version=5.2.5

if [ -n "${FOREBAY_MOTO_CACHE:-}" ]; then cache=$FOREBAY_MOTO_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/forebay/moto
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/forebay/moto; fi
kept=$cache/$version

missing() {
  echo "moto.sh: $1" >&2
  exit 69
}

fetch() {
  [ ! -e "$kept/complete" ] || return 0
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9 # two test runs may begin at once
  [ ! -e "$kept/complete" ] || return 0
  rm -rf "$kept" # a virtual environment cannot be moved: half of one is begun anew
  python3 -m venv "$kept" >&2 || missing "cannot make a virtual environment: apt-get install python3-venv"
  # without moto's extra `server`, which brings three times as much
  "$kept/bin/pip" install --quiet --disable-pip-version-check "moto==$version" flask flask-cors >&2 ||
    missing "cannot fetch moto from PyPI: connect this machine to it and try again"
  touch "$kept/complete"
}

case ${1:-} in
  fetch) fetch ;;
  run)
    [ -e "$kept/complete" ] || missing "moto is not there: integration/run --bring"
    export MOTO_ALLOW_NONEXISTENT_REGION=true AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x
    exec "$kept/bin/python" "$kept/bin/moto_server" -H 127.0.0.1 -p "${2:?a port}"
    ;;
  *) missing "usage: moto.sh fetch | run PORT" ;;
esac
