"""A host that writes down what it is asked: the double of the tests, and the dry run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path

from packer_lib.hosts import Host, Result

Answer = Callable[[Sequence[str]], Result]


def silence(_: Sequence[str]) -> Result:
    """Every command succeeds and says nothing."""
    return Result(0)


class RecordingHost:
    """Changes nothing; `done` holds every `run` and `pour` as its argv and every `put` as `("put", target)`, in order.

    `answer` says what a command would have said. `rehearsal(host)` asks the real machine for what only looks at it.
    """

    def __init__(
        self, answer: Answer = silence, *, name: str = "a recording", home: str = "/home", machine: str | None = None
    ) -> None:
        self.name = name
        self.machine = machine
        self.address = "127.0.0.1"
        self.home = home
        self.uid = 1000
        self.environ: Mapping[str, str] = {"PATH": "/usr/bin:/bin"}
        self.python, self.uv, self.docker = "python3", "uv", "docker"
        self.done: list[tuple[str, ...]] = []
        self._answer = answer

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,  # noqa: ARG002  not written down: secrets may be in it
        input: str | None = None,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ARG002
    ) -> Result:
        self.done.append(tuple(argv))
        return self._answer(argv)

    def pour(self, argv: Sequence[str], chunks: Iterable[bytes], *, timeout: float | None = None) -> Result:  # noqa: ARG002
        self.done.append(tuple(argv))
        return self._answer(argv)

    def listen(self, argv: Sequence[str]) -> Generator[str, None, None]:
        self.done.append(tuple(argv))
        yield from self._answer(argv).out.splitlines()

    def put(self, source: Path, target: str, mode: int | None = None) -> None:  # noqa: ARG002
        self.done.append(("put", target))

    def close(self) -> None:
        """Nothing is held."""


LOOKING = ("cat", "ls", "stat", "test", "tail", "grep", "readlink", "date")
ASKING = (("container", "ls"), ("container", "inspect"), ("image", "ls"), ("image", "inspect"))  # an engine


def rehearsal(host: Host) -> RecordingHost:
    """The double of `host` for a dry run: what only looks is asked of it, everything else succeeds silently."""
    double = RecordingHost(
        lambda argv: host.run(argv) if _only_looks(host, argv) else Result(0),
        name=host.name,
        home=host.home,
        machine=host.machine,
    )
    double.address, double.uid, double.environ = host.address, host.uid, host.environ
    double.python, double.uv, double.docker = host.python, host.uv, host.docker
    return double


def _only_looks(host: Host, argv: Sequence[str]) -> bool:
    return argv[0] in LOOKING or (argv[0] == host.docker and tuple(argv[1:3]) in ASKING)
