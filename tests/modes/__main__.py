"""`make modes`: all sixteen and the paper's cases; their table goes into the README, the count is the last line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.modes import mode as modes
from tests.modes.mode import ALL
from tests.support import ROOT

README = ROOT / "README.md"
BEGIN, END = "<!-- modes:begin -->", "<!-- modes:end -->"
WORDS = {"passed": "passes", "failed": "**fails**", "skipped": "not run", "": "not run"}
SHAPES = ("atomic", "distributed")


class Results:
    """pytest's own outcome of each of the sixteen, by the mode's id; what a test measured is on the screen."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("[")[2].rstrip("]")
        ended = report.when == "call" or report.outcome != "passed"
        if ended and name in {mode.id for mode in ALL} and self.outcomes.get(name, "passed") == "passed":
            self.outcomes[name] = report.outcome
        if report.when == "call" and report.capstdout:
            print(f"\n{report.capstdout.strip()}")


def table(outcomes: Mapping[str, str]) -> str:
    """The sixteen as Markdown: a line per mode, a column per shape."""
    head = "| package-mode | deploy-mode | containerized | atomic | distributed |\n|---|---|---|---|---|"
    return "\n".join([head, *_lines(outcomes)])


def _lines(outcomes: Mapping[str, str]) -> Iterable[str]:
    for mode in ALL:
        if mode.shape == "atomic":
            ids = (modes.Mode(mode.package, mode.deploy, mode.form, shape).id for shape in SHAPES)
            results = (WORDS[outcomes.get(name, "")] for name in ids)
            containerized = str(mode.form == "container").lower()
            yield "| " + " | ".join((mode.package, mode.deploy, containerized, *results)) + " |"


def write(place: Path, text: str) -> bool:
    """Puts `text` between the markers; False when the page has none."""
    page = place.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        place.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return bool(begin and end)


def main(arguments: list[str]) -> int:
    os.environ["MLPACKER_MODES"] = "all"
    results = Results()
    code = pytest.main([str(Path(__file__).parent), "-v", *arguments], plugins=[results])
    whole = set(results.outcomes) == {mode.id for mode in ALL}
    if whole and not write(README, table(results.outcomes)):
        print(table(results.outcomes))
    passed = sum(outcome == "passed" for outcome in results.outcomes.values())
    print(f"{passed} of {len(ALL)} modes")
    return int(code) or int(passed < len(ALL))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
