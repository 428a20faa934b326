ARG BASE
FROM ${BASE}
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mosquitto \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir /data
COPY mosquitto.conf /lab/mosquitto.conf
ENTRYPOINT ["mosquitto", "-c", "/lab/mosquitto.conf"]
