#!/bin/sh
# The part of the public Kafka image's entry point that the compose file uses: KAFKA_* become the broker's properties.
set -euf
properties=/tmp/server.properties
env | sed -n 's/^KAFKA_\([A-Z_]*\)=\(.*\)/\1 \2/p' | while read -r name value; do
  case $name in HEAP_OPTS) continue ;; esac
  printf '%s=%s\n' "$(printf %s "$name" | tr 'A-Z_' 'a-z.')" "$value"
done >"$properties"
run="java ${KAFKA_HEAP_OPTS:-} -Dlog4j2.configurationFile=/lab/log4j2.properties -cp /libs/*"
[ -e "$KAFKA_LOG_DIRS/meta.properties" ] || $run kafka.tools.StorageTool format -t "$CLUSTER_ID" -c "$properties"
exec $run kafka.Kafka "$properties"
