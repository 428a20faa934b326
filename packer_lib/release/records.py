"""What a machine says is released on it; nothing here changes anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from packer_lib import commands
from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host
from packer_lib.hosts.layout import Layout
from packer_lib.release.forms import Launch, parse_launch
from packer_lib.release.model import Release, parse


@dataclass(frozen=True, slots=True)
class Records:
    """By unit: `current` is the last release that answered, whether its process runs or not; `history` is all that is
    kept, newest first; those that never answered are last and have no `since`."""

    current: Mapping[str, Release] = field(default_factory=dict)
    history: Mapping[str, tuple[Release, ...]] = field(default_factory=dict)

    @property
    def units(self) -> list[str]:
        return sorted({*self.current, *self.history})

    def of(self, unit: str) -> tuple[Release, ...]:
        return self.history.get(unit, ())

    def newest(self, unit: str) -> Release | None:
        return self.current.get(unit) or next(iter(self.of(unit)), None)


def read(host: Host, pipeline: str) -> Records:
    """Of one pipeline; all in one command."""
    return read_all(host, Layout(host.home).releases(pipeline)).get(pipeline, Records())


def read_all(host: Host, below: str = "") -> dict[str, Records]:
    """By pipeline."""
    root = Layout(host.home).releases()
    current: dict[str, dict[str, Release]] = {}
    history: dict[str, dict[str, list[Release]]] = {}
    for path, text in _files(host, below or root).items():
        pipeline, unit, *rest = path.removeprefix(f"{root}/").split("/")
        history.setdefault(pipeline, {})
        if rest == ["release.json"]:
            current.setdefault(pipeline, {})[unit] = parse(text)
        else:
            history[pipeline].setdefault(unit, []).append(parse(text))
    return {
        pipeline: Records(current.get(pipeline, {}), {unit: _sorted(kept) for unit, kept in units.items()})
        for pipeline, units in sorted(history.items())
    }


def _sorted(releases: list[Release]) -> tuple[Release, ...]:
    return tuple(sorted(sorted(releases, key=lambda one: one.id), key=lambda one: one.since, reverse=True))


def _files(host: Host, folder: str) -> dict[str, str]:
    texts: dict[str, list[str]] = {}
    for line in host.run(commands.lines_of(folder, "release.json")).out.splitlines():
        path, nul, text = line.partition("\0")
        if nul:
            texts.setdefault(path, []).append(text)
    return {path: "\n".join(lines) for path, lines in texts.items()}


def launch(host: Host, release: Release) -> Launch:
    """What the release is started with; `DeployFailed` when that is no longer there."""
    layout = Layout(host.home)
    found = host.run(commands.read(f"{layout.history(release.pipeline, release.unit, release.id)}/launch.json"))
    if not found.ok:
        raise DeployFailed(
            f"{release.pipeline}.{release.unit}: release {release.id} is not on {host.name} any more",
            "deploy the pipeline again",
        )
    return parse_launch(found.out)


def folders(host: Host, pipeline: str) -> list[str]:
    """Units that anything is kept of, complete or not."""
    return _names(host, Layout(host.home).releases(pipeline))


def pipelines(host: Host) -> list[str]:
    return _names(host, Layout(host.home).releases())


def _names(host: Host, folder: str) -> list[str]:
    return sorted(name for name in host.run(commands.names(folder)).out.splitlines() if not name.startswith("."))
