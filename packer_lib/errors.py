"""Every error we raise on purpose; standard library only.

    MLPackerError                 1  unexpected (the exit code is the class's own)
    ├── PadlInvalid               3  the file is wrong: every problem at once, with line and column
    ├── PolicyRefused             4  allowed by the language, not by this installation's settings
    ├── BuildFailed               5  fetching, locking, building or loading what a unit needs
    ├── PushFailed                6
    ├── DeployFailed              7  and every unit is back on its former release
    │   └── RollbackFailed        8  and it is not: says which unit on which machine
    └── Busy                     75  another release holds the lock: who, since when, why

Each class takes data and writes its own sentence; none ever holds a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in one PADL file. `line` and `column` count from 1; `path` is dotted (`queues.q1.props.port`)."""

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""
    level: str = "error"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " + ("warning: " if self.level == "warning" else "")
        path = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return printable(f"{place}{path}{self.message}{hint}".replace("\n", "\\n"))  # a problem is one line


def printable(text: str) -> str:
    """`text` with control characters escaped: a name from a file cannot drive a terminal or forge a log line."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


class MLPackerError(Exception):
    """`message` says what happened and where, `hint` what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class PadlInvalid(MLPackerError):
    """`problems` is never empty and sorted by place."""

    exit_code = 3

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PolicyRefused(MLPackerError):
    exit_code = 4


class BuildFailed(MLPackerError):
    exit_code = 5


class PushFailed(MLPackerError):
    exit_code = 6


class DeployFailed(MLPackerError):
    exit_code = 7


class RollbackFailed(DeployFailed):
    exit_code = 8


class Busy(MLPackerError):
    exit_code = 75
