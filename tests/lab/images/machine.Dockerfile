# The bare machine and a container engine of its own.
ARG BASE
FROM ${BASE}
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io \
 && rm -rf /var/lib/apt/lists/* \
 && usermod -aG docker vagrant
