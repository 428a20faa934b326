"""What the containers of a unit are given: labels, their own variables, ports, names of hosts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from packer_lib.images import names, words
from packer_lib.release.forms import Launch
from packer_lib.release.model import Release, number_of

ALL = "0.0.0.0"  # noqa: S104  inside a container


def labels(release: Release, kind: str) -> dict[str, str]:
    return {names.KIND: kind, names.PIPELINE: release.pipeline, names.UNIT: release.unit, names.BUNDLE: release.bundle}


def own_labels(release: Release, process: str) -> dict[str, str]:
    told = {names.REPLICA: str(number_of(process))} if release.replicas > 1 else {}
    return {names.RELEASE: release.id, names.RUN: release.run, **told}


def own_env(release: Release, process: str) -> dict[str, str]:
    own = {"MLPACKER_HOST": ALL, "MLPACKER_PORT": str(names.PORT), "MLPACKER_RELEASE": release.id}
    own |= {"MLPACKER_STATE": words.STATE_FOLDER}
    if release.replicas > 1:
        own |= {"MLPACKER_REPLICA": str(number_of(process)), "MLPACKER_REPLICAS": str(release.replicas)}
    return own | ({"MLPACKER_DOOR": names.DOOR_FOLDER} if release.has_door else {})


def published(release: Release, process: str, launch: Launch) -> Iterator[tuple[str, int, int]]:
    """Without a door, the probe port; and those that it listens on for queues, for others elsewhere."""
    if not release.has_door and not number_of(process):
        yield (release.host, release.port, names.PORT)
    for port in launch.ports:
        yield (release.host if release.machine is None else ALL, port, port)


def doors(release: Release) -> tuple[tuple[str, int, int], ...]:
    """What the door of a unit publishes: its port, and its admin port where it has one."""
    own = ((release.host, release.port, names.PORT),)
    return (*own, (release.admin_host, release.admin_port, names.ADMIN_PORT)) if release.admin_port else own


def bound(ports: Mapping[str, Sequence[Mapping[str, str]]]) -> set[tuple[str, int, int]]:
    """What an engine says of a container, as in `doors`."""
    return {
        (place["HostIp"], int(place["HostPort"]), int(port.partition("/")[0]))
        for port, places in ports.items()
        for place in places or ()
    }


def passage(release: Release) -> tuple[str, ...]:
    """Where the door leads those who come to the admin port: to the container of the current release."""
    unit = names.container(release.pipeline, release.unit, "{}")
    return (str(names.ADMIN_PORT), f"{unit}:{names.ADMIN_PORT}") if release.admin_port else ()


def hosts_in(text: str, wanted: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(name, address) of those that are in there; the machine's own loopback is its gateway for a container."""
    known: dict[str, str] = {}
    for line in text.splitlines():
        address, *called = line.partition("#")[0].split() or [""]
        for name in called:
            known.setdefault(name, "host-gateway" if address.startswith("127.") or address == "::1" else address)
    return tuple((name, known[name]) for name in dict.fromkeys(wanted) if name in known and name != "localhost")
