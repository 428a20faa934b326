"""A host that writes down what it is asked: the double of the tests, and the dry run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from packer_lib.hosts import Host, Result

Answer = Callable[[Sequence[str]], Result]


def silence(_: Sequence[str]) -> Result:
    """Every command succeeds and says nothing."""
    return Result(0)


class RecordingHost:
    """Changes nothing; `done` holds every `run` as its argv and every `put` as `("put", target)`, in order.

    `answer` says what a command would have said. `reading(host)` asks the real machine for what only looks at it.
    """

    def __init__(self, answer: Answer = silence, *, name: str = "a recording", python: str = "python3") -> None:
        self.name = name
        self.python = python
        self.uv = "uv"
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

    def put(self, source: Path, target: str, mode: int | None = None) -> None:  # noqa: ARG002
        self.done.append(("put", target))

    def close(self) -> None:
        """Nothing is held."""


LOOKING = ("cat", "ls", "stat", "test", "tail")


def reading(host: Host) -> Answer:
    """Answers for a dry run: what only looks is asked of `host`, everything else succeeds silently."""
    return lambda argv: host.run(argv) if argv[0] in LOOKING else Result(0)
