"""Whether what was switched answers, and what follows when it does: it is the release to come back to."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from packer_lib import commands
from packer_lib.errors import DeployFailed, printable
from packer_lib.hosts import Host
from packer_lib.hosts.home import must, put_text
from packer_lib.hosts.layout import Layout, program
from packer_lib.plan import Plan, Unit
from packer_lib.release import prune, records, supervisor, switch
from packer_lib.release.model import Release
from packer_lib.release.place import blamed, placed
from packer_lib.runtime.golden import difference
from packer_lib.settings import Settings

LOOK_EVERY = 1.0  # seconds between two questions to supervisor; the unit itself is asked every 50 ms
ANSWER_WITHIN = 30.0
LOG_LINES = 20
MEND = "mend it and deploy again; the lines above are the last that it logged"
WAIT = "deploy again when what it waits for is there; MLPACKER__DEPLOY__READY_TIMEOUT sets how many seconds it may take"


def verify(host: Host, plan: Plan, releases: Sequence[Release], settings: Settings) -> tuple[Release, ...]:
    """Waits until every unit is ready and answers its golden request; then they are the current releases, and what they
    replaced is tidied away. `DeployFailed` says which unit did not, why, and what it last logged."""
    layout = Layout(str(settings.home))
    for release in releases:
        _see_it_answer(host, layout, plan, release, settings)
    current = tuple(_commit(host, layout, release) for release in releases)
    for unit in switch.retire(host, plan, settings):
        must(host, commands.remove(*layout.of_unit(plan.pipeline, unit)))
    prune.prune(host, layout, plan.pipeline, settings.keep_releases)
    return current


def _see_it_answer(host: Host, layout: Layout, plan: Plan, release: Release, settings: Settings) -> None:
    unit = plan.unit(release.unit)
    try:
        wait_ready(host, layout, release, settings.ready_timeout)
        ask_golden(host, layout, unit, release)
    except DeployFailed as failed:
        pointer = blamed(plan, unit, failed.message.partition("\n")[0])
        raise DeployFailed(placed(plan, pointer, failed.message), failed.hint) from None


def wait_ready(host: Host, layout: Layout, release: Release, seconds: float) -> None:
    """Returns when this release is ready; a process that has given up, or failed to start twice, ends the wait."""
    name, end, failed_starts = program(release.pipeline, release.unit), time.monotonic() + seconds, 0
    while True:
        answer = toolbox(host, layout, "ready", f"{release.endpoint}/readyz", str(min(LOOK_EVERY, seconds)))
        if answer["status"] == 200:
            answer = _who_answers(host, layout, release)
        if answer["status"] == 200:
            return
        state = supervisor.ask(host, layout, name)
        failed_starts += state.word == "BACKOFF"
        if state.word in ("FATAL", "EXITED", "STOPPED", "UNKNOWN") or failed_starts > 1:
            raise _failed(host, layout, release, f"its process does not stay up ({state.word})", MEND)
        if time.monotonic() >= end:
            raise _failed(host, layout, release, f"not ready after {seconds:g} s: {_reason(answer)}", WAIT)


def _who_answers(host: Host, layout: Layout, release: Release) -> dict[str, Any]:
    """`/info`, as no answer when it is another release's: a port that was free a moment ago may be someone else's."""
    answer: dict[str, Any] = toolbox(host, layout, "http", "GET", f"{release.endpoint}/info", str(ANSWER_WITHIN))
    if answer["status"] == 200 and f'"{release.id}"' in answer["body"]:
        return answer
    return {"status": 0, "body": f"another process answers on port {release.port}"}


def _reason(answer: dict[str, Any]) -> str:
    """The unit's own words: `/readyz` names the queue and the broker it waits for."""
    try:
        reason = json.loads(answer["body"])["reason"]
    except (ValueError, KeyError, TypeError):
        reason = answer["body"][:300] or "no answer"
    return printable(str(reason))


def _failed(host: Host, layout: Layout, release: Release, why: str, hint: str) -> DeployFailed:
    log = host.run(commands.tail(layout.log(release.pipeline, release.unit), LOG_LINES)).out
    lines = "\n".join(f"  | {line}" for line in printable(log).splitlines())
    return DeployFailed(f"{program(release.pipeline, release.unit)}: {why}\n{lines}".rstrip(), hint)


def ask_golden(host: Host, layout: Layout, unit: Unit, release: Release) -> None:
    """The golden request of a REST unit, over HTTP. Its answer is compared where the unit has one step only: the
    steps' own requests were all compared by the check of the bundle."""
    golden = unit.steps[0].test
    if release.mode != "api" or golden is None:
        return
    body = json.dumps({"data": [golden.input]})
    argv = ("http", "POST", f"{release.endpoint}/predict", str(ANSWER_WITHIN))
    answer = toolbox(host, layout, *argv, body=body)
    wrong = _wrong(answer, golden.output if len(unit.steps) == 1 else None)
    if wrong:
        raise _failed(host, layout, release, f"the golden request failed: {wrong}", MEND)


def _wrong(answer: dict[str, Any], expected: Any) -> str:
    if answer["status"] != 200:
        return f"status {answer['status']}: {printable(str(answer['body'])[:300])}"
    if expected is None:
        return ""
    return difference([expected], json.loads(answer["body"]).get("predictions"))


def toolbox(host: Host, layout: Layout, *words: str, body: str | None = None) -> Any:
    """One question to the toolbox there; its answer."""
    argv = commands.toolbox(host.python, layout.toolbox, *words)
    result = host.run(argv, input=body, timeout=ANSWER_WITHIN * 2)
    return json.loads(result.out) if result.ok else {"status": 0, "body": result.tail(3)}


def _commit(host: Host, layout: Layout, release: Release) -> Release:
    former = records.current(host, layout, release.pipeline, release.unit)
    if former is not None and former.id == release.id:
        return former
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    live = replace(release, since=since)
    put_text(host, live.to_json(), f"{layout.history(live.pipeline, live.unit, live.id)}/release.json")
    put_text(host, live.to_json(), layout.current(live.pipeline, live.unit))
    return live
