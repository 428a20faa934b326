"""What the parts of `artefacts` share: the value they produce and the one exception they raise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packer_lib.errors import BuildFailed, MLPackerError, PolicyRefused, printable

# The `level` of a Problem that this installation forbids, and of one that stands in nobody's way; others are "error".
REFUSED, WARNING = "refused", "warning"


@dataclass(frozen=True, slots=True)
class Artefact:
    """A model or the code of one step, or the schema of one queue (`step` is then the queue's id, which no step has),
    in the store and never changed again.

    `path` is a file or a folder, `digest` its sha256 (of a folder: `files.tree_digest`), `commit` the 40 hexadecimal
    digits when it came from git, `source` where it came from, without credentials.
    """

    step: str
    kind: Literal["model", "code", "schema"]
    path: Path
    digest: str
    commit: str = ""
    source: str = ""


class Unfit(Exception):
    """An artefact cannot be used. `check` turns it into a Problem with its place in the PADL, `fetch` into an error.

    `key` is the key below `props` that says so in the PADL. `file` and `line` are set when the fault is in a file of
    the artefact instead. `refused`: it could be used, but is not by the rules of this installation. `level` is of the
    Problem.
    """

    def __init__(self, message: str, hint: str = "", *, key: str = "path", refused: bool = False) -> None:
        super().__init__(message)
        self.message, self.hint, self.key, self.refused = message, hint, key, refused
        self.level = REFUSED if refused else "error"
        self.file, self.line = "", 1

    def at(self, file: str, line: int) -> Unfit:
        """The same, in `line` of `file`."""
        self.file, self.line = file, line
        return self

    def error(self, name: str, of: str = "step") -> MLPackerError:
        """The error to raise when nobody looks at places: `PolicyRefused` (exit code 4) or `BuildFailed` (5)."""
        place = f"{self.file}:{self.line}: " if self.file else ""
        kind = PolicyRefused if self.refused else BuildFailed
        return kind(printable(f"{place}{of} {name!r}: {self.message}"), printable(self.hint))
