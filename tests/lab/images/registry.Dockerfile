ARG BASE
FROM ${BASE}
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker-registry \
 && rm -rf /var/lib/apt/lists/*
ENTRYPOINT ["docker-registry", "serve", "/lab/config.yml"]
