"""What a machine says is released on it; nothing here changes anything."""

from __future__ import annotations

from packer_lib import commands
from packer_lib.hosts import Host
from packer_lib.hosts.layout import Layout
from packer_lib.release.model import Release, parse


def current(host: Host, layout: Layout, pipeline: str, unit: str) -> Release | None:
    """The last release of the unit that answered, whether its process runs or not."""
    return _read(host, layout.current(pipeline, unit))


def history(host: Host, layout: Layout, pipeline: str, unit: str) -> list[Release]:
    """Every release kept for the unit, newest first; those that never answered are last and have no `since`."""
    ids = _names(host, layout.history(pipeline, unit))
    found = [_read(host, f"{layout.history(pipeline, unit, release)}/release.json") for release in ids]
    return sorted(filter(None, found), key=lambda release: release.since, reverse=True)


def units(host: Host, layout: Layout, pipeline: str) -> list[str]:
    """Units of the pipeline that something is kept of."""
    return _names(host, layout.releases(pipeline))


def pipelines(host: Host, layout: Layout) -> list[str]:
    return _names(host, layout.releases())


def _names(host: Host, folder: str) -> list[str]:
    return sorted(name for name in host.run(commands.names(folder)).out.splitlines() if not name.startswith("."))


def _read(host: Host, path: str) -> Release | None:
    result = host.run(commands.read(path))
    return parse(result.out) if result.ok else None
