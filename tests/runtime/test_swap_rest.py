"""New models for a REST unit that is asked all the time: no request fails, and each answer is of the model it names.

`MLPACKER_SWAPS=50 pytest -m slow` is the long version.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from urllib.parse import urlsplit

import pytest

from packer_lib.runtime.contract import MODEL
from tests.runtime.handmade import SERVERS, Service, end, model_step, running, start, write_bundle
from tests.runtime.swapping import APART, Deadly, Deployer, digest, line
from tests.support import wait_for

pytestmark = pytest.mark.slow

USERS = 4
PER_SECOND = 200


@dataclass
class Load:
    """`USERS` who ask `[n]` on kept connections, `PER_SECOND` in all. `answers`: model and header of each answer, and
    when it was asked and how long it took, in seconds."""

    service: Service
    answers: list[tuple[int, str, float, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stop: Event = field(default_factory=Event)

    def ask(self) -> None:
        connection, number = http.client.HTTPConnection(urlsplit(self.service.url).netloc, timeout=30), 0
        begun = time.monotonic()
        while not self.stop.wait(max(0.0, begun + number * USERS / PER_SECOND - time.monotonic())):
            number += 1
            asked = time.monotonic()
            body = json.dumps({"data": [[number], [number + 1]]})
            try:
                connection.request("POST", "/predict", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                found = answer.read()
                first, second = json.loads(found)["predictions"]
                version = round(first) // APART
                if (round(first), round(second)) != (number + version * APART, number + 1 + version * APART):
                    self.wrong.append(f"{number}: {found!r}")
                took = time.monotonic() - asked
                self.answers.append((version, answer.headers[MODEL], asked, took))
            except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
                self.wrong.append(f"{number}: {error!r}")
        connection.close()


@contextmanager
def asked(service: Service) -> Iterator[Load]:
    load = Load(service)
    users = [Thread(target=load.ask) for _ in range(USERS)]
    for user in users:
        user.start()
    try:
        yield load
    finally:
        load.stop.set()
        for user in users:
            user.join(60)


def bundle(folder: Path) -> str:
    """A unit of one model, number 0; its sha256."""
    spec = model_step(folder, line(0))
    spec = replace(spec, sha256=digest(folder / spec.path))
    write_bundle(folder, spec)
    return spec.sha256


def swapping(folder: Path, server: str, swaps: int) -> None:
    marks = {0: bundle(folder)}
    deployer = Deployer(folder / ".mlpacker-state", folder / "new")
    moments: list[tuple[float, float]] = []
    with running(folder, server) as service, asked(service) as load:
        time.sleep(2)
        for number in range(1, swaps + 1):
            if number % 3 == 0:
                assert deployer.swap(line(99), cut=90)["state"] == "refused"
            staged = deployer.stage(line(number))
            marks[number] = staged["sha256"]
            begun = time.monotonic()
            assert deployer.answer(deployer.want(staged))["state"] == "live"
            moments.append((begun, time.monotonic()))
            wait_for(lambda n=number: load.answers[-1][0] == n, 10, f"answers of model {number}")
            time.sleep(0.5)
        load.stop.set()
        assert service.ask("/info").json["models"][0]["sha256"] == marks[swaps]
    assert not load.wrong, load.wrong[:5]
    assert {(version, header) for version, header, _, _ in load.answers} == {
        (number, f"model={sha256[:12]}") for number, sha256 in marks.items()
    }
    tell(server, load, moments)


def tell(server: str, load: Load, moments: list[tuple[float, float]]) -> None:
    within = [took for _, _, asked, took in load.answers if any(a <= asked <= b for a, b in moments)]
    before = [took for _, _, asked, took in load.answers if asked < moments[0][0]]
    p99 = {name: sorted(some)[len(some) * 99 // 100] * 1000 for name, some in (("", before), ("swap", within)) if some}
    seconds = sorted(b - a for a, b in moments)
    live = f"live after {seconds[len(seconds) // 2]:.2f} s, at most {seconds[-1]:.2f} s"
    print(
        f"\n{server}: {len(moments)} swaps, {len(load.answers)} requests, 0 failed; p99 {p99['']:.1f} ms before, "
        f"{p99.get('swap', 0):.1f} ms during; {live}"
    )


@pytest.mark.parametrize("server", SERVERS)
def test_ten_swaps_under_load_fail_no_request(server: str, tmp_path: Path) -> None:
    swapping(tmp_path, server, 10)


@pytest.mark.slow
@pytest.mark.skipif("MLPACKER_SWAPS" not in os.environ, reason="long: make swaps")
@pytest.mark.timeout(600)
def test_many_swaps_under_load_fail_no_request(tmp_path: Path) -> None:
    swapping(tmp_path, "python", int(os.environ["MLPACKER_SWAPS"]))


def test_a_unit_that_comes_back_has_the_model_that_was_wanted(tmp_path: Path) -> None:
    bundle(tmp_path)
    deployer = Deployer(tmp_path / ".mlpacker-state", tmp_path / "new")
    with running(tmp_path) as first:
        assert deployer.swap(line(1))["state"] == "live"
        assert first.predict([[1]]).json == {"predictions": [1 + APART]}
    with running(tmp_path) as second:
        assert second.predict([[1]]).json == {"predictions": [1 + APART]}
        wish = deployer.want(None)
        assert deployer.answer(wish)["state"] == "live"
        assert second.predict([[1]]).json == {"predictions": [1]}


def test_a_model_of_another_shape_is_refused_and_the_old_one_answers(tmp_path: Path) -> None:
    own = bundle(tmp_path)
    deployer = Deployer(tmp_path / ".mlpacker-state", tmp_path / "new")
    with running(tmp_path) as service:
        assert service.predict([[1]]).status == 200
        told = deployer.swap(line(1, features=2))
        assert (told["state"], told["models"]) == ("refused", {"model": own})
        answer = service.predict([[1]])
        assert (answer.json, answer.headers[MODEL]) == ({"predictions": [1]}, f"model={own[:12]}")
        assert 'mlpacker_swaps_total{result="refused",step="model"} 1.0' in service.ask("/metrics").body.decode()


def test_a_model_that_kills_its_process_is_given_up(tmp_path: Path) -> None:
    bundle(tmp_path)
    deployer = Deployer(tmp_path / ".mlpacker-state", tmp_path / "new")
    with running(tmp_path) as service:
        wish = deployer.want(deployer.stage(Deadly()))
        assert service.process.wait(20) == 9
    for _ in range(2):
        dying = start(tmp_path)
        assert dying.process.wait(30) == 9
        end(dying)
    with running(tmp_path) as service:
        assert deployer.answer(wish)["state"] == "refused"
        assert service.predict([[1]]).json == {"predictions": [1]}
