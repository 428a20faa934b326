"""`make stream-faults`: every fault of a stream at its full length; the table goes into docs/stream-faults.md.

With arguments of pytest's (ARGS="-k broker") only some of them, whose rows are written anew.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


def main(arguments: list[str]) -> int:
    os.environ["MLPACKER_STREAM_FAULTS"] = "all"
    from tests.stream_faults.table import run

    run()  # remembers the commit that it begins with
    return int(pytest.main([str(Path(__file__).parent), "-v", "-s", "--timeout", "3600", *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
