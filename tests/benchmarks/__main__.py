"""`make bench`: every benchmark in one run, figures into docs/benchmarks/*.json, a page into docs/benchmarks.md.

usage: python -m tests.benchmarks [serve] [stream] [dags] [--seconds N] [--rounds N]   (all of them unless named)
"""

from __future__ import annotations

import argparse

from tests.benchmarks import dags, page, serve, streams
from tests.benchmarks.common import record
from tests.support import ROOT


def main() -> None:
    """Runs what is named, one after the other so that none disturbs another, then writes the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=["serve", "stream", "dags"], metavar="serve|stream|dags")
    parser.add_argument("--seconds", type=int, default=3, help="how long each load of a round of REST lasts")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured")
    options = parser.parse_args()
    folder = ROOT / ".bench"
    if "serve" in options.names:
        record("serve", serve.main(folder, options.seconds, options.rounds))
    if "stream" in options.names:
        record("stream", streams.main(folder, options.rounds))
    if "dags" in options.names:
        record("dags", dags.main())
    print(page.write())


if __name__ == "__main__":
    main()
