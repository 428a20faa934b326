"""The words for the docker client: argv tuples made of plain values. Nothing is run here.

No value of a PADL file is ever syntax: names are ours (`names`), environments travel as files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from packer_lib.commands import Argv

STOP_WITHIN = 30  # seconds from TERM to KILL
# The same for every container of ours (facts: SECURITY T16): a PADL file has no key for any of it.
PROFILE: Argv = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),  # noqa: S108
    *("--pids-limit", "512", "--init", "--stop-timeout", str(STOP_WITHIN), "--user", "10001:10001"),
    *("--log-driver", "json-file", "--log-opt", "max-size=10m", "--log-opt", "max-file=3"),
)
STATE_FOLDER = "/var/lib/mlpacker"  # in every container
# the name of the machine itself, for its containers
GATEWAY = "host.docker.internal"


@dataclass(frozen=True, slots=True)
class Build:
    """`secrets` are files by their id; they are no part of the image."""

    folder: str
    name: str
    base: str
    labels: Mapping[str, str]
    secrets: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """`publish` are (address, port, port inside), `hosts` names with their addresses; `volume` is the door's folder,
    `state` the folder of the machine that outlives the container.

    `env` says that `NAME=value` lines come on the client's standard input: values are in no argv, and no name of theirs
    is one in the client's own environment, where `LD_PRELOAD` or `DOCKER_HOST` would do something.
    """

    name: str
    image: str
    labels: Mapping[str, str]
    env: bool = False
    volume: str = ""
    state: str = ""
    publish: tuple[tuple[str, int, int], ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()
    memory: str = ""
    cpus: float = 0.0
    entrypoint: str = ""
    command: tuple[str, ...] = ()
    healthcheck: bool = True


def build(docker: str, what: Build) -> Argv:
    return (
        *(docker, "build", "--progress", "plain", "--tag", what.name, "--build-arg", f"BASE_IMAGE={what.base}"),
        *(("--platform", what.platform) if what.platform else ()),
        *_each("--label", (f"{key}={value}" for key, value in sorted(what.labels.items()))),
        *_each("--secret", (f"id={name},{_field(f'src={file}')}" for name, file in sorted(what.secrets.items()))),
        what.folder,
    )


def _field(text: str) -> str:
    """As the client's CSV reader takes it back."""
    return '"' + text.replace('"', '""') + '"' if any(char in text for char in ',"\n') else text


def _each(option: str, values: Iterable[str]) -> Argv:
    return tuple(word for value in values for word in (option, value))


def create(docker: str, what: Container, network: str) -> Argv:
    """A container that runs until it is stopped, over crashes and restarts of the machine."""
    return (
        *(docker, "create", "--pull", "never", "--name", what.name),
        *("--restart", "unless-stopped", "--network", network),
        *("--add-host", f"{GATEWAY}:host-gateway"),
        *_each("--add-host", (f"{name}:{address}" for name, address in what.hosts)),
        *_options(what),
    )


def check(docker: str, what: Container) -> Argv:
    """A container without a network that ends by itself."""
    return (docker, "run", "--rm", "--pull", "never", "--name", what.name, "--network", "none", *_options(what))


def _options(what: Container) -> Argv:
    return (
        *PROFILE,
        *(("--memory", what.memory, "--memory-swap", what.memory) if what.memory else ()),
        *(("--cpus", f"{what.cpus:g}") if what.cpus else ()),
        *_each("--label", (f"{key}={value}" for key, value in sorted(what.labels.items()))),
        *(("--env-file", "/dev/stdin") if what.env else ()),
        *(("--mount", f"type=volume,source={what.volume},target=/run/mlpacker") if what.volume else ()),
        *(("--mount", f"type=bind,{_field(f'source={what.state}')},target={STATE_FOLDER}") if what.state else ()),
        *_each("--publish", (_published(*place) for place in what.publish)),
        *(() if what.healthcheck else ("--no-healthcheck",)),
        *(("--entrypoint", what.entrypoint) if what.entrypoint else ()),
        what.image,
        *what.command,
    )


def _published(address: str, port: int, inside: int) -> str:
    return f"{f'[{address}]' if ':' in address else address}:{port}:{inside}"


def start(docker: str, name: str) -> Argv:
    return (docker, "start", name)


