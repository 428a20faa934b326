"""One PADL file as one DAG file: what the bundle writes, and what that file does when Airflow executes it.

A DAG file is the same few lines for every PADL text; the text itself is there as comments, for the Code tab (passwords
hidden). Beside it lies `<name>.pinned`: the exact text, where it came from, and what is wrong with it, for `dag_of`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Set
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from airflow.sdk import DAG

from mlpacker_airflow import builder, pools, secrets
from mlpacker_airflow.folder import Entry
from packer_lib import __version__, padl
from packer_lib.errors import PadlInvalid, Problem, printable

CODE = """\
from mlpacker_airflow.pinned import dag_of

dag = dag_of(__file__)
"""


class Pinned(msgspec.Struct, frozen=True):
    """A PADL file as it was when the bundle took it.

    `path` is where it is: relative model paths start there. `changed` is since when it has this text, in seconds.
    `pools` are those of its machines that exist in Airflow.
    """

    name: str
    path: str
    text: str
    changed: float
    example: bool
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    pools: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def pin(entry: Entry, pools_there: Set[str] = frozenset(), former: Pinned | None = None) -> Pinned:
    """The same text as `former` has been there since then: touching a file does not change it."""
    found = entry.found
    changed = former.changed if former and former.text == entry.text else found.changed
    ours = tuple(sorted(pools.of(entry.pipeline) & pools_there))
    return Pinned(found.name, str(found.path), entry.text, changed, found.example, entry.problems, entry.warnings, ours)


def dag_file(pinned: Pinned) -> str:
    """The text of the DAG file. All that comes from a PADL file is in comments, so that it cannot become code."""
    since = datetime.fromtimestamp(pinned.changed, UTC).isoformat(timespec="milliseconds")
    head = [f"Airflow DAG made by MLPacker {__version__} from {pinned.path}", f"sha256 {pinned.sha256} since {since}"]
    head += [f"in the pools {', '.join(pinned.pools)}"] if pinned.pools else []
    problems = [str(problem) for problem in pinned.problems]
    text = "\n".join(problems) if problems else secrets.hide(pinned.text, pinned.path)
    return "\n".join([*map(comment, head), CODE, comment(text), *map(comment, pinned.warnings), ""])


def comment(text: str) -> str:
    """`splitlines` knows every character that ends a line for anybody; the rest that could mislead is escaped."""
    return "\n".join(f"# {printable(line)}".rstrip() for line in text.splitlines())


def write(pinned: Pinned, dag_path: Path) -> None:
    """The DAG file at `dag_path` and the pinned text beside it, which only our own user may read."""
    dag_path.parent.mkdir(parents=True, exist_ok=True)
    beside = dag_path.with_suffix(".pinned")
    beside.touch(mode=0o600)
    beside.write_bytes(msgspec.json.encode(pinned))
    dag_path.write_text(dag_file(pinned), encoding="utf-8")


def dag_of(dag_path: str) -> DAG:
    """The DAG of the PADL text pinned beside `dag_path`; if that has problems, they become the import error."""
    pinned = msgspec.json.decode(Path(dag_path).with_suffix(".pinned").read_bytes(), type=Pinned)
    if pinned.problems:
        return builder.Broken(pinned.problems)
    try:
        pipeline = padl.read_text(pinned.text, pinned.path)
    except PadlInvalid as error:
        return builder.Broken(error.problems)
    origin = builder.Origin(
        pinned.path, pinned.text, pinned.changed, pinned.example, pinned.warnings, frozenset(pinned.pools)
    )
    return builder.build(pipeline, origin)
