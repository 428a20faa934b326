"""The words a door is run and asked with; see the package."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time

from .line import connect
from .place import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ANSWER_SECONDS = 4.0  # for the door's answer, beside what a switch may take


def hold(folder: str, host: str, port: str, second: str = "", target: str = "") -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: sys.exit(0))
    from .keeper import Door  # who only asks does without

    try:
        door = Door(folder, host, int(port))
        if second:
            from .passage import Passage

            Passage(folder, host, int(second), target)
        door.serve()
    except OSError as error:
        say(f"ended: {error.strerror} ({error.filename or f'{host}:{port}'})")
    return 1


def ask(folder: str, word: str, *rest: str) -> int:
    """Prints the door's answer. SECONDS is how long a switch may take, or `status` may try to reach the door."""
    release = rest[0] if word == "switch" else ""
    given = rest[1:] if word == "switch" else rest
    seconds = float(given[0]) if given else (10.0 if word == "switch" else 0.0)
    try:
        answer = question(folder, {"ask": word, "release": release, "seconds": seconds}, time.monotonic() + seconds)
    except (OSError, EOFError) as error:
        answer = {"error": f"the door in {folder} does not answer: {error or 'it ended'}"}
    print(json.dumps(answer))
    return 1 if "error" in answer else 0


def question(folder: str, message: dict[str, Any], until: float) -> dict[str, Any]:
    while True:
        try:
            line = connect(folder)
            break
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() >= until:
                raise
            time.sleep(0.02)
    with contextlib.closing(line):
        line.send(message)
        line.connection.settimeout(max(0.0, until - time.monotonic()) + ANSWER_SECONDS)
        while True:
            for answer in line.receive():
                return answer


def main(argv: list[str]) -> int:
    word, rest = (argv[0] if argv else ""), argv[1:]
    if word == "hold" and len(rest) in (3, 5):
        return hold(*rest)
    if word == "ask" and len(rest) in (2, 3, 4) and rest[1] in ("status", "switch"):
        return ask(*rest)
    print(sys.modules[__package__].__doc__, file=sys.stderr)
    return 2
