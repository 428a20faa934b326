#!/bin/sh
set -eu
OPTIONS="-Dlog4j2.configurationFile=/lab/log4j2.properties"
[ -e /data/kafka/meta.properties ] ||
  java -cp "/libs/*" $OPTIONS kafka.tools.StorageTool format -t bWxwYWNrZXItbGFiLWthZg -c /lab/server.properties --standalone
exec java -Xmx768m -cp "/libs/*" $OPTIONS kafka.Kafka /lab/server.properties
