"""The demo from first to last: prepare, drop three PADL files, watch them go live, disturb them, tidy up."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeVar

import httpx

from packer_lib import padl, plan
from packer_lib.demo import brokers, cases, closing, processes, stage
from packer_lib.demo.brokers import Broker
from packer_lib.demo.cases import CASES
from packer_lib.demo.screen import LiveTable, Screen
from packer_lib.demo.show import Scene, Show
from packer_lib.demo.watch import Watch
from packer_lib.errors import MLPackerError
from packer_lib.settings import Settings
from packer_lib.standalone import Airflow

T = TypeVar("T")
LOGS = stage.STATE / "logs"
LIVE_WITHIN = 400.0
CALM_WITHIN = 60.0
NOTICED_WITHIN = 40.0
BURST_SECONDS = 8.0
SHOWN_SECONDS = 4.0  # so that people see the anomalies rise, although the first come within a second


def play(once: bool, screen: Screen) -> int:
    """The whole demo; 0 when every case did what it is there for. Everything started is stopped, whatever happens."""
    if (former := processes.killed(stage.STATE)) is not None:
        with screen.progress() as progress, screen.phase("Clearing up after a demo that was killed", progress):
            processes.stop_all(former.mark, stage.STATE)
            stage.undeploy(stage.STATE)
    run = processes.claim(stage.STATE)
    ending = ExitStack()
    try:
        settings = stage.enter(stage.STATE, run.mark)
        verdict = _perform(_prepare(screen, settings, ending), once, ending)
    finally:
        _tidy(screen, ending, run.mark)
    screen.console.print(screen.timeline())
    screen.say(f"{'All done' if verdict.passed else 'Something is missing'} after {screen.now():.0f} s.")
    return 0 if verdict.passed else 1


def _tidy(screen: Screen, ending: ExitStack, mark: str) -> None:
    """Not to be interrupted by an impatient second Ctrl-C: it would leave what the first one meant to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with screen.progress() as progress, screen.phase("Stopping everything again", progress):
        try:
            ending.close()
        finally:
            stage.stop_everything(mark, stage.STATE)
        processes.leave(stage.STATE)


def _prepare(screen: Screen, settings: Settings, ending: ExitStack) -> Scene:
    """Brokers first, then Airflow and the model at the same time. The files are dropped once there is a model."""
    with screen.progress() as progress:
        with screen.phase("Brokers", progress):
            served = _brokers(ending)
        airflow, settled = stage.airflow(stage.STATE), Event()
        ending.callback(_take_down, airflow, settled)

        def serve() -> None:
            with screen.phase("Airflow on SQLite", progress):
                airflow.start()

        def learn() -> Path:
            with screen.phase("The LSTM autoencoder", progress) as tell:
                trained = stage.trained(stage.STATE, tell)
            for case in CASES:
                cases.drop(case, stage.PIPELINES, trained, served)
            return trained

        serving, learning = _apart(serve), _apart(learn)
        _wait_for(serving, learning)
    for kind, broker in served.items():
        screen.say(f"  {kind:<8}{broker.address:<17} {broker.what}")
    screen.say(f"  Airflow {airflow.url}")
    return Scene(screen, settings, airflow, served, learning.result(), LOGS, settled)


def _take_down(airflow: Airflow, settled: Event) -> None:
    """Airflow and the units. Unless all is `settled`, Airflow first: a task of it may be deploying, under the lock."""
    stopping = _apart(airflow.stop)
    if not settled.is_set():
        _wait_for(stopping)
    try:
        stage.undeploy(stage.STATE)
    except MLPackerError:
        _wait_for(stopping)
        stage.undeploy(stage.STATE)
    _wait_for(stopping)


def _brokers(ending: ExitStack) -> dict[str, Broker]:
    served = {}
    served["mqtt"] = brokers.mqtt(stage.STATE, os.environ, brokers.find_mosquitto(os.environ))
    ending.callback(served["mqtt"].stop)
    served["kafka"] = brokers.kafka(stage.STATE, os.environ, cases.kafka_topics())
    ending.callback(served["kafka"].stop)
    return served


def _apart(part: Callable[[], T]) -> Future[T]:
    """On a thread of its own: a daemon, so that Ctrl-C need not wait for it."""
    future: Future[T] = Future()
    Thread(target=_fulfil, args=(part, future), daemon=True).start()
    return future


def _fulfil(part: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(part())
    except BaseException as failed:  # it is raised where the result is asked for
        future.set_exception(failed)


def _wait_for(*futures: Future[Any]) -> None:
    """Until all are done, or the first error; in small steps, between which Ctrl-C is heard."""
    while not all(future.done() for future in futures):
        for future in futures:
            if future.done():
                future.result()
        time.sleep(0.1)


def _perform(scene: Scene, once: bool, ending: ExitStack) -> closing.Verdict:
    """Live, calm, disturbed, judged; and then on until Ctrl-C, unless `once`."""
    client = ending.enter_context(httpx.Client(timeout=2, trust_env=False))
    watch = Watch(tuple(_units(case.id) for case in CASES), client)
    with LiveTable(scene.screen) as table:
        show = Show(scene, watch, table)
        with scene.screen.phase("Airflow deploys the three cases"):
            show.start_agent(ending)
            show.wait_for_live(LIVE_WITHIN)
        scene.settled.set()
        with scene.screen.phase("All three look at windows of this machine"):
            show.ask_model(ending)
            show.until(show.all_judging, CALM_WITHIN, "Live, on this machine's own metrics …")
        with scene.screen.phase("A burst of load, until all three cases have noticed"):
            started = time.time()
            _start_burst(ending)
            show.until(lambda: time.time() > started + SHOWN_SECONDS, BURST_SECONDS, "A burst of load …")
            show.until(lambda: show.noticed(started), BURST_SECONDS + NOTICED_WITHIN, "A burst of load …")
        verdict = closing.judge(show.feed, show.asker, show.rows, started)
        scene.screen.say(closing.words(verdict, scene.airflow, show.rows, once))
        if not once:
            with suppress(KeyboardInterrupt):
                show.until(lambda: False, float("inf"), "Ctrl-C stops everything")
    return verdict


def _units(pipeline: str) -> tuple[str, tuple[str, ...]]:
    """The units of a dropped file, in the order of the data."""
    planned = plan.plan(padl.read(stage.PIPELINES / f"{pipeline}.yaml"))
    return pipeline, tuple(unit["name"] for unit in plan.summary(planned)["units"])


def _start_burst(ending: ExitStack) -> None:
    argv = [sys.executable, "-m", "packer_lib.demo.burst", f"--seconds={BURST_SECONDS}", f"--folder={stage.STATE}"]
    ending.callback(processes.stop, processes.start(argv, os.environ, LOGS / "burst.log"))
