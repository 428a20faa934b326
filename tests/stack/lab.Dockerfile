# What stands in for the public images of docker-compose.airflow.yml where no image registry can be reached, from Debian's
# packages: the same users, commands and variables, as far as the compose file uses them. One image for all of them, made
# of the lab's own, because making and unpacking images is most of what the proof of the stack takes.
ARG MACHINE
ARG KAFKA
FROM ${MACHINE} AS machine

FROM ${KAFKA}
RUN groupadd -g 999 postgres && useradd -K UID_MIN=900 -u 999 -g 999 postgres \
    && groupadd -g 1883 mosquitto && useradd -u 1883 -g 1883 mosquitto \
    && echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/unsafe-io \
    && mkdir -p /etc/postgresql-common && echo create_main_cluster=false >/etc/postgresql-common/createcluster.conf \
    && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
      docker-registry mosquitto mosquitto-clients netcat-openbsd postgresql redis-server wget >/dev/null \
    && rm -rf /var/lib/apt/lists/* && mkdir -p /usr/local/libexec/docker/cli-plugins
COPY --from=machine /usr/bin/docker /usr/local/bin/docker
ENV PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --chmod=755 tests/stack/*.sh /
ENTRYPOINT ["/entrypoint.sh"]
