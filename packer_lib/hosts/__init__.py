"""A machine is three calls: run a command, put a file there, close. Standard library only.

Paths given to a host are strings of *that* machine. `local.LocalHost` is this machine; `recording.RecordingHost` writes
down what would be done, for tests and dry runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind. `code` is its exit status: 124 when it ran out of time, 127 without such a
    program.
    """

    code: int
    out: str = ""
    err: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0

    def tail(self, lines: int = 20) -> str:
        """The last `lines` lines of what it said, errors last: what a person needs first."""
        said = [line.rstrip() for line in (self.out + "\n" + self.err).splitlines() if line.strip()]
        return "\n".join(said[-lines:])


class Host(Protocol):
    """One machine. `python` is an interpreter there that has supervisor, `uv` the uv program there."""

    @property
    def name(self) -> str:
        """How messages call this machine."""
        ...

    @property
    def python(self) -> str: ...

    @property
    def uv(self) -> str: ...

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Runs `argv` without a shell and waits. `env` is the whole environment (None: the deployer's own there).

        After `timeout` seconds the command and everything it started are killed and the code is 124; never raises for
        what the command does.
        """
        ...

    def put(self, source: Path, target: str, mode: int | None = None) -> None:
        """Copies a file or folder of this machine to `target` there: complete or absent, parents made as needed.

        A file replaces what was there; a folder that is already there stays, since folders are named by their content.
        """
        ...

    def close(self) -> None: ...
