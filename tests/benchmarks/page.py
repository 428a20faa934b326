"""docs/benchmarks.md from docs/benchmarks/*.json: ratios first, then a chart, then the raw figures of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.common import FIGURES

PAGE = FIGURES.parent / "benchmarks.md"
HEAD = """# Benchmarks

Written by `make bench`. Everything on this page was measured in one run on one machine, ours and the peers one after
the other, so the ratios hold although the machine is small and shared; the absolute figures are those of that machine
and that hour. What runs is in `tests/benchmarks/`, the peers in `tests/benchmarks/peers/`, each in an environment of
its own.
"""


def write() -> str:
    """Writes the page; returns where it is and the ratios, for the terminal."""
    parts = [section(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(FIGURES.glob("*.json"))]
    PAGE.write_text("\n".join([HEAD, *parts]), encoding="utf-8")
    return f"{PAGE.relative_to(Path.cwd())} is written: look there next"


def section(figures: dict[str, Any]) -> str:
    """One benchmark: `title`, `what`, `unit`, `rates` (name → figure), and its ratios, in `ratios` or beside these; of
    streams also `latency` (name → milliseconds), of REST `targets` and `swap`."""
    ratios = figures.get("ratios") or {name: value for name, value in figures.items() if isinstance(value, float)}
    lines = [f"## {figures['title']}", "", figures["what"], ""]
    if ratios:
        lines += ["| ours against | times |", "|---|---:|"]
        lines += [f"| {name.replace('_', ' ')} | {value:,.2f} |" for name, value in ratios.items()]
        lines.append("")
    lines += asked(figures.get("targets", {})) + swapped(figures.get("swap", {}))
    if latency := figures.get("latency"):
        lines += ["| | milliseconds |", "|---|---:|"]
        lines += [f"| {name.replace('_', ' ')} | {value:,.1f} |" for name, value in latency.items()]
        lines.append("")
    rates = {name: float(value) for name, value in figures["rates"].items()}
    lines += [*chart(figures["unit"], rates), "", f"| | {figures['unit']} |", "|---|---:|"]
    lines += [f"| {name.replace('_', ' ')} | {number(value)} |" for name, value in rates.items()]
    return "\n".join([*lines, ""])


def asked(targets: dict[str, Any]) -> list[str]:
    """What is asked of each ratio, and whether it is met."""
    if not targets:
        return []
    said = {True: "met", False: "**not met**"}
    rows = (
        f"| {name.replace('_', ' ')} | {each['asked']} | {each['found']:,.2f} | {said[each['met']]} |"
        for name, each in targets.items()
    )
    return ["| | asked | found | |", "|---|---:|---:|---|", *rows, ""]


def swapped(figures: dict[str, float]) -> list[str]:
    if not figures:
        return []
    rows = (f"| {name.replace('_', ' ')} | {value:,.4g} |" for name, value in figures.items())
    return ["| swaps under 200 requests/s | |", "|---|---:|", *rows, ""]


def chart(unit: str, rates: dict[str, float]) -> list[str]:
    """A bar chart in Mermaid, which code hosts draw."""
    names = ", ".join(f'"{name.replace("_", " ")}"' for name in rates)
    bars = ", ".join(f"{value:.3g}" if value < 10 else f"{value:.0f}" for value in rates.values())
    return ["```mermaid", "xychart-beta", f"    x-axis [{names}]", f'    y-axis "{unit}"', f"    bar [{bars}]", "```"]


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
