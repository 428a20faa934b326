"""What the lab consists of: names, addresses, images, and how each of its containers is run. Values only.

Everything is a container on one bridge network, `mlpacker-lab`, with an address of its own. The box reaches these
addresses directly, so no port is published (but for the registries', see below); they reach one another, and what
runs inside a machine's own engine reaches them through the machine. The names stand in /etc/hosts of the box and of
the machines. No packet of a test leaves the box.

Registries are published on 127.0.0.1, and their names mean 127.0.0.1 on the box: every engine trusts plain HTTP
there, so that the box's own engine needs no option. On the machines the same names mean the containers.
"""

from __future__ import annotations

from dataclasses import dataclass

LABEL = "io.mlpacker.lab"
NETWORK = "mlpacker-lab"
SUBNET = "10.213.0.0/24"
GATEWAY = "10.213.0.1"
BASE_IMAGE = "mlpacker-lab/base:bookworm"
USER = PASSWORD = "vagrant"

# All but SYS_RESOURCE, which some kernels withhold even from root; for the same reason not --privileged.
CAPABILITIES = (
    *("AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH"),
    *("FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE", "MKNOD", "NET_ADMIN"),
    *("NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN"),
    *("SYS_BOOT", "SYS_CHROOT", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_TTY_CONFIG"),
)


@dataclass(frozen=True, slots=True)
class Part:
    """One container of the lab: its name in /etc/hosts, its address, its image and the port that says it is up."""

    name: str
    address: str
    image: str
    port: int
    published: bool = False

    @property
    def container(self) -> str:
        return f"mlpacker-lab-{self.name}"

    @property
    def on_box(self) -> str:
        """The address that the name means on the box."""
        return "127.0.0.1" if self.published else self.address


MACHINES = (
    Part("edge_node", "10.213.0.11", "mlpacker-lab/machine", 22),
    Part("cloud_1", "10.213.0.12", "mlpacker-lab/machine", 22),
    Part("cloud_2", "10.213.0.13", "mlpacker-lab/machine", 22),
    Part("bare", "10.213.0.14", "mlpacker-lab/bare", 22),
)
# No underscores here: the name is part of image references.
REGISTRY = Part("registry-1", "10.213.0.21", "mlpacker-lab/registry", 5000, published=True)
REGISTRY_AUTH = Part("registry-auth-1", "10.213.0.22", "mlpacker-lab/registry", 5001, published=True)
MQTT = Part("mqtt_1", "10.213.0.31", "mlpacker-lab/mosquitto", 1883)
KAFKA = Part("kafka_1", "10.213.0.32", "mlpacker-lab/kafka", 9092)
PARTS = (*MACHINES, REGISTRY, REGISTRY_AUTH, MQTT, KAFKA)


def run_options(part: Part, files: str, mtu: int, cgroup2: bool) -> tuple[str, ...]:
    """The options of `docker run` for `part`; `files` is the folder on the box that it sees as /lab."""
    common = (
        *("--network", NETWORK, "--ip", part.address, "--hostname", part.name.replace("_", "-"), "--init"),
        *("--log-opt", "max-size=10m"),
    )
    if part in MACHINES:
        return (*common, "-v", f"{files}:/lab:ro", *_machine(part, mtu, cgroup2))
    if part.published:
        return (*common, "-v", f"{files}:/lab:ro", "-p", f"127.0.0.1:{part.port}:{part.port}")
    return (*common, "-v", "/data")


def _machine(part: Part, mtu: int, cgroup2: bool) -> tuple[str, ...]:
    """What lets an engine run inside; /run and /tmp are empty after a restart, as after a reboot."""
    names = (f"{other.name}:{other.address}" for other in PARTS)
    group = ("--cgroupns", "private") if cgroup2 else ("--cgroupns", "host", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw")
    return (
        *(f"--cap-add={name}" for name in CAPABILITIES),
        *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
        *("--security-opt", "systempaths=unconfined"),
        *group,
        *("-v", "/var/lib/docker", "--tmpfs", "/run:exec", "--tmpfs", "/tmp:exec,mode=1777"),
        *("-e", f"LAB_MTU={mtu}", "-e", f"LAB_SUBNET={SUBNET}"),
        *(f"--add-host={name}" for name in names),
    )
