"""One thread that loads and runs the chain, so that a slow model never stops the event loop; standard library only.

Requests that are there at the same time, or come while a batch runs, make up the next batch; none is ever held back to
make one larger. They are handed over once per turn of the event loop: the thread wakes for all of them, not for each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from . import memory, metrics
from .chain import ALL_LIVE, Chain, Outcome
from .contract import ALONE, HandlerUnusable, ModelUnusable, Replica, Tensor
from .manifest import Manifest
from .room import REQUESTS, Busy
from .swap import Swaps
from .wanted import NoVersion

log = logging.getLogger("mlpacker.worker")

STOP_SECONDS = 5.0


Outcomes = list[Outcome] | Exception


@dataclass(slots=True)
class Job:
    """The values of one request, for the chain or for one `step` of it, and who is told their outcomes, on the event
    loop, while it is `open`. `version`: of its models, "" for those that are live."""

    values: list[Any]
    step: str
    version: str
    answer: Callable[[Outcomes], None]
    open: bool = True


class Worker:
    """`reason` is why it cannot answer and "" when it can; `failed` is told when the chain cannot be loaded at all.
    `process` says which of those of its unit this is; `others` is why the unit is not ready all the same.

    Its models are kept at what the state folder `state` says, see swap.py; `show` is given what `Swaps.described` says
    whenever that changes; all processes switch together.
    """

    def __init__(
        self,
        manifest: Manifest,
        folder: Path,
        failed: Callable[[], None],
        state: Path,
        show: Callable[[dict[str, Any]], None] = lambda _described: None,
        process: Replica = ALONE,
    ) -> None:
        self.reason, self.others = "loading", ""
        self.steps = tuple(step.name for step in manifest.steps)
        self.plain = any(step.kind == "code" for step in manifest.steps)  # a function gets lists, not arrays
        self._chain = Chain(manifest, folder, _observe)
        self._show = show
        self._swaps = Swaps(self._chain, state, process.number, self._shown, lambda: self._jobs.put([]), process.of)
        self._unloaded = ""
        self._failed = failed
        self._arriving: list[Job] = []  # of this turn of the event loop, which alone touches it
        self._jobs: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._waiting = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = Thread(target=self._work, name="chain", daemon=True)
        self._most = max((step.max_batch for step in manifest.steps), default=1)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finishes what waits, unless that takes longer than `STOP_SECONDS`; does not wait for a chain to load."""
        loaded, self.reason = not self.reason, "stopping"
        self._jobs.put(None)
        if loaded:
            self._thread.join(STOP_SECONDS)

    async def run(self, values: list[Any], step: str = "", version: str = "") -> list[Outcome]:
        """One outcome per value, of the chain or of one `step` of it; `version` names that of its models, see
        `Versions.instead`. `Busy` when too many requests wait already, `NoVersion`."""
        if self.full:
            raise Busy(f"{REQUESTS} requests are waiting")
        answered: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        job = self.submit(values, partial(_settle, answered), step, version)
        try:
            return await answered
        finally:
            self._close(job)

    @property
    def full(self) -> bool:
        """As many requests wait as may."""
        return self._waiting >= REQUESTS

    def submit(self, values: list[Any], answer: Callable[[Outcomes], None], step: str = "", version: str = "") -> Job:
        """As `run`, for who has looked whether it is `full`: `answer` is called later, on the event loop."""
        if not self._arriving:
            self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._hand_over)
        job = Job(values, step, version, answer)
        self._arriving.append(job)
        self._waiting += 1
        return job

    def _close(self, job: Job) -> bool:
        """Whether it was open."""
        was, job.open = job.open, False
        self._waiting -= was
        return was

    @property
    def unready(self) -> str:
        """Why the unit is not ready, "" when all of it is."""
        return self.reason or self.others

    def columns(self, step: str = "") -> tuple[str, ...]:
        """Of the model of `step`, or of the chain's first."""
        return self._chain.columns(step)

    def tensors(self, step: str) -> tuple[Tensor | None, Tensor | None]:
        """As `Chain.tensors`."""
        return self._chain.tensors(step)

    def shadow_report(self) -> dict[str, Any]:
        """How candidates answered what live models were asked, see `Shadow.report`."""
        return self._swaps.shadow.report()

    def _hand_over(self) -> None:
        self._jobs.put(self._arriving)
        self._arriving = []

    def _work(self) -> None:
        try:
            self._chain.prepare()
            memory.collect_less()
            self._swaps.load()
        except (ModelUnusable, HandlerUnusable) as error:
            self._give_up(str(error))
        except Exception as error:
            log.exception("loading failed by what should not have happened")
            self._give_up(f"{type(error).__name__}: {error}")
        else:
            self._shown()
            self._swaps.start()
            if self.reason == "loading":  # and not told to stop meanwhile
                self.reason = self._unloaded
            log.info("ready")
            while (jobs := self._take()) is not None:
                self._swaps.apply()
                self._answer(jobs)
            self._swaps.close()
            self._chain.close()

    def _shown(self) -> None:
        """What is loaded or refused has changed."""
        self._show(self._swaps.described())
        former, self._unloaded = self._unloaded, self._swaps.now.unloaded()
        if self.reason in ("", former):
            self.reason = self._unloaded

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        log.error("stopped: %s", reason)
        self._failed()

    def _take(self) -> list[Job] | None:
        """What waits, at most about a full batch; waits for the first. None: it is time to stop."""
        jobs = self._jobs.get()
        if jobs is None:
            return None
        size = sum(len(job.values) for job in jobs)
        while size < self._most:
            try:
                more = self._jobs.get_nowait()
            except Empty:
                break
            if more is None:
                self._jobs.put(None)  # for the next call: these are answered first
                break
            jobs += more
            size += sum(len(job.values) for job in more)
        return jobs

    def _answer(self, jobs: list[Job]) -> None:
        """What asks for the whole chain together, what asks for one step or version together with its like."""
        for kind in dict.fromkeys((job.step, job.version) for job in jobs):
            self._answer_together([job for job in jobs if (job.step, job.version) == kind and job.open], *kind)

    def _answer_together(self, wanted: list[Job], step: str, version: str) -> None:
        values = [value for job in wanted for value in job.values]
        metrics.BATCH_SIZE.observe(len(values))
        try:
            instead = self._swaps.now.instead(version, step) if version else ALL_LIVE
            run_step, run = self._chain.run_step, self._chain.run
            outcomes = run_step(step, values, instead) if step else run(values, instead=instead)
        except NoVersion as error:
            self._deliver(wanted, [error] * len(wanted))
            return
        except Exception as error:
            log.exception("a batch failed by what should not have happened")
            self._deliver(wanted, [error] * len(wanted))
            return
        parts: list[Outcomes] = []
        start = 0
        for job in wanted:
            parts.append(outcomes[start : start + len(job.values)])
            start += len(job.values)
        self._deliver(wanted, parts)

    def _deliver(self, jobs: list[Job], answers: Sequence[Outcomes]) -> None:
        """Hands every job its answer on the event loop, all in one wake-up."""
        if jobs and self._loop is not None:
            self._loop.call_soon_threadsafe(self._tell, jobs, answers)

    def _tell(self, jobs: list[Job], answers: Sequence[Outcomes]) -> None:
        for job, answer in zip(jobs, answers, strict=True):
            if self._close(job):
                job.answer(answer)


def _settle(answered: asyncio.Future[list[Outcome]], outcomes: Outcomes) -> None:
    if answered.done():
        return  # the client has gone
    if isinstance(outcomes, Exception):
        answered.set_exception(outcomes)
    else:
        answered.set_result(outcomes)


def _observe(step: str, _size: int, seconds: float) -> None:
    metrics.PREDICT_SECONDS.labels(step).observe(seconds)
