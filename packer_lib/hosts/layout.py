"""Where everything is on a machine, as strings of that machine. Pure; standard library only.

home/  supervisord.conf  toolbox.py  door/  key  audit.log
       bundles/<digest>/  bundles/<digest>.checked    store/
       envs/<lock digest>/  envs/<lock digest>.for/<bundle digest>/   who needs it
       conf.d/<pipeline>~<unit>~{<release>, door}.conf   what supervisor runs now
       doors/<pipeline>~<unit>/                 the socket of the unit's door, and which release has its port
       releases/<pipeline>/<unit>/release.json  the last release that answered
                                  history/<release>/{release.json, launch.json, unit.conf}
       state/<pipeline>/<unit>/<release>/       what its processes keep; models/ in it is for new ones
       locks/<pipeline>/details   logs/<pipeline>~<unit>.log   logs/<pipeline>~<unit>~door.log
       pipelines/<pipeline>/kept.json           of what was deployed from here: its file, machines and generations
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

LONGEST_SOCKET = 104  # sun_path holds 108 bytes, see unix(7)
DOOR = "door"  # in the place of a release, which is twelve hexadecimal digits
FOLDERS = ("bundles", "envs", "conf.d", "doors", "releases", "locks", "logs")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below `home`, an absolute path without a slash at its end."""

    home: str

    def folders(self) -> tuple[str, ...]:
        return tuple(f"{self.home}/{name}" for name in FOLDERS)

    @property
    def supervisord(self) -> str:
        return f"{self.home}/supervisord.conf"

    @property
    def toolbox(self) -> str:
        return f"{self.home}/toolbox.py"

    @property
    def door_program(self) -> str:
        return f"{self.home}/door"

    @property
    def audit(self) -> str:
        return f"{self.home}/audit.log"

    @property
    def key(self) -> str:
        return f"{self.home}/key"

    def bundle(self, digest: str) -> str:
        return f"{self.home}/bundles/{digest}"

    def environment(self, lock_digest: str) -> str:
        return f"{self.home}/envs/{lock_digest}"

    def claims(self, lock_digest: str) -> str:
        return f"{self.environment(lock_digest)}.for"

    def kept(self, pipeline: str) -> str:
        return f"{self.home}/pipelines/{pipeline}/kept.json"

    def lock(self, name: str) -> str:
        return f"{self.home}/locks/{name}"

    def releases(self, pipeline: str = "") -> str:
        return f"{self.home}/releases/{pipeline}".rstrip("/")

    def unit(self, pipeline: str, unit: str) -> str:
        return f"{self.home}/releases/{pipeline}/{unit}"

    def current(self, pipeline: str, unit: str) -> str:
        return f"{self.unit(pipeline, unit)}/release.json"

    def history(self, pipeline: str, unit: str, release: str = "") -> str:
        return f"{self.unit(pipeline, unit)}/history/{release}".rstrip("/")

    def conf(self, name: str) -> str:
        """Of a program, by its name."""
        return f"{self.home}/conf.d/{name}.conf"

    def door(self, pipeline: str, unit: str, uid: int) -> str:
        """A folder in which a socket's path is short enough, whatever `home` and the ids are; always the same."""
        name = program(pipeline, unit)
        short = _digest(name)
        places = (f"{self.home}/doors/{name}", f"{self.home}/doors/{short}", f"{short_folder(self.home, uid)}/{short}")
        return next(place for place in places if len(f"{place}/door.sock".encode()) <= LONGEST_SOCKET)

    def state(self, pipeline: str, unit: str = "", release: str = "") -> str:
        """Of a release, a unit or a pipeline."""
        return f"{self.home}/state/{pipeline}/{unit}/{release}".rstrip("/")

    def log(self, pipeline: str, unit: str) -> str:
        return f"{self.home}/logs/{program(pipeline, unit)}.log"

    def of_unit(self, pipeline: str, unit: str) -> tuple[str, ...]:
        """All that is kept of a unit beside what supervisor reads: its releases, and its log with what was rotated."""
        logs = (self.log(pipeline, unit), f"{self.home}/logs/{program(pipeline, unit, DOOR)}.log")
        return (
            self.unit(pipeline, unit),
            self.state(pipeline, unit),
            *(f"{log}{end}" for log in logs for end in ("", ".1", ".2", ".3")),
        )


def program(pipeline: str, unit: str, what: str = "") -> str:
    """The unit's name in files; with `what`, a release or `DOOR`, a program's in supervisor. No id has a `~` in it, so
    that no two units share a name."""
    return f"{pipeline}~{unit}~{what}" if what else f"{pipeline}~{unit}"


def short_folder(home: str, uid: int) -> str:
    """For sockets of a home whose own path is too long; depends on `home` and the user only, so that a task and a shell
    with other environments find the same one."""
    return f"/tmp/mlpacker-{uid}-{_digest(home)}"  # noqa: S108  it is made private, or refused


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
