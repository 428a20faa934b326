"""The way back: every unit of a pipeline as it was when it last answered."""

from __future__ import annotations

from packer_lib.errors import DeployFailed, RollbackFailed
from packer_lib.hosts import Host
from packer_lib.hosts.home import prepare
from packer_lib.hosts.layout import Layout
from packer_lib.plan import Plan
from packer_lib.release import prune, records, supervisor, switch
from packer_lib.release.model import Release
from packer_lib.release.verify import wait_ready
from packer_lib.settings import Settings


def restore(host: Host, plan: Plan, settings: Settings) -> list[str]:
    """Puts every unit back on its current release and waits for it, removes those that never answered, and says so
    by unit.

    Goes on to the next unit when one fails; then `RollbackFailed` names all that are not back.
    """
    layout, done, failed = Layout(str(settings.home)), [], []
    prepare(host, layout)
    supervisor.configure(host, layout)
    former = {name: records.current(host, layout, plan.pipeline, name) for name in _names(host, layout, plan)}
    for name, release in former.items():
        try:
            done.append(_put_back(host, layout, plan.pipeline, name, release, settings))
        except DeployFailed as error:
            failed.append(error.message)
    failed += _not_ready(host, layout, [release for release in former.values() if release], settings)
    if failed:
        raise RollbackFailed("\n".join(failed), f"look at `mlpacker status {plan.pipeline}`, then deploy again")
    prune.prune(host, layout, plan.pipeline, settings.keep_releases)
    return done


def _names(host: Host, layout: Layout, plan: Plan) -> list[str]:
    """Consumers first, as in a deploy."""
    planned = [unit.name for unit in plan.units]
    return list(dict.fromkeys([*planned, *records.units(host, layout, plan.pipeline)]))


def _put_back(host: Host, layout: Layout, pipeline: str, unit: str, former: Release | None, settings: Settings) -> str:
    if former is None:
        switch.take_down(host, layout, pipeline, unit)
        return f"{unit}: removed, there was none before"
    switch.switch(host, former, settings)
    return f"{unit}: back on {former.id}"


def _not_ready(host: Host, layout: Layout, releases: list[Release], settings: Settings) -> list[str]:
    failed = []
    for release in releases:
        try:
            wait_ready(host, layout, release, settings.ready_timeout)
        except DeployFailed as error:
            failed.append(error.message)
    return failed
