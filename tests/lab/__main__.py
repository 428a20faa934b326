"""python -m tests.lab up | down | status"""

from __future__ import annotations

import sys

from tests.lab import engine, parts
from tests.lab.brokers import CannotStart
from tests.lab.place import LabError


def main(arguments: list[str]) -> int:
    match arguments:
        case ["up"]:
            parts.up()
        case ["down"]:
            parts.down()
        case ["status"]:
            print(engine.describe())
            for name, state in parts.status().items():
                print(f"{name:16} {state}")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (LabError, CannotStart) as problem:
        sys.exit(f"[lab] {problem}")
