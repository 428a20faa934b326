"""How a unit lives on a machine: processes under supervisor (`native`) or containers; one protocol.

Releases of a unit with a door (API) run side by side, and the door says which of them has the unit's public port; a
release without one (stream) runs alone, in one or several processes (`Release.processes`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from packer_lib.hosts import Host, Result
from packer_lib.plan import Plan
from packer_lib.release.model import FormName, Release
from packer_lib.release.state import State

__all__ = ["Form", "Launch", "State", "form_of", "named", "parse_launch"]

DOOR = "door"  # no release id looks like this: they are twelve hexadecimal digits


@dataclass(frozen=True, slots=True)
class Launch:
    """What a release is started with; kept beside its record (0600, `env` may hold secrets), for its way back.

    `argv` and `cwd` are native only. The others are for containers: `memory` ("512m") and `cpus` are limits (empty, 0:
    none), `names` the hosts that the unit's queues and links use, `ports` those that it listens on for queues.
    """

    argv: tuple[str, ...] = ()
    cwd: str = ""
    env: dict[str, str] = field(default_factory=dict)
    memory: str = ""
    cpus: float = 0.0
    names: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def parse_launch(text: str) -> Launch:
    data: dict[str, Any] = json.loads(text)
    return Launch(
        **{
            **data,
            "argv": tuple(data["argv"]),
            "names": tuple(data.get("names", ())),
            "ports": tuple(data.get("ports", ())),
        }
    )


def door_answer(said: Result) -> dict[str, Any]:
    """What a door answered; what was said instead, as its error."""
    try:
        answer: dict[str, Any] = json.loads(said.out)
    except ValueError:
        return {"error": said.tail(3) or "no answer"}
    return answer


class Form(Protocol):
    """Every word may be said again: what is done already is not done twice. `DeployFailed` when it cannot be done."""

    def create(self, host: Host, release: Release, launch: Launch) -> None:
        """All that `start` needs; nothing runs that did not."""
        ...

    def start(self, host: Host, release: Release, process: str = "") -> None:
        """That process of it (or its first) runs, beside other releases of the unit. It has the public port only when
        the door says so."""
        ...

    def stop(self, host: Host, pipeline: str, unit: str, *processes: str) -> None:
        """TERM, KILL after 30 s, all at once, and nothing of these processes is left; fine when there is none."""
        ...

    def retire(self, host: Host, pipeline: str, unit: str, *processes: str) -> None:
        """The same for replicas whose number nobody has any more: USR1 first, and 120 s to finish what the broker gave
        to them alone."""
        ...

    def state(self, host: Host, pipeline: str, unit: str, process: str) -> State:
        """UNKNOWN when there is no such process."""
        ...

    def started(self, host: Host, pipeline: str, unit: str) -> tuple[str, ...]:
        """Processes of the unit's releases that exist there now, running or not; the door is not one."""
        ...

    def units(self, host: Host, pipeline: str) -> tuple[str, ...]:
        """Units of the pipeline that anything exists of there (a process, a door), recorded or not."""
        ...

    def private(self, host: Host, release: Release, process: str = "") -> str:
        """`http://…` at which that machine itself reaches exactly this process (or the first) of this release; empty
        while unknown."""
        ...

    def door(self, host: Host, release: Release, *words: str) -> dict[str, Any]:
        """The answer of the unit's door to `status` or `switch ID`; it is opened first when it is not there.

        `switch` also makes sure that it has the release's own port and address. `{"error": …}` when it does not.
        """
        ...

    def close_door(self, host: Host, pipeline: str, unit: str) -> None: ...

    def log(self, host: Host, pipeline: str, unit: str, lines: int, replica: int = 0) -> str:
        """The last `lines` lines of that replica of the unit's current or newest release."""
        ...

    def follow(self, host: Host, pipeline: str, unit: str, lines: int, replica: int = 0) -> Sequence[str]:
        """argv that follows the log on that machine until it is killed."""
        ...

    def discard(self, host: Host, release: Release, kept: Sequence[Release] = ()) -> None:
        """What only this release needed there (its bundle; its image); asked when none of those `kept` has the same."""
        ...

    def tidy(self, host: Host) -> None:
        """Nothing shared is left with the last unit there: no supervisor, no network."""
        ...


def form_of(what: Plan | Release) -> Form:
    """The form of a pipeline's units, or of a release."""
    if isinstance(what, Plan):
        return named("container" if what.containerized else "native")
    return named(what.form)


def named(form: FormName) -> Form:
    if form == "container":
        from packer_lib.release.container import Container

        return Container()
    from packer_lib.release.native import Native

    return Native()
