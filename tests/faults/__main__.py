"""`make faults`: every fault, with the whole sweep; the table goes into docs/faults.md.

With arguments of pytest's (ARGS="-k disk") only some of them, whose rows are written anew.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.faults.table import PAGE, TABLE
from tests.support import ROOT


def main(arguments: list[str]) -> int:
    os.environ.setdefault("MLPACKER_FAULTS", "all")
    code = int(pytest.main([str(Path(__file__).parent), "-v", "--timeout", "7200", *arguments]))
    if TABLE.rows:
        if arguments:
            TABLE.join()
        TABLE.write()
        print(f"Written to {PAGE.relative_to(ROOT)}.")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
