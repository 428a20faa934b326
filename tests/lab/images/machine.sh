#!/bin/sh
# What a machine of the lab does at boot. /lab (read only, from the box) holds its host key and the key that may log in.
set -eu
mount -o remount,rw /sys 2>/dev/null || true
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then  # cgroup 2: the root group of a nested engine must hold no process
  mkdir -p /sys/fs/cgroup/init
  xargs -rn1 < /sys/fs/cgroup/cgroup.procs > /sys/fs/cgroup/init/cgroup.procs 2>/dev/null || true
  sed -e 's/ / +/g' -e 's/^/+/' < /sys/fs/cgroup/cgroup.controllers > /sys/fs/cgroup/cgroup.subtree_control || true
fi
install -d -m 0755 /run/sshd
install -m 0600 /lab/ssh_host_ed25519_key /etc/ssh/ssh_host_ed25519_key
install -d -m 0700 -o vagrant -g vagrant /home/vagrant/.ssh
install -m 0600 -o vagrant -g vagrant /lab/authorized_keys /home/vagrant/.ssh/authorized_keys
cp /lab/resolv.conf /etc/resolv.conf  # the engine's own name server, 127.0.0.11, is of no use to containers in here
cron
if [ -x /usr/sbin/dockerd ]; then
  dockerd --mtu "$LAB_MTU" --insecure-registry "$LAB_SUBNET" > /var/log/dockerd.log 2>&1 &
fi
exec /usr/sbin/sshd -D -e
