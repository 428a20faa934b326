"""docs/images/sizes.json, and the tables between the marks of docs/images.md."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support import ROOT

FIGURES = ROOT / "docs" / "images" / "sizes.json"
PAGE = ROOT / "docs" / "images.md"
MARKS = re.compile(r"(<!-- sizes -->\n).*?(<!-- end of sizes -->)", re.DOTALL)


def write(figures: dict[str, Any]) -> str:
    """Writes both; returns the tables, for the terminal."""
    FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    text = tables(figures)
    PAGE.write_text(MARKS.sub(rf"\g<1>{text}\g<2>", PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return text


def tables(figures: dict[str, Any]) -> str:
    base = figures["base_bytes"]
    names = {
        "ours_scikit_learn": "scikit-learn behind REST",
        "bentoml_scikit_learn": "the same model by `bentoml containerize`",
        "ours_tensorflow": "TensorFlow behind REST",
        "everything": "one image with every framework and connector",
    }
    lines = ["| image | MB | of these above the base | times ours |", "|---|---:|---:|---:|"]
    least = figures["images"]["ours_scikit_learn"]["bytes"]
    for key, name in names.items():
        size = figures["images"][key]["bytes"]
        lines.append(f"| {name} | {size / 1e6:,.0f} | {(size - base) / 1e6:,.0f} | {size / least:.1f} |")
    ours, theirs = figures["new_model"]["ours"], figures["new_model"]["bentoml"]
    model = figures["new_model"]["model_bytes"]
    lines += ["", f"| a new model of {model:,} bytes | ours | BentoML |", "|---|---:|---:|"]
    rows = (
        ("from the model's file to the image, s", "seconds", ",.1f"),
        ("pushed to the registry, bytes", "pushed_bytes", ",d"),
        ("pulled by a machine that has the former image, bytes", "pulled_bytes", ",d"),
        ("sent over SSH instead (`registry: none`), bytes", "streamed_bytes", ",d"),
        ("the first image, pushed or pulled whole, bytes", "whole_bytes", ",d"),
    )
    for name, key, form in rows:
        lines.append(f"| {name} | {ours[key]:{form}} | {format(theirs[key], form) if key in theirs else '–'} |")
    return "\n".join([*lines, ""])
