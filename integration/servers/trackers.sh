#!/usr/bin/env bash
# The Snowplow tracker for Python, as its users install it.
#
#   trackers.sh fetch      brings it by pip unless it is there, and prints the folder that it is in (for PYTHONPATH)
#
# Environment: FOREBAY_TRACKERS_CACHE (where it is kept).
# Needs bash, flock, python3, and for `fetch` pip. Exits 69 when one is missing.
set -euo pipefail

package=snowplow-tracker==1.1.0

if [ -n "${FOREBAY_TRACKERS_CACHE:-}" ]; then cache=$FOREBAY_TRACKERS_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/forebay/trackers
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/forebay/trackers; fi
kept=$cache/${package//==/-}

missing() {
  echo "trackers.sh: $1" >&2
  exit 69
}

fetch() {
  [ ! -d "$kept" ] || return 0
  python3 -m pip --version >/dev/null 2>&1 || missing "cannot fetch a tracker without pip: apt-get install python3-pip"
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9 # two test runs may begin at once
  [ ! -d "$kept" ] || return 0
  rm -rf "$cache/fresh"
  python3 -m pip install --quiet --disable-pip-version-check --target "$cache/fresh" "$package" >&2 ||
    missing "cannot fetch $package from PyPI: connect this machine to it and try again"
  mv "$cache/fresh" "$kept"
}

case ${1:-} in
  fetch)
    fetch
    echo "$kept"
    ;;
  *)
    echo "usage: trackers.sh fetch" >&2
    exit 64
    ;;
esac
