"""Brings the lab's network and containers up and down: each only if it is not there as it should be."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from tests.lab import brokers, engine, images, keys, names
from tests.lab.place import LabError, alone, docker, say
from tests.lab.spec import GATEWAY, KAFKA, LABEL, NETWORK, PARTS, SUBNET, Part, run_options

DONE = "The lab is up. Next: 'make test' runs every test with it, 'make lab-down' stops it."


def up() -> None:
    """The whole lab; returns when every part of it answers."""
    with alone():
        engine.up()
        images.up()
        keys.make(images.name_server())
        mtu = engine.mtu()
        _network(mtu)
        cgroup2 = engine.cgroup2()
        for part in PARTS:
            _container(part, run_options(part, str(keys.files(part)), mtu, cgroup2))
        names.up()
        for part in PARTS:
            wait(part)
    say(DONE)


def down() -> None:
    """Containers, network, names, and the engine if the lab started it. Images, keys and caches stay."""
    with alone():
        if engine.answers():
            for part in PARTS:
                if docker("ps", "-aq", "--filter", f"name=^{part.container}$"):
                    say(f"removing {part.name}")
                    docker("rm", "-f", "-v", part.container)
            if docker("network", "ls", "-q", "--filter", f"name=^{NETWORK}$"):
                _passage("-D")
                docker("network", "rm", NETWORK)
        names.down()
        engine.down()
    say("The lab is down; its images and caches are kept, so that 'make lab' is quick.")


def status() -> dict[str, str]:
    """Part → its container's state, or "absent"."""
    answering = engine.answers()
    return {part.name: (_state(part) if answering else "") or "absent" for part in PARTS}


def _state(part: Part) -> str:
    return docker("inspect", "-f", "{{.State.Status}}", part.container, check=False)


def _network(mtu: int) -> None:
    if not docker("network", "ls", "-q", "--filter", f"name=^{NETWORK}$"):
        option = f"com.docker.network.driver.mtu={mtu}"
        docker(
            *("network", "create", "--subnet", SUBNET, "--gateway", GATEWAY),
            *("-o", option, "--label", f"{LABEL}=network", NETWORK),
        )
    _passage("-C") or _passage("-I")


def _passage(action: str) -> bool:
    """Other bridges of this box (a unit's, a stack's) may reach the lab: engines keep bridges apart otherwise."""
    script = " && ".join(
        f"iptables {action} DOCKER-USER {way} {SUBNET} -j ACCEPT && echo {way}" for way in ("-s", "-d")
    )
    options = ("run", "--rm", "--network", "host", "--cap-add", "NET_ADMIN", "--entrypoint", "sh")
    return docker(*options, "mlpacker-lab/bare", "-c", script, check=False) == "-s\n-d"


def _container(part: Part, options: tuple[str, ...]) -> None:
    image = docker("image", "inspect", "-f", "{{.Id}}", part.image)
    made_from = hashlib.sha256("\0".join((*options, image)).encode()).hexdigest()
    label = docker("inspect", "-f", f'{{{{index .Config.Labels "{LABEL}"}}}}', part.container, check=False)
    if label == made_from:
        if _state(part) != "running":
            say(f"starting {part.name} again")
            docker("start", part.container)
        return
    if label:
        docker("rm", "-f", "-v", part.container)
    say(f"starting {part.name} ({part.address}:{part.port})")
    docker("run", "-d", "--name", part.container, "--label", f"{LABEL}={made_from}", *options, part.image)


def wait(part: Part) -> None:
    """Until its port answers; a machine's engine and Kafka are asked themselves."""
    _until(part, lambda: _connects(part))
    if part.image == "mlpacker-lab/machine":
        _until(part, lambda: bool(docker("exec", part.container, "docker", "info", "-f", "{{.ID}}", check=False)))
    if part is KAFKA:
        _until(part, lambda: brokers.serves_kafka(KAFKA.name, KAFKA.port))


def _until(part: Part, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        if time.monotonic() > deadline or _state(part) != "running":
            extra = docker("exec", part.container, "tail", "/var/log/dockerd.log", check=False)
            raise LabError(f"{part.name} did not come up:\n{docker('logs', '--tail', '30', part.container)}\n{extra}")
        time.sleep(0.2)


def _connects(part: Part) -> bool:
    with suppress(OSError), socket.create_connection((part.address, part.port), 1):
        return True
    return False
