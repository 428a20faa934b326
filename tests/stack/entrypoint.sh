#!/bin/sh
# What each public image starts when the compose file names no command; else that command.
set -eu
if [ $# -gt 0 ]; then exec "$@"; fi
if [ -n "${POSTGRES_DB:-}" ]; then exec /postgres.sh; fi
if [ -n "${KAFKA_NODE_ID:-}" ]; then exec /kafka.sh; fi
exec docker-registry serve /etc/docker/registry/config.yml
