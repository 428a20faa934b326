"""One load: wrk, one thread, posting one body for some seconds."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.common import PEERS

MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}
Figures = dict[str, float]


@dataclass(frozen=True)
class Question:
    """A file posted to `url`; `head` is its `Inference-Header-Content-Length`, if it has binary tensors."""

    url: str
    body: Path
    head: int = 0


def load(question: Question, connections: int, seconds: int) -> Figures:
    """Requests per second, milliseconds, and how many got no 200 or no answer at all."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency"]
    environment = {**os.environ, "BODY": str(question.body), "HEAD": str(question.head or "")}
    whole = [*command, "-s", str(PEERS / "post.lua"), question.url]
    said = subprocess.run(whole, env=environment, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None:
        raise RuntimeError(said)
    return {
        "rps": float(rate[1]),
        "p50_ms": latency(said, "50%"),
        "p99_ms": latency(said, "99%"),
        "failed": sum(map(float, re.findall(r"Non-2xx or 3xx responses: (\d+)", said)))
        + sum(
            float(number) for line in re.findall(r"Socket errors: (.*)", said) for number in re.findall(r"\d+", line)
        ),
    }


def latency(text: str, quantile: str) -> float:
    """Milliseconds, from wrk's `99%  1.22ms`."""
    found = re.search(rf"^\s+{quantile}\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(text)
    return float(found[1]) * MICROSECONDS[found[2]] / 1e3
