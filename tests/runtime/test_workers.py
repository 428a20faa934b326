"""A unit of several worker processes: real ones, that are killed, stopped and swapped while they are asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from packer_lib.runtime.workers import of_all
from tests.runtime.asking import Asking, Line
from tests.runtime.handmade import Service, code_step, end, running, start, write_bundle
from tests.runtime.swapping import APART, Deployer, line
from tests.runtime.test_door import House
from tests.runtime.test_rest import metric
from tests.runtime.test_swap_rest import asked, bundle
from tests.support import wait_for

NAMES_ITS_PROCESS = """
import os, pathlib, time
here = pathlib.Path("worker-" + os.environ.get("MLPACKER_WORKER", "none"))
while here.with_suffix(".wait").exists():
    time.sleep(0.01)
if here.with_suffix(".bad").exists():
    raise RuntimeError("this worker cannot load")
def handler(value):
    if value == "slow":
        here.with_suffix(".slow").touch()
        while here.with_suffix(".slow").exists():
            time.sleep(0.01)
    return os.getpid()
"""


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def port_of(service: Service) -> int:
    port = urlsplit(service.url).port
    assert port
    return port


def who(line: Line) -> int:
    """The process that answers on `line`."""
    answer = line.ask()
    assert answer.status == 200, answer
    return int(json.loads(answer.body)["predictions"][0])


@dataclass
class Users:
    """Each asks on a connection that it keeps until it breaks, or on a new one each time. `lost` are the processes
    whose connection broke without an answer, 0 for a new one."""

    port: int
    kept: int = 16
    fresh: int = 4
    answers: Counter[int] = field(default_factory=Counter)
    lost: list[int] = field(default_factory=list)
    other: list[Any] = field(default_factory=list)
    stop: Event = field(default_factory=Event)

    def ask(self, kept: bool) -> None:
        line, process = None, 0
        while not self.stop.is_set():
            try:
                line = line or Line(self.port)
            except ConnectionRefusedError:  # it has ended
                return
            try:
                answer = line.ask()
            except (OSError, EOFError):
                self.lost.append(process)
                line, process = None, 0
                continue
            if answer.status == 200:
                process = int(json.loads(answer.body)["predictions"][0])
                self.answers[process] += 1
            else:
                self.other.append(answer)
            if answer.last or not kept:
                line.close()
                line, process = None, 0
        if line:
            line.close()

    @contextmanager
    def asking(self) -> Iterator[Users]:
        users = [Thread(target=self.ask, args=(number < self.kept,)) for number in range(self.kept + self.fresh)]
        for user in users:
            user.start()
        try:
            yield self
        finally:
            self.stop.set()
            for user in users:
                user.join(60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "bundle"
    made.mkdir()
    return write_bundle(made, code_step(made, "step", NAMES_ITS_PROCESS))


@pytest.fixture
def service(folder: Path) -> Iterator[Service]:
    with running(folder, MLPACKER_WORKERS="2") as started:
        yield started


class TestConnections:
    def test_sixteen_are_spread_evenly(self, service: Service) -> None:
        lines = [Line(port_of(service)) for _ in range(16)]
        shares = Counter(who(line) for line in lines)
        assert sorted(shares) == sorted(children(service.process.pid))
        assert list(shares.values()) == [8, 8]
        for each in lines:
            each.close()

    def test_who_has_fewer_gets_the_next(self, service: Service) -> None:
        lines = [Line(port_of(service)) for _ in range(16)]
        first = who(lines[0])
        for each in [each for each in lines if who(each) == first]:
            each.close()
            lines.remove(each)
        time.sleep(0.2)
        assert {who(Line(port_of(service))) for _ in range(8)} == {first}

    def test_what_a_stopped_worker_has_not_taken_goes_to_the_other_when_it_dies(self, service: Service) -> None:
        stopped, other = children(service.process.pid)
        os.kill(stopped, signal.SIGSTOP)
        lines = [Line(port_of(service)) for _ in range(16)]
        for each in lines:
            each.send()
        time.sleep(0.3)
        os.kill(stopped, signal.SIGKILL)
        answers = [json.loads(each.answer().body)["predictions"] for each in lines]
        assert answers == [[other]] * 16
        for each in lines:
            each.close()


def test_a_version_is_ready_when_it_is_so_in_all() -> None:
    ready, loading = ({"step": "a", "sha256": "1", "state": state} for state in ("READY", "LOADING"))
    other = {"step": "a", "sha256": "2", "state": "READY"}
    assert of_all([]) == []
    assert of_all([[ready], [ready]]) == [ready]
    assert of_all([[ready], [loading]]) == of_all([[loading], []]) == [loading]
    assert of_all([[ready, other], [ready]]) == [ready]


class TestTheWhole:
    def test_metrics_are_the_sum_whoever_is_asked(self, service: Service) -> None:
        lines = [Line(port_of(service)) for _ in range(4)]
        for _ in range(5):
            assert len({who(each) for each in lines}) == 2
        for _ in range(4):  # each time another worker
            assert metric(service, 'mlpacker_messages_in_total{queue="http"}') == 20
            assert metric(service, 'mlpacker_predict_seconds_count{step="step"}') == 20
            assert metric(service, "mlpacker_in_flight") == 0
            assert metric(service, "process_resident_memory_bytes") > 60 << 20, "of three processes"
        assert len({service.ask("/info").body for _ in range(4)}) == 1

    def test_is_ready_when_all_are(self, folder: Path) -> None:
        waiting = folder / "worker-1.wait"
        waiting.touch()
        service = start(folder, MLPACKER_WORKERS="2")
        try:
            wait_for(lambda: "#0: ready" in service.log.read_text(), 60, "the first is")
            time.sleep(0.3)
            assert service.ask("/readyz").json == {"ready": False, "reason": "worker 1: loading"}
            assert service.ask("/v2/health/ready").status == 503
            assert service.ask("/v2/models/step/ready").status == 503
            assert service.ask("/ping").status == 503
            assert service.predict([1]).status == 200
            waiting.unlink()
            wait_for(service.ready, 60, "all are")
            assert {service.ask("/v2/health/ready").status for _ in range(4)} == {200}
            assert service.ask("/info").json["workers"] == 2
        finally:
            end(service)

    def test_ends_with_code_1_when_one_cannot_be_loaded(self, folder: Path) -> None:
        (folder / "worker-1.bad").touch()
        service = start(folder, MLPACKER_WORKERS="2")
        assert service.process.wait(60) == 1
        log = service.log.read_text()
        assert "this worker cannot load" in log
        assert "worker 1 ended with code 1 before the unit was ready" in log
        assert "#0: stopped in order" in log

    def test_leaves_nothing_behind(self, folder: Path) -> None:
        with running(folder, MLPACKER_WORKERS="2") as service:
            state = folder / ".mlpacker-state"
            assert [path.name for path in state.glob("metrics.*")] == [f"metrics.{service.process.pid}"]
            (state / "metrics.999999999").mkdir()
        assert service.process.returncode == 0
        with running(folder, MLPACKER_WORKERS="2"):
            assert len(list(state.glob("metrics.*"))) == 1
        assert not list(state.glob("metrics.*"))

    def test_check_needs_no_workers(self, folder: Path) -> None:
        argv = [sys.executable, "service.py", "--check"]
        environment = {**os.environ, "MLPACKER_WORKERS": "2"}
        done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "ok: 1 steps loaded, 0 golden requests answered\n")


class TestDeath:
    def test_takes_only_what_the_worker_had_in_hand(self, service: Service) -> None:
        killed, other = children(service.process.pid)
        users = Users(port_of(service))
        with users.asking():
            wait_for(lambda: users.answers[killed] > 200, what="both answer")
            os.kill(killed, signal.SIGKILL)
            wait_for(lambda: len(users.answers) == 3, 20, "another one answers")
            new = next(iter(users.answers.keys() - {killed, other}))
            wait_for(lambda: users.answers[new] > 200, 20, "it has its share")
        assert not users.other
        assert set(users.lost) <= {killed, 0}, "nobody who was at the other one"
        assert users.lost.count(killed) <= 10, "those who were there, one request each"
        assert users.lost.count(0) <= 4, "of new connections those that it was just answering"
        wait_for(service.ready, what="all of it is ready again")
        assert metric(service, 'mlpacker_worker_deaths_total{worker="0"}') == 1
        assert metric(service, "mlpacker_in_flight") == 0
        assert metric(service, 'mlpacker_messages_in_total{queue="http"}') >= users.answers.total()
        assert "worker 0 ended with code -9" in service.log.read_text()

    def test_of_the_parent_is_that_of_all(self, service: Service) -> None:
        workers = children(service.process.pid)
        os.kill(workers[0], signal.SIGSTOP)
        service.process.kill()
        service.process.wait()
        wait_for(lambda: not any(map(alive, workers)), 5, "none is left")

    def test_of_one_again_and_again_is_followed_by_longer_pauses(self, service: Service) -> None:
        for _ in range(3):
            before = children(service.process.pid)
            os.kill(before[-1], signal.SIGKILL)
            wait_for(lambda before=before: len(found := children(service.process.pid)) == 2 and found != before, 20)  # type: ignore[misc]
            wait_for(service.ready, 20)
        log = service.log.read_text()
        assert [f"starts again in {pause:.2f} s" in log for pause in (0.5, 1.0, 2.0)] == [True] * 3


class TestEnd:
    def test_loses_no_request_of_sixteen_users(self, service: Service) -> None:
        users = Users(port_of(service), fresh=0)
        with users.asking():
            wait_for(lambda: users.answers.total() > 1000, what="they ask")
            assert service.stop() == 0
        assert (users.lost, users.other) == ([], [])
        assert service.log.read_text().count("stopped in order") == 3

    def test_waits_for_what_is_in_hand(self, service: Service, folder: Path) -> None:
        slow = Line(port_of(service))
        body = b'{"data":["slow"]}'
        head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        slow.connection.sendall(head % len(body) + body)
        (mark,) = wait_for(lambda: list(folder.glob("*.slow")), what="it is in the handler")
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert service.process.poll() is None
        mark.unlink()
        assert slow.answer().status == 200
        assert service.process.wait(30) == 0

    def test_of_one_worker_by_hand_loses_nothing(self, service: Service) -> None:
        one, _other = children(service.process.pid)
        users = Users(port_of(service))
        with users.asking():
            wait_for(lambda: users.answers[one] > 200, what="both answer")
            os.kill(one, signal.SIGTERM)
            wait_for(lambda: len(users.answers) == 3, 20, "another one answers")
        assert (users.lost, users.other) == ([], [])


class TestSwap:
    def test_reaches_every_worker_and_fails_no_request(self, tmp_path: Path) -> None:
        marks = {0: bundle(tmp_path)}
        deployer = Deployer(tmp_path / ".mlpacker-state", tmp_path / "new")
        with running(tmp_path, MLPACKER_WORKERS="2") as service, asked(service) as load:
            for number in range(1, 6):
                time.sleep(0.5)
                staged = deployer.stage(line(number))
                marks[number] = staged["sha256"]
                wish = deployer.want(staged)
                assert [deployer.answer(wish, replica=worker)["state"] for worker in (0, 1)] == ["live"] * 2
                live = time.monotonic()
                time.sleep(0.3)
                late = {version for version, _, asked_at, _ in load.answers if asked_at > live}
                assert late == {number}, "none answers with the former one"
                models = [{"step": "model", "version": marks[number][:12], "sha256": marks[number]}]
                wait_for(lambda models=models: service.ask("/info").json["models"] == models, 2, "all say so")  # type: ignore[misc]
            text = service.ask("/metrics").body.decode()
            assert [row for row in text.splitlines() if row.startswith("mlpacker_model{")] == [
                f'mlpacker_model{{sha256="{marks[5]}",step="model",version="{marks[5][:12]}"}} 1.0'
            ]
        assert not load.wrong, load.wrong[:5]
        assert {(version, header) for version, header, _, _ in load.answers} == {
            (number, f"model={sha256[:12]}") for number, sha256 in marks.items()
        }

    def test_that_is_refused_is_refused_by_all(self, tmp_path: Path) -> None:
        own = bundle(tmp_path)
        deployer = Deployer(tmp_path / ".mlpacker-state", tmp_path / "new")
        with running(tmp_path, MLPACKER_WORKERS="2") as service:
            assert service.predict([[1]]).status == 200  # of two workers one can compare, the other agrees
            wish = deployer.want(deployer.stage(line(1, features=2)))
            assert [deployer.answer(wish, replica=worker)["state"] for worker in (0, 1)] == ["refused"] * 2
            assert [service.predict([[1]]).json for _ in range(4)] == [{"predictions": [1]}] * 4

            def rows() -> list[tuple[str, str]]:
                info = service.ask("/info").json
                assert [model["sha256"] for model in info["models"]] == [own]
                return [(row["state"], row["label"]) for row in info["versions"]]

            wait_for(lambda: rows() == [("READY", "stable"), ("UNAVAILABLE", "stable")], 3, "the versions of all")

    def test_is_what_a_new_worker_has_too(self, tmp_path: Path) -> None:
        bundle(tmp_path)
        deployer = Deployer(tmp_path / ".mlpacker-state", tmp_path / "new")
        with running(tmp_path, MLPACKER_WORKERS="2") as service:
            wish = deployer.want(deployer.stage(line(1)))
            assert [deployer.answer(wish, replica=worker)["state"] for worker in (0, 1)] == ["live"] * 2
            os.kill(children(service.process.pid)[0], signal.SIGKILL)
            wait_for(lambda: "ended with code -9" in service.log.read_text())
            wait_for(service.ready, 30)
            assert [service.predict([[1]]).json for _ in range(4)] == [{"predictions": [1 + APART]}] * 4


class TestUnderBentoML:
    def test_workers_share_port_metrics_and_swaps(self, tmp_path: Path) -> None:
        bundle(tmp_path)
        deployer = Deployer(tmp_path / ".mlpacker-state", tmp_path / "new")
        with running(tmp_path, "bentoml", MLPACKER_WORKERS="2") as service:
            wait_for(
                lambda: service.log.read_text().count(": ready") == 2, 60, "/readyz tells of the one that is asked"
            )
            wish = deployer.want(deployer.stage(line(1)))
            assert [deployer.answer(wish, replica=worker)["state"] for worker in (0, 1)] == ["live"] * 2
            assert [service.predict([[1]]).json for _ in range(20)] == [{"predictions": [1 + APART]}] * 20
            assert {metric(service, 'mlpacker_messages_in_total{queue="http"}') for _ in range(10)} == {20}
            assert metric(service, 'mlpacker_swaps_total{result="live",step="model"}') == 2


class TestDoor:
    def test_is_handed_from_two_workers_to_two_and_back_without_a_loss(self, tmp_path: Path) -> None:
        with ExitStack() as stack:
            house = House(tmp_path, stack, MLPACKER_WORKERS="2")
            units = house.ready("r1", "r2")
            house.switch("r1")
            with Asking(house.port, kept=8, fresh=4) as users:
                for number in range(10):
                    release = ("r2", "r1")[number % 2]
                    house.switch(release)
                    before = users.of(release)
                    wait_for(lambda r=release, b=before: users.of(r) > b + 50, what=f"{release} answers")  # type: ignore[misc]
                assert units[1].stop() == 0
                before = users.of("r1")
                wait_for(lambda: users.of("r1") > before + 50, what="r1 answers alone")
            assert (users.lost, users.mixed) == ([], [])
            assert {status for _, status, _ in users.answers} == {200}
            for unit in units[:1]:
                files = Path(f"/proc/{unit.process.pid}/fd")
                wait_for(lambda files=files: len(list(files.iterdir())) < 30, what="few files")  # type: ignore[misc]

    def test_is_not_taken_before_all_workers_are_ready(self, tmp_path: Path) -> None:
        with ExitStack() as stack:
            house = House(tmp_path, stack, MLPACKER_WORKERS="2")
            (house.bundle / "loading-r1").touch()
            house.begin("r1")
            wait_for(lambda: "r1" in house.status()["waiting"], 60, "r1 is at the door")
            assert house.ask("switch", "r1") == {"error": "release r1 is not ready: loading"}
            (house.bundle / "loading-r1").unlink()
            wait_for(lambda: not house.status()["reasons"], 60, "r1 is ready")
            house.switch("r1")
            assert house.once().release == "r1"
