"""A Python environment on a machine with exactly what a lock names."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from packer_lib import commands
from packer_lib.hosts import Host, Result

WITHIN = 1800.0


def make(host: Host, place: str, python: str, lock: str, env: Mapping[str, str]) -> tuple[str, Result]:
    """The environment at `place`, with all that the file `lock` names: what of it could not be done, and what was said
    of that; nothing and the last result when all is well.

    Built aside and renamed: a folder with the right name is always complete. Aside is a name of its own each time: uv
    may outlive a task that was killed, and go on where it was. Whoever calls holds the lock of this environment.
    """
    folder, _, name = place.rpartition("/")
    aside = f"{place}.building-{uuid.uuid4().hex}"
    host.run(commands.remove_below(folder, f"{name}.building*"))
    host.run(commands.remove(place))
    steps = {
        "no environment can be made": commands.make_environment(host.uv, python, aside),
        "the requirements cannot be installed": commands.fill_environment(host.uv, f"{aside}/bin/python", lock),
        "the environment cannot be put in its place": commands.rename(aside, place),
    }
    try:
        for what, argv in steps.items():
            result = host.run(argv, env=env, timeout=WITHIN)
            if not result.ok:
                return what, result
        return "", result
    finally:
        host.run(commands.remove(aside))
