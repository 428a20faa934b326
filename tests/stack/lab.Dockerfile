# What stands in for the public images of docker-compose.airflow.yml where no image registry can be reached, from Debian's
# packages: the same users, commands and variables, as far as the compose file uses them. One target each.
ARG BASE
FROM ${BASE} AS base
RUN apt-get update -qq
# The newest apt keeps what it fetched in the layer; these images stay on the machine that tests.

FROM base AS docker-cli
RUN apt-get install -qq -y --no-install-recommends docker.io >/dev/null \
    && mkdir -p /usr/local/libexec/docker/cli-plugins && cp /usr/bin/docker /usr/local/bin/docker

FROM base AS airflow-base
RUN ln -sf python3 /usr/bin/python

FROM base AS postgres
RUN groupadd -g 999 postgres && useradd -u 999 -g 999 postgres \
    && apt-get install -qq -y --no-install-recommends postgresql >/dev/null
ENV PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin
COPY --chmod=755 tests/stack/postgres.sh /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]

FROM base AS redis
RUN groupadd -g 999 redis && useradd -u 999 -g 999 redis \
    && apt-get install -qq -y --no-install-recommends redis-server >/dev/null

FROM base AS mosquitto
RUN groupadd -g 1883 mosquitto && useradd -u 1883 -g 1883 mosquitto \
    && apt-get install -qq -y --no-install-recommends mosquitto mosquitto-clients >/dev/null
ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin

FROM base AS registry
RUN apt-get install -qq -y --no-install-recommends docker-registry wget >/dev/null
CMD ["docker-registry", "serve", "/etc/docker/registry/config.yml"]

FROM base AS kafka
RUN apt-get install -qq -y --no-install-recommends openjdk-17-jre-headless netcat-openbsd >/dev/null
COPY .lab/kafka/libs /opt/kafka/libs
COPY tests/lab/kafka/log4j2.properties /opt/kafka/
COPY --chmod=755 tests/stack/kafka.sh /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]
