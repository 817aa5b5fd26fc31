#!/usr/bin/env bash
# A server that speaks S3 and checks signatures (Versity's gateway on a folder) on 127.0.0.1, for tests.
#
#   s3.sh fetch            builds the gateway unless it is there
#   s3.sh run DIR PORT     becomes the server; its buckets are folders of DIR/data, its keys accesskey/secretkey
#
# Environment: FOREBAY_S3_CACHE (where the program is). Needs bash, and Go for `fetch`. Exits 69 when one is missing.
set -euo pipefail

version=v1.8.0

if [ -n "${FOREBAY_S3_CACHE:-}" ]; then cache=$FOREBAY_S3_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/forebay/s3
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/forebay/s3; fi
folder=$cache/$version

missing() {
  echo "s3.sh: $1" >&2
  exit 69
}

fetch() {
  [ ! -x "$folder/versitygw" ] || return 0
  command -v go >/dev/null || missing "cannot build the S3 server without Go: apt-get install golang"
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9 # two test runs may begin at once
  [ ! -x "$folder/versitygw" ] || return 0
  local fresh=$cache/fresh
  rm -rf "$fresh"
  mkdir "$fresh"
  GOBIN=$fresh CGO_ENABLED=0 go install -ldflags='-s -w' "github.com/versity/versitygw/cmd/versitygw@$version"
  mv "$fresh" "$folder"
}

run() {
  fetch
  mkdir -p "$1/data"
  export ROOT_ACCESS_KEY=accesskey ROOT_SECRET_KEY=secretkey
  exec "$folder/versitygw" --port "127.0.0.1:$2" --health /healthz posix "$1/data"
}

"$@"
