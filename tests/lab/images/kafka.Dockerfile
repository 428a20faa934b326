# Maven's jars (the build context's `libs`) on Debian's Java; formatted at the first start.
ARG BASE
FROM ${BASE}
RUN mkdir -p /usr/share/man/man1 \
 && apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless \
 && rm -rf /var/lib/apt/lists/*
COPY libs /libs
COPY server.properties log4j2.properties /lab/
COPY kafka.sh /kafka.sh
ENTRYPOINT ["/bin/sh", "/kafka.sh"]
