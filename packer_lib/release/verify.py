"""Whether a release answers: ready, as itself, right about its golden request, and still there a while later.

The machine asks, not the deployer: a firewall between them is no failure of the unit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from packer_lib import commands
from packer_lib.errors import DeployFailed, printable
from packer_lib.hosts import Host
from packer_lib.hosts.layout import Layout, program
from packer_lib.plan import Plan, Unit
from packer_lib.release import records
from packer_lib.release.forms import form_of
from packer_lib.release.model import Release, number_of, release_of
from packer_lib.release.place import blamed, placed
from packer_lib.runtime.golden import difference
from packer_lib.settings import Settings

LOOK_EVERY = 1.0  # seconds between two questions about its process; the unit itself is asked every 50 ms
ANSWER_WITHIN = 30.0
LOG_LINES = 50
ENDED = ("FATAL", "EXITED", "STOPPED", "UNKNOWN")
MEND = "mend it and deploy again; the lines above are the last that it logged"
WAIT = "deploy again when what it waits for is there; MLPACKER__DEPLOY__READY_TIMEOUT sets how many seconds it may take"

Where = Callable[[], str]


def see_it_answer(host: Host, plan: Plan, release: Release, settings: Settings, at_the_door: bool) -> None:
    """Every process of it ready and right, at the unit's public port or at its own; `DeployFailed` with the place in
    the PADL file, why, and what it last logged."""
    unit = plan.unit(release.unit)
    with _told_with_place(plan, unit):
        for process in release.processes:
            where = public(host, release, process) if at_the_door else private(host, release, process)
            wait_ready(host, release, settings.ready_timeout, where, process)
        ask_golden(host, unit, release, public(host, release) if at_the_door else private(host, release))


def see_it_ready(host: Host, plan: Plan, release: Release, process: str, settings: Settings) -> None:
    """The same of one process."""
    with _told_with_place(plan, plan.unit(release.unit)):
        wait_ready(host, release, settings.ready_timeout, private(host, release, process), process)


@contextmanager
def _told_with_place(plan: Plan, unit: Unit) -> Iterator[None]:
    try:
        yield
    except DeployFailed as failed:
        pointer = blamed(plan, unit, failed.message.partition("\n")[0])
        raise DeployFailed(placed(plan, pointer, failed.message), failed.hint) from None


def public(host: Host, release: Release, process: str = "") -> Where:
    """Where people find the unit, as its own machine sees it."""
    return (lambda: release.local) if release.has_door else private(host, release, process)


def private(host: Host, release: Release, process: str = "") -> Where:
    """Where exactly this process of this release is (or its first), once that is known."""
    return lambda: form_of(release).private(host, release, process or release.processes[0])


def wait_ready(host: Host, release: Release, seconds: float, where: Where, process: str = "") -> None:
    """Returns when this process of it (or its first) is ready; one that has given up, or failed to start twice, ends
    the wait."""
    form, end, failed_starts = form_of(release), time.monotonic() + seconds, 0
    process, pause = process or release.processes[0], 0.05
    while True:
        answer = _readiness(host, release, process, where(), min(LOOK_EVERY, seconds))
        if answer["status"] == 200:
            return
        state = form.state(host, release.pipeline, release.unit, process)
        failed_starts += state.word == "BACKOFF"
        if state.word in ENDED or failed_starts > 1:
            raise failed(host, release, f"its process does not stay up ({state.word})", MEND, process)
        if time.monotonic() >= end:
            raise failed(host, release, f"not ready after {seconds:g} s: {_reason(answer)}", WAIT, process)
        time.sleep(pause)
        pause = min(2 * pause, LOOK_EVERY / 2)


def _readiness(host: Host, release: Release, process: str, url: str, seconds: float) -> dict[str, Any]:
    """`/readyz`, and when that is well `/info`: a port that was free a moment ago may be someone else's."""
    if not url:
        waits = "it has not come to its door yet" if release.has_door else "it does not say yet where its probes are"
        return {"status": 0, "body": waits}
    answer: dict[str, Any] = toolbox(host, "ready", f"{url}/readyz", str(seconds))
    if answer["status"] != 200:
        return answer
    answer = toolbox(host, "http", "GET", f"{url}/info", str(ANSWER_WITHIN))
    if answer["status"] == 200 and _is(process, answer["body"]):
        return answer
    return {"status": 0, "body": f"another process answers on port {url.rpartition(':')[2]}"}


