"""What is asked of the figures, and whether they are so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AT_LEAST = {
    "vs_mlserver": 10.0,
    "vs_bentoml_plain": 20.0,
    "vs_echo": 0.45,
    "c1_vs_mlserver": 1.8,
    "oip_vs_mlserver": 7.0,
    "lstm_vs_bentoml": 50.0,
    "binary_vs_json": 3.0,
}
AT_MOST = {"p99_vs_mlserver": 1.0, "cold_start_vs_bentoml": 0.7, "memory_vs_bentoml": 0.7}
OF_SWAPS = {"failed": 0.0, "of_another_model_than_named": 0.0, "p99_within_vs_before": 2.0, "live_max_s": 2.0}
GROWTH = 0.1


def judged(found: Mapping[str, float], swap: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By name what is `asked`, what was `found`, and whether that `met` it."""
    growth = abs(swap["memory_after_mb"] / swap["memory_before_mb"] - 1)
    return {
        **{name: _one(f"≥ {most:g}", found[name], found[name] >= most) for name, most in AT_LEAST.items()},
        **{name: _one(f"≤ {most:g}", found[name], found[name] <= most) for name, most in AT_MOST.items()},
        **{f"swap_{name}": _one(f"≤ {most:g}", swap[name], swap[name] <= most) for name, most in OF_SWAPS.items()},
        "swap_memory_growth": _one(f"≤ {GROWTH:g}", growth, growth <= GROWTH),
    }


def _one(asked: str, found: float, met: bool) -> dict[str, Any]:
    return {"asked": asked, "found": float(found), "met": bool(met)}


def table(targets: Mapping[str, Mapping[str, Any]]) -> str:
    """For the terminal."""
    lines = (
        f"[bench] {name:<32} {each['found']:>9.3f}  asked {each['asked']:<7} {'met' if each['met'] else 'NOT MET'}"
        for name, each in targets.items()
    )
    return "\n".join(lines)
