"""What nobody can come back to any more goes: releases beyond those kept, then bundles that no release names."""

from __future__ import annotations

from collections.abc import Collection

from packer_lib import commands
from packer_lib.hosts import Host
from packer_lib.hosts.layout import Layout
from packer_lib.release import records
from packer_lib.release.model import Release


def prune(host: Host, layout: Layout, pipeline: str, keep: int, also: Collection[str] = ()) -> None:
    """Keeps the `keep` newest releases of every unit that have answered; `also` are bundles that may have none.

    A bundle belongs to one pipeline (its id is in it), so that another pipeline's deploy is never disturbed.
    """
    gone: set[str] = set(also)
    kept: set[str] = set()
    for unit in records.units(host, layout, pipeline):
        dropped, left = _sort(host, layout, pipeline, unit, keep)
        gone |= {release.bundle for release in dropped}
        kept |= {release.bundle for release in left}
        # a unit that never answered leaves nothing, so that nobody takes it for deployed
        unwanted = tuple(layout.history(pipeline, unit, release.id) for release in dropped)
        if paths := unwanted if left else layout.of_unit(pipeline, unit):
            host.run(commands.remove(*paths))
    host.run(commands.remove_empty(layout.releases(pipeline)))
    remove_bundles(host, layout, gone - kept)


def _sort(host: Host, layout: Layout, pipeline: str, unit: str, keep: int) -> tuple[list[Release], list[Release]]:
    """The unit's releases that go, and those that stay."""
    current = records.current(host, layout, pipeline, unit)
    releases = records.history(host, layout, pipeline, unit)
    left = [release for index, release in enumerate(releases) if _worth_keeping(release, index, keep, current)]
    return [release for release in releases if release not in left], left


def _worth_keeping(release: Release, index: int, keep: int, current: Release | None) -> bool:
    if current is not None and release.id == current.id:
        return True
    return bool(release.since) and index < max(keep, 1)


def remove_bundles(host: Host, layout: Layout, digests: Collection[str]) -> None:
    paths = [layout.bundle(digest) for digest in sorted(digests)]
    if paths:
        host.run(commands.remove(*paths, *(f"{path}.checked" for path in paths)))