def _is(process: str, info: str) -> bool:
    """Whether it is that process who says so, and not another replica on a port that this one had before."""
    try:
        told = json.loads(info)
        return (told["release"], told.get("replica", 0)) == (release_of(process), number_of(process))
    except (ValueError, TypeError, KeyError):
        return False


def watch(fleet_of: Callable[[Release], Host], plan: Plan, releases: Sequence[Release], seconds: float) -> None:
    """All of them run on undisturbed for `seconds`; `DeployFailed` as soon as one does not.

    A process that was started again is another one, however ready it is.
    """
    end = time.monotonic() + seconds
    former: dict[str, tuple[int, str]] = {}
    while releases and seconds > 0:
        for release in releases:
            former[release.unit] = _same(fleet_of(release), plan, release, former.get(release.unit, (0, "")))
        if time.monotonic() >= end:
            return
        time.sleep(min(LOOK_EVERY, max(0.0, end - time.monotonic())))


def _same(host: Host, plan: Plan, release: Release, former: tuple[int, str]) -> tuple[int, str]:
    form = form_of(release)
    state, url = form.state(host, release.pipeline, release.unit, release.id), form.private(host, release)
    pid, place = former
    ended = state.word not in ("RUNNING", "STARTING") or (pid and state.pid != pid) or (place and url != place)
    if ended or (url and toolbox(host, "ready", f"{url}/livez", "5")["status"] == 0):
        error = failed(host, release, f"it was ready and did not stay so ({state.word})", MEND)
        pointer = blamed(plan, plan.unit(release.unit), "")
        raise DeployFailed(placed(plan, pointer, error.message), error.hint)
    return state.pid or pid, url or place


def _reason(answer: dict[str, Any]) -> str:
    """The unit's own words: `/readyz` names the queue and the broker it waits for."""
    try:
        reason = json.loads(answer["body"])["reason"]
    except (ValueError, KeyError, TypeError):
        reason = answer["body"][:300] or "no answer"
    return printable(str(reason))


def failed(host: Host, release: Release, why: str, hint: str, process: str = "") -> DeployFailed:
    """With the last lines that it logged, which are asked for now: soon they are gone with it."""
    number = number_of(process)
    log = form_of(release).log(host, release.pipeline, release.unit, LOG_LINES, number)
    lines = "\n".join(f"  | {line}" for line in printable(log).splitlines())
    which = f", replica {number}" if release.replicas > 1 else ""
    where = which if host.machine is None else f"{which} on {host.name}"
    return DeployFailed(f"{program(release.pipeline, release.unit)}{where}: {why}\n{lines}".rstrip(), hint)


def ask_golden(host: Host, unit: Unit, release: Release, where: Where) -> None:
    """The golden request of each step of a REST unit, over HTTP."""
    for step in unit.steps:
        if not release.has_door or step.test is None:
            continue
        url, body = f"{where()}/predict?step={quote(step.name)}", json.dumps({"data": [step.test.input]})
        told = json.dumps({"body": body, "key": _key(host, release)})
        wrong = _wrong(toolbox(host, "http", "POST", url, str(ANSWER_WITHIN), body=told), step.test.output)
        if wrong:
            raise failed(host, release, f"the golden request of {step.name} failed: {wrong}", MEND)


def _key(host: Host, release: Release) -> str:
    """What the unit asks its callers for; "" when that is nothing."""
    return records.launch(host, release).env.get("MLPACKER_API_KEY", "").partition(",")[0]


def _wrong(answer: dict[str, Any], expected: Any) -> str:
    if answer["status"] != 200:
        return f"status {answer['status']}: {printable(str(answer['body'])[:300])}"
    if expected is None:
        return ""
    return difference([expected], json.loads(answer["body"]).get("predictions"))


def toolbox(host: Host, *words: str, body: str | None = None) -> Any:
    """One question to the toolbox there; its answer."""
    argv = commands.toolbox(host.python, Layout(host.home).toolbox, *words)
    result = host.run(argv, input=body, timeout=ANSWER_WITHIN * 2)
    return json.loads(result.out) if result.ok else {"status": 0, "body": result.tail(3)}
