"""Where everything is on a machine, as strings of that machine. Pure; standard library only.

home/  supervisord.conf  toolbox.py  key
       bundles/<digest>/  bundles/<digest>.checked    envs/<lock digest>/   store/
       conf.d/<pipeline>~<unit>.conf            what supervisor runs now
       releases/<pipeline>/<unit>/release.json  the last release that answered
                                  history/<release>/{release.json, launch.json, unit.conf}
       locks/<pipeline>/details   logs/<pipeline>~<unit>.log
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below `home`, an absolute path without a slash at its end."""

    home: str

    def folders(self) -> tuple[str, ...]:
        return tuple(f"{self.home}/{name}" for name in ("bundles", "envs", "conf.d", "releases", "locks", "logs"))

    @property
    def supervisord(self) -> str:
        return f"{self.home}/supervisord.conf"

    @property
    def toolbox(self) -> str:
        return f"{self.home}/toolbox.py"

    @property
    def key(self) -> str:
        return f"{self.home}/key"

    def bundle(self, digest: str) -> str:
        return f"{self.home}/bundles/{digest}"

    def environment(self, lock_digest: str) -> str:
        return f"{self.home}/envs/{lock_digest}"

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

    def conf(self, pipeline: str, unit: str) -> str:
        return f"{self.home}/conf.d/{program(pipeline, unit)}.conf"

    def log(self, pipeline: str, unit: str) -> str:
        return f"{self.home}/logs/{program(pipeline, unit)}.log"

    def of_unit(self, pipeline: str, unit: str) -> tuple[str, ...]:
        """All that is kept of a unit beside what supervisor reads: its releases, and its log with what was rotated."""
        log = self.log(pipeline, unit)
        return (self.unit(pipeline, unit), log, *(f"{log}.{number}" for number in (1, 2, 3)))


def program(pipeline: str, unit: str) -> str:
    """The unit's name in supervisor and in files. No id has a `~` in it, so that no two units share a name."""
    return f"{pipeline}~{unit}"