def stop(docker: str, *names: str) -> Argv:
    """All at once."""
    return (docker, "stop", "--time", str(STOP_WITHIN), *names)


def stay_down(docker: str, *names: str) -> Argv:
    """What of these ends is not started again."""
    return (docker, "update", "--restart", "no", *names)


def signal(docker: str, name: str, *names: str) -> Argv:
    return (docker, "kill", "--signal", name, *names)


def wait(docker: str, *names: str) -> Argv:
    """Until all of them have ended."""
    return (docker, "wait", *names)


def remove_container(docker: str, *names: str) -> Argv:
    return (docker, "rm", "--force", "--volumes", *names)


def inspect_container(docker: str, name: str) -> Argv:
    return (docker, "container", "inspect", name)


def containers(docker: str, labels: Mapping[str, str], template: str) -> Argv:
    """One line each, the newest first, running or not."""
    return (docker, "container", "ls", "--all", "--no-trunc", *_labelled(labels), "--format", template)


def execute(docker: str, name: str, argv: Sequence[str]) -> Argv:
    return (docker, "exec", name, *argv)


def logs(docker: str, name: str, lines: int) -> Argv:
    """With the time of each line before it: what went to stdout and what to stderr comes apart otherwise."""
    return (docker, "logs", "--timestamps", "--tail", str(lines), name)


def follow(docker: str, name: str, lines: int) -> Argv:
    return (docker, "logs", "--follow", "--tail", str(lines), name)


def inspect_image(docker: str, *references: str) -> Argv:
    return (docker, "image", "inspect", *references)


def chains(docker: str, *references: str) -> Argv:
    """The layers of every image there is, a JSON list a line."""
    return (docker, "image", "inspect", "--format", "{{json .RootFS.Layers}}", *references)


def images(docker: str, labels: Mapping[str, str] | None = None) -> Argv:
    """The id of each, one a line."""
    return (docker, "image", "ls", "--all", "--quiet", "--no-trunc", *_labelled(labels or {}))


def tag(docker: str, reference: str, name: str) -> Argv:
    return (docker, "image", "tag", reference, name)


def push(docker: str, name: str) -> Argv:
    return (docker, "image", "push", name)


def pull(docker: str, reference: str) -> Argv:
    return (docker, "image", "pull", reference)


def save(docker: str, name: str) -> Argv:
    return (docker, "image", "save", name)


def load(docker: str) -> Argv:
    return (docker, "image", "load")


def remove_image(docker: str, *references: str, force: bool = False) -> Argv:
    return (docker, "image", "rm", *(("--force",) if force else ()), *references)


def sweep_images(docker: str, labels: Mapping[str, str]) -> Argv:
    """Images without a name that nothing runs from."""
    return (docker, "image", "prune", "--force", *_labelled(labels))


def make_volume(docker: str, name: str, labels: Mapping[str, str]) -> Argv:
    return (docker, "volume", "create", *_each("--label", (f"{k}={v}" for k, v in sorted(labels.items()))), name)


def remove_volume(docker: str, name: str) -> Argv:
    return (docker, "volume", "rm", name)


MTU = "com.docker.network.driver.mtu"


def network_mtu(docker: str, name: str) -> Argv:
    """Says the MTU that the network was made with, an empty line for the usual one; fails when there is none."""
    return (docker, "network", "inspect", "--format", f'{{{{with index .Options "{MTU}"}}}}{{{{.}}}}{{{{end}}}}', name)


def make_network(docker: str, name: str, mtu: str) -> Argv:
    """An engine's own networks do not take over the MTU that it was given for the default one."""
    option = ("--opt", f"{MTU}={mtu}") if mtu else ()
    return (docker, "network", "create", "--driver", "bridge", *option, "--label", "io.mlpacker.kind=network", name)


def remove_network(docker: str, name: str) -> Argv:
    """Fails while anything is on it."""
    return (docker, "network", "rm", name)


def server(docker: str) -> Argv:
    """What the engine is: `linux/amd64 20.10.24`."""
    return (docker, "version", "--format", "{{.Server.Os}}/{{.Server.Arch}} {{.Server.Version}}")


def _labelled(labels: Mapping[str, str]) -> Argv:
    return _each("--filter", (f"label={key}={value}" if value else f"label={key}" for key, value in labels.items()))
