"""REST, ours beside the peers, in one run: `make bench-serve`, `python -m tests.benchmarks serve [--seconds N]`.

Every system has one worker and the same load: wrk, with 1 and with 16 connections. All run at the same time and are
asked in turn, several times over, so that what else happens on the machine happens to all of them; a ratio is the
median of those of the rounds. wrk itself takes its share, so that only ratios count.

    echo             the limit: an ASGI app that reads the body and answers three bytes
    ours             `python service.py` of the bundle that mlpacker writes; ours_oip the same by OIP v2
    ours_bentoml     the same bundle under `bentoml serve`
    bentoml_plain    a BentoML service written by hand; bentoml_batchable: the same with `batchable=True`
    mlserver         MLServer with its scikit-learn runtime, by OIP v2, which is all that it has
    lstm_…           an LSTM autoencoder, windows of 30×3: ours, and BentoML by hand calling `model.predict`
    wide_…           a tensor of 1 MB by OIP v2, in JSON and in binary, for a linear model
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.serve import bodies, systems, targets
from tests.benchmarks.serve.load import Figures, Question, load
from tests.benchmarks.serve.starts import starts
from tests.benchmarks.serve.swaps import swaps
from tests.support import require

MANY, ONE = 16, 1
STARTS, SWAPS, SWAP_SECONDS = 5, 50, 60.0
WHAT = (
    "One row of 30 numbers a request, scikit-learn's scaler and logistic regression, one worker each. `echo` is the"
    " limit: an ASGI app that answers three bytes. `lstm` is an autoencoder on windows of 30×3, `wide` one row of 1 MB"
    " for a linear model, by OIP. All systems run at the same time and are asked in turn; medians of the rounds."
)
Asked = tuple[str, int]  # name and number of connections
Round = dict[Asked, Figures]


def main(folder: Path, seconds: int = 3, count: int = 5) -> dict[str, Any]:
    """What the page shows, the ratios that are asked for at the top. There are `count` rounds, in which each load lasts
    `seconds`; with less than three seconds the swaps and starts are fewer, too."""
    require("wrk", "apt-get install wrk")
    folder /= "serve"
    rounds = [*measured(folder, seconds, count)]
    first = {name: system for name, system in systems.small(folder).items() if name in ("ours", "bentoml_plain")}
    part = min(1.0, seconds / 3)
    started = starts(first, folder, round(STARTS * part))
    swapped = swaps(systems.ours(folder), folder, round(SWAPS * part), SWAP_SECONDS * part)
    found = ratios(rounds, started)
    figures = {f"{name}, {many} conn.": medians(rounds, (name, many)) for name, many in rounds[0]}
    judged = targets.judged(found, swapped)
    print(shown(figures), targets.table(judged), sep="\n")
    return systems.any_figures(
        {
            "title": "REST",
            "what": WHAT,
            **found,
            "targets": judged,
            "swap": swapped,
            "starts": started,
            "unit": "requests per second",
            "rates": {name: figure["rps"] for name, figure in figures.items()},
            "systems": figures,
        }
    )


def measured(folder: Path, seconds: int, count: int) -> Iterator[Round]:
    """The rounds, one after the other; everything runs until the last."""
    with ExitStack() as stack:
        up = {
            name: stack.enter_context(systems.running(system, folder / f"{name}.log"))
            for name, system in {**systems.small(folder), **systems.lstm(folder), "wide": bodies.wide(folder)}.items()
        }
        questions = {
            name: Question(each.url + each.system.route, each.system.folder / each.system.body)
            for name, each in up.items()
        }
        del questions["wide"]
        questions["ours_oip"] = Question(up["ours"].url + systems.INFER, up["mlserver"].system.folder / "v2.json")
        questions |= bodies.questions(folder, up["wide"].url + systems.INFER)
        for number in range(count):
            yield one_round(questions, seconds)
            print(f"[bench] round {number + 1} of {count} is done", flush=True)


def one_round(questions: dict[str, Question], seconds: int) -> Round:
    """Every system once with every number of connections; what is far from the socket's speed with one of them."""
    return {
        (name, count): load(question, count, seconds)
        for count in (MANY, ONE)
        for name, question in questions.items()
        if count == MANY or not name.startswith(("lstm", "wide"))
    }


def shown(figures: dict[str, Figures]) -> str:
    """For the terminal."""
    head = f"[bench] {'REST':<28} {'req/s':>9} {'p50 ms':>10} {'p99 ms':>10} {'failed':>7}"
    lines = (
        f"[bench] {name:<28} {each['rps']:>9.0f} {each['p50_ms']:>10.2f} {each['p99_ms']:>10.2f} {each['failed']:>7.0f}"
        for name, each in figures.items()
    )
    return "\n".join([head, *lines])


def medians(rounds: list[Round], which: Asked) -> Figures:
    return {key: median(each[which][key] for each in rounds) for key in rounds[0][which]}


def ratios(rounds: list[Round], started: dict[str, Figures]) -> dict[str, float]:
    """Ours over theirs, each in the middle of the rounds; of starts and memory those of the medians."""

    def within(one: str, other: str, count: int = MANY, key: str = "rps") -> float:
        return median(each[one, count][key] / each[other, count][key] for each in rounds)

    def start(key: str) -> float:
        return started["ours"][key] / started["bentoml_plain"][key]

    return {
        "vs_mlserver": within("ours", "mlserver"),
        "vs_bentoml_plain": within("ours", "bentoml_plain"),
        "vs_echo": within("ours", "echo"),
        "p99_vs_mlserver": within("ours", "mlserver", key="p99_ms"),
        "c1_vs_mlserver": within("ours", "mlserver", ONE),
        "oip_vs_mlserver": within("ours_oip", "mlserver"),
        "lstm_vs_bentoml": within("lstm_ours", "lstm_bentoml"),
        "binary_vs_json": within("wide_binary", "wide_json"),
        "cold_start_vs_bentoml": start("ready_s"),
        "memory_vs_bentoml": start("idle_mb"),
    }
