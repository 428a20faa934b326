"""What the demo has seen, judged; and what it says at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape

from packer_lib.demo.cases import CASES, A, B, C
from packer_lib.demo.feed import Anomaly, Asker, Feed
from packer_lib.demo.watch import Row
from packer_lib.standalone import Airflow


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the demo is there to show; `text` says what was seen."""

    passed: bool
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def all_noticed(feed: Feed, asker: Asker, since: float) -> bool:
    """Whether every case has found an anomaly in what happened after `since` (seconds since the epoch)."""
    return all(first(found, since) for found in (*feed.anomalies.values(), asker.answers.anomalies))


def first(anomalies: Sequence[Anomaly], since: float) -> Anomaly | None:
    """The first anomaly of a record taken after `since`."""
    return next((anomaly for anomaly in anomalies if anomaly.at >= since), None)


def judge(feed: Feed | None, asker: Asker | None, rows: Sequence[Row], burst: float) -> Verdict:
    """`burst` is when the burst began, in seconds since the epoch."""
    live = [_live(case.id, case.title, rows) for case in CASES]
    if feed is None or asker is None:
        return Verdict(tuple(live))
    noticed = [_noticed(case.id, feed.anomalies[case.id], burst) for case in (B, C)]
    return Verdict((*live, _answered(asker), _noticed(A.id, asker.answers.anomalies, burst), *noticed))


def _live(pipeline: str, title: str, rows: Sequence[Row]) -> Check:
    states = {row.unit: row.state for row in rows if row.pipeline == pipeline}
    passed = bool(states) and set(states.values()) == {"running"}
    return Check(passed, f"case {title}: {', '.join(f'{unit} {state}' for unit, state in states.items())}")


def _answered(asker: Asker) -> Check:
    answers, took = asker.answers, asker.answers.median()
    if took is None:
        return Check(False, f"{A.id} never answered over REST: {answers.refused or 'it was not asked'}")
    text = f"{A.id} answered {len(answers.seconds)} windows over REST, median {took * 1000:.1f} ms"
    if answers.example:
        came, reconstructed = (_readable(record) for record in answers.example)
        text += f"; [{came}] came back as [{reconstructed}]"
    return Check(True, text)


def _readable(record: Sequence[float]) -> str:
    """A record of `agent.FEATURES` for people."""
    cpu, network_in, disk_read = record
    return f"{round(cpu)} %, {round(network_in / 1000)} kB/s, {round(disk_read / 1000)} kB/s"


def _noticed(pipeline: str, anomalies: Sequence[Anomaly], burst: float) -> Check:
    found = first(anomalies, burst)
    before = sum(anomaly.at < burst for anomaly in anomalies)
    if found is None:
        return Check(False, f"{pipeline} did not notice the burst ({before} anomalies before it)")
    how = f"{found.heard - burst:.1f} s after it began, error {found.error:.0f}"
    return Check(True, f"{pipeline} noticed the burst {how}; {before} anomalies before it")


def words(verdict: Verdict, airflow: Airflow, rows: Sequence[Row], once: bool) -> str:
    """The verdict, where everything is, and (unless all ends now) what to try next."""
    checks = "\n".join(
        f"  {'[green]✓[/green]' if check.passed else '[red]✗[/red]'} {escape(check.text)}" for check in verdict.checks
    )
    return f"\n{checks}\n" if once else f"\n{checks}\n{_places(airflow, rows)}\n{NEXT}"


def _places(airflow: Airflow, rows: Sequence[Row]) -> str:
    rest = next((row.endpoint for row in rows if row.pipeline == A.id), "")
    metrics = "\n".join(
        f"             {row.pipeline}/{row.unit}  {row.endpoint}/metrics" for row in rows if row.endpoint
    )
    return f"""
  Airflow    {airflow.url}  (user admin, password {airflow.password})
  REST       curl -s {rest}/predict -H 'Content-Type: application/json' \\
               -d "{{\\"data\\": [$(python3 -c 'print([[20, 5000, 0]] * 30)')]}}"
  Metrics
{metrics}
"""


NEXT = """\
  Try next (in another terminal, in this folder):
    .venv/bin/python -m packer_lib.demo.burst             another burst: watch the anomalies rise
    export MLPACKER__PATHS__HOME=$PWD/.demo/mlpacker      and then
    .venv/bin/mlpacker status                             what is live
    .venv/bin/mlpacker logs demo-c-distributed            what the units say
    edit pipelines/demo-a-rest.yaml (its description, say) and watch Airflow deploy it again
    cp pipelines/examples/iris-rest.yaml pipelines/my-iris.yaml, give it an id and a model of your own
  And the next time:
    MLPACKER__DEMO__MQTT=host:port MLPACKER__DEMO__KAFKA=host:port make demo      with real brokers
    MLPACKER__DEMO__METRICS=FILE make demo      trained on your own recording:
    .venv/bin/python -m packer_lib.demo.agent --record FILE --seconds 600
"""
