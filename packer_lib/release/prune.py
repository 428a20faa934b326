"""What nobody can come back to any more goes: releases beyond those kept, then what only they needed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from packer_lib import commands
from packer_lib.hosts import Host
from packer_lib.hosts.layout import Layout
from packer_lib.hosts.lock import hold
from packer_lib.release import records
from packer_lib.release.forms import form_of
from packer_lib.release.model import Release
from packer_lib.release.native import remove_bundles
from packer_lib.release.records import Records


def prune(host: Host, pipeline: str, keep: int, also: Collection[str] = ()) -> None:
    """Keeps the `keep` newest releases of every unit that have answered; `also` are bundles that may have none.

    A bundle belongs to one pipeline (its id is in it), so that another pipeline's deploy is never disturbed.
    """
    layout, there = Layout(host.home), records.read(host, pipeline)
    left = {unit: _worth_keeping(there, unit, keep) for unit in there.units}
    for unit in records.folders(host, pipeline):
        dropped = [release for release in there.of(unit) if release not in left.get(unit, [])]
        for release in dropped:  # staged only: its container is there, and does not run
            form_of(release).stop(host, pipeline, unit, *release.processes)
        # a unit that never answered leaves nothing, so that nobody takes it for deployed
        unwanted = tuple(
            kept(pipeline, unit, release.id) for release in dropped for kept in (layout.history, layout.state)
        )
        if paths := unwanted if left.get(unit) else layout.of_unit(pipeline, unit):
            host.run(commands.remove(*paths))
    for folder in (layout.releases(pipeline), layout.state(pipeline)):
        host.run(commands.remove_empty(folder))
    kept = [release for releases in left.values() for release in releases]
    discard(host, [release for unit in there.units for release in there.of(unit) if release not in kept], kept, also)


def _worth_keeping(there: Records, unit: str, keep: int) -> list[Release]:
    current = there.current.get(unit)
    newest = [release for release in there.of(unit) if release.since][: max(keep, 1)]
    live = [release for release in there.of(unit) if current is not None and release.id == current.id]
    return list(dict.fromkeys([*live, *newest]))


def discard(host: Host, gone: Sequence[Release], kept: Sequence[Release], also: Collection[str] = ()) -> None:
    """What only the releases in `gone` needed, and the bundles in `also`."""
    needed = {need for release in kept for need in (release.bundle, release.image)}
    dropped = {(release.form, release.bundle, release.image): release for release in gone}
    for release in dropped.values():
        if (release.image or release.bundle) not in needed:
            form_of(release).discard(host, release, kept)
    remove_bundles(host, sorted(set(also) - needed))
    if gone or also:
        remove_environments(host)


def remove_environments(host: Host) -> None:
    """Those that no bundle needs any more; from before bundles said so, none.

    Renamed first, and looked at again: who needs one says so before it looks whether it is there.
    """
    layout = Layout(host.home)
    for claims in host.run(commands.empty_folders(f"{layout.home}/envs", ".for")).out.splitlines():
        place = claims.removesuffix(".for")
        with hold(host, layout, f"ENV-{place.rpartition('/')[2][:16]}", "removing an environment", wait=60):
            host.run(commands.rename(place, f"{place}.gone"))
            if host.run(commands.remove_empty(claims)).ok:
                host.run(commands.remove(f"{place}.gone"))
            else:
                host.run(commands.rename(f"{place}.gone", place))
