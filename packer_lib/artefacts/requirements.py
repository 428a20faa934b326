"""A step's `requirements.txt`: names, versions and markers only.

Options, URLs, version control and paths are refused: they would fetch from elsewhere than the index this installation
is set up with, or build what a stranger wrote on the machine that packages it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from packer_lib.artefacts.files import open_file
from packer_lib.artefacts.model import Unfit

NAME = "requirements.txt"
LARGEST = 256 << 10
ALLOWED = "only lines like `numpy>=2,<3 ; python_version >= '3.11'` are allowed"
HASH = re.compile(r"\s--hash[= ]\s*\S+")
COMMENT = re.compile(r"(^|\s)#.*$")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One requirement and the line it starts in."""

    requirement: Requirement
    file: str
    line: int


def read(folder: Path, source: str) -> tuple[Wanted, ...]:
    """The requirements of the code in `folder`, none when it has no requirements.txt; `Unfit` with file and line.

    `source` is what people call the folder. Hashes are dropped: the bundle's lock has its own for every file.
    """
    wanted, unfit = scan(folder, source)
    if unfit:
        raise unfit[0]
    return wanted


def scan(folder: Path, source: str) -> tuple[tuple[Wanted, ...], list[Unfit]]:
    """Like `read`, but with every unfit line instead of an exception."""
    shown = f"{source.rstrip('/')}/{NAME}"
    wanted: list[Wanted] = []
    unfit: list[Unfit] = []
    try:
        lines = _logical(_text(folder / NAME, shown))
    except Unfit as whole:
        return (), [whole]
    for number, line in lines:
        try:
            wanted += [Wanted(_parse(line), shown, number)] if line else []
        except Unfit as one:
            unfit.append(one.at(shown, number))
    return tuple(wanted), unfit


def _text(path: Path, shown: str) -> str:
    if not path.exists() and not path.is_symlink():
        return ""
    with open_file(path) as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Unfit(f"is larger than {LARGEST >> 10} KiB", ALLOWED).at(shown, 1)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unfit("is not UTF-8 text", ALLOWED).at(shown, data[: error.start].count(b"\n") + 1) from None


def _logical(text: str) -> list[tuple[int, str]]:
    """Lines joined at a backslash, without comments; each with the number of its first line."""
    lines: list[tuple[int, str]] = []
    start, joined = 1, ""
    for number, raw in enumerate(text.split("\n"), 1):
        start = start if joined else number
        joined += raw.rstrip("\r")
        if joined.endswith("\\"):
            joined = joined[:-1] + " "
            continue
        lines.append((start, HASH.sub("", COMMENT.sub("", joined)).strip()))
        joined = ""
    return [*lines, (start, joined.strip())]


def _parse(line: str) -> Requirement:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        refused = line.startswith("-") or "/" in line or ":" in line
        raise Unfit(f"{line!r} is {'refused' if refused else 'not a requirement'}", ALLOWED, refused=refused) from None
    if requirement.url is not None:
        raise Unfit(f"{line!r} is refused", ALLOWED, refused=True)
    return requirement
