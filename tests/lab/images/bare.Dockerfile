# A Debian machine one can log in to: sshd, sudo, cron, a user with a password. No container engine.
ARG BASE
FROM ${BASE}
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      cron iproute2 iptables openssh-server procps sudo \
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
 && useradd --create-home --shell /bin/bash vagrant \
 && echo vagrant:vagrant | chpasswd \
 && echo 'vagrant ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/vagrant
COPY machine.sh /machine.sh
ENTRYPOINT ["/bin/sh", "/machine.sh"]
