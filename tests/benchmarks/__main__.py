"""`make bench`: every benchmark in one run, figures into docs/benchmarks/*.json, a page into docs/benchmarks.md.

usage: python -m tests.benchmarks [rest] [stream] [dags] [--seconds N] [--rounds N]   (all of them unless named)
"""

from __future__ import annotations

import argparse

from tests.benchmarks import dags, page, rest, streams
from tests.benchmarks.common import record
from tests.support import ROOT


def main() -> None:
    """Runs what is named, one after the other so that none disturbs another, then writes the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=["rest", "stream", "dags"], metavar="rest|stream|dags")
    parser.add_argument("--seconds", type=int, default=8, help="how long each load lasts")
    parser.add_argument("--rounds", type=int, default=5, help="how often each stream is measured")
    options = parser.parse_args()
    folder = ROOT / ".bench"
    if "rest" in options.names:
        record("rest", rest.main(folder, options.seconds))
    if "stream" in options.names:
        record("stream", streams.main(folder, options.rounds))
    if "dags" in options.names:
        record("dags", dags.main())
    print(page.write())


if __name__ == "__main__":
    main()
