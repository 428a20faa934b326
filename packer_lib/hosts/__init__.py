"""A machine is four calls: run a command, pour a stream into one, put a file there, close.

Paths given to a host are strings of *that* machine. `local.LocalHost` is this machine, `ssh.SshHost` one that is
reached by SSH, `fleet.Fleet` all machines of a plan; `recording.RecordingHost` writes down what would be done, for
tests and dry runs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from packer_lib.errors import DeployFailed


class Unreachable(DeployFailed):
    """No connection to a machine, or it was cut while something was asked of it: that may have been done or not."""


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
    """One machine. What it says of itself is asked at most once."""

    @property
    def name(self) -> str:
        """How messages call this machine."""
        ...

    @property
    def machine(self) -> str | None:
        """Its id in the PADL file; None is this machine."""
        ...

    @property
    def address(self) -> str:
        """What others reach its units by: a host name or an address."""
        ...

    @property
    def home(self) -> str:
        """Our folder there, absolute."""
        ...

    @property
    def uid(self) -> int:
        """The number of the user who deploys there."""
        ...

    @property
    def environ(self) -> Mapping[str, str]:
        """What every process of ours begins with there: enough to run programs, and nothing else."""
        ...

    @property
    def python(self) -> str:
        """An interpreter there that has supervisor; on a machine that native units never reached, any Python ≥3.8."""
        ...

    @property
    def uv(self) -> str: ...

    @property
    def docker(self) -> str: ...

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

    def pour(self, argv: Sequence[str], chunks: Iterable[bytes], *, timeout: float | None = None) -> Result:
        """As `run`, with `chunks` on its standard input; the rest of them is not asked for when it ends before."""
        ...

    def listen(self, argv: Sequence[str]) -> Generator[str, None, None]:
        """Lines that `argv` says, on standard output or error, as they come. Closing the generator kills it."""
        ...

    def put(self, source: Path, target: str, mode: int | None = None) -> None:
        """Copies a file or folder of this machine to `target` there: complete or absent, parents made as needed.

        A file replaces what was there; a folder that is already there stays, since folders are named by their content.
        """
        ...

    def close(self) -> None: ...
