#!/bin/sh
# docker/stack.txt anew: what stack.in needs and uv.lock does not have, with hashes. Run it after uv.lock changes.
set -eu
cd "$(dirname "$0")/.."
lock=$(mktemp)
trap 'rm -f "$lock"' EXIT
uv export --quiet --frozen --no-dev --no-emit-project --no-hashes --no-annotate --no-header >"$lock"
# shellcheck disable=SC2046  # one word per argument is wanted
uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate --constraint "$lock" \
  $(sed -n 's/^\([a-zA-Z0-9._-]*\)==.*/--no-emit-package \1/p' "$lock") docker/stack.in >docker/stack.txt
