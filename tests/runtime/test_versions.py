"""Several versions of a model in one running unit: beside each other, in all its processes, and in the shadow."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from packer_lib.runtime import loading, wanted
from packer_lib.runtime import swap as swaps
from packer_lib.runtime.chain import Chain
from packer_lib.runtime.contract import MODEL
from packer_lib.runtime.frameworks.scikit_learn import ScikitLearn
from packer_lib.runtime.manifest import Manifest, StepSpec
from packer_lib.runtime.model_step import ModelStep
from packer_lib.runtime.shadow import SAMPLES, WAITING, Shadow
from packer_lib.runtime.swap import Swaps
from packer_lib.runtime.wanted import NoVersion, Staged, Wanted
from tests.runtime.handmade import Service, model_step, running, write_bundle
from tests.runtime.swapping import APART, Deployer, digest, line
from tests.support import wait_for


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaps, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(loading, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(loading, "MISSING_SECONDS", 0.05)
    monkeypatch.setattr(loading, "PAUSES", (0.01,))


class Unit:
    """A chain of one model, number 0, whose process `replica` of `of` runs batches whenever it is offered a change."""

    def __init__(self, folder: Path, spec: StepSpec, replica: int = 0, of: int = 1) -> None:
        self.chain = Chain(Manifest("plant", "model", "api", (spec,)), folder)
        self.stopped, self.offered = Event(), Event()
        self.swaps = Swaps(self.chain, folder / "state", replica, lambda: None, self.offered.set, of)
        self.thread = Thread(target=self._run)

    def _run(self) -> None:
        while not self.stopped.is_set():
            self.offered.wait(0.01)
            self.swaps.apply()

    @contextmanager
    def runs(self) -> Iterator[None]:
        self.swaps.load()
        self.swaps.start()
        self.thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            self.thread.join()
            self.swaps.close()

    def ask(self, version: str = "", step: str = "") -> float:
        instead = self.swaps.now.instead(version, step) if version else {}
        (outcome,) = self.chain.run([[1.0]], instead=instead)
        assert outcome.error is None, outcome.error
        return float(outcome.values[0])

    def rows(self) -> list[tuple[int, str, str]]:
        return [(each["number"], each["label"], each["state"]) for each in self.swaps.described()["versions"]]


@pytest.fixture
def spec(tmp_path: Path) -> StepSpec:
    made = model_step(tmp_path, line(0))
    return replace(made, sha256=digest(tmp_path / made.path))


@pytest.fixture
def store(tmp_path: Path, spec: StepSpec) -> Store:
    return Store(tmp_path, spec)


class Store:
    """The state folder of a unit, changed by the functions of `wanted`."""

    def __init__(self, folder: Path, spec: StepSpec) -> None:
        self.deployer = Deployer(folder / "state", folder / "new")
        self.own = Staged("", spec.sha256, spec.serializer, wanted.FIRST)
        self.want, self.count = Wanted(), 0

    def staged(self, model: Any, **how: Any) -> Staged:
        return Staged(**self.deployer.stage(model, **how))

    def put(self, want: Wanted, replica: int = 0) -> dict[str, Any]:
        """What process `replica` says to it."""
        self.count += 1
        self.want = replace(want, id=f"wish-{self.count}")
        wanted.write(self.deployer.state / "wanted.json", self.want.to_json())
        return self.deployer.answer(self.want.id, replica=replica)


def test_a_candidate_answers_who_names_it_and_nobody_else_until_it_is_promoted(
    tmp_path: Path, spec: StepSpec, store: Store
) -> None:
    unit = Unit(tmp_path, spec)
    with unit.runs():
        candidate = store.staged(line(2))
        assert store.put(wanted.stage(store.want, "model", candidate))["models"] == {"model": spec.sha256}
        assert unit.ask() == 1
        assert {unit.ask(name) for name in ("candidate", "2", candidate.sha256[:12])} == {1 + 2 * APART}
        assert {unit.ask(name) for name in ("stable", "1", spec.sha256)} == {1}
        assert unit.rows() == [(1, "stable", "READY"), (2, "candidate", "READY")]
        loaded = unit.swaps.now.candidate("model")
        told = store.put(wanted.promote(store.want, "model", store.own))
        assert told["models"] == {"model": candidate.sha256}
        assert unit.swaps.now.live["model"] is loaded, "what is loaded is not loaded again"
        assert unit.ask() == 1 + 2 * APART
        with pytest.raises(NoVersion):
            unit.ask("1")


def test_a_policy_keeps_former_versions_and_what_it_does_not_keep_is_freed(
    tmp_path: Path, spec: StepSpec, store: Store
) -> None:
    unit = Unit(tmp_path, spec)
    with unit.runs():
        first = unit.swaps.now.live["model"]
        for number in (1, 2):
            store.put(wanted.swap(store.want, "model", store.own, store.staged(line(number)), {"latest": 2}))
        assert unit.rows() == [(3, "stable", "READY"), (2, "", "READY")]
        assert (unit.ask(), unit.ask("2")) == (1 + 2 * APART, 1 + APART)
        with pytest.raises(RuntimeError, match="not loaded"):
            first.run([[1.0]])
        store.put(wanted.promote(store.want, "model", store.own, {"latest": 2}, "2"))
        assert (unit.ask(), unit.ask("3")) == (1 + APART, 1 + 2 * APART)


def test_a_candidate_that_is_no_good_is_refused_and_its_reason_is_kept_until_something_else_is_loaded(
    tmp_path: Path, spec: StepSpec, store: Store
) -> None:
    unit = Unit(tmp_path, spec)
    with unit.runs():
        told = store.put(wanted.stage(store.want, "model", store.staged(line(1), cut=50)))
        assert told["state"] == "refused"
        store.put(Wanted())  # as a deployer does then
        assert unit.rows() == [(1, "stable", "READY"), (2, "candidate", "UNAVAILABLE")]
        assert "cannot be read by joblib" in unit.swaps.described()["versions"][1]["reason"]
        store.put(wanted.swap(Wanted(), "model", store.own, store.staged(line(2))))
        assert unit.rows() == [(2, "stable", "READY")]


def test_a_process_that_starts_does_without_a_candidate_that_is_no_good(
    tmp_path: Path, spec: StepSpec, store: Store
) -> None:
    want = wanted.swap(store.want, "model", store.own, store.staged(line(1)))
    want = wanted.shadow(wanted.stage(want, "model", store.staged(line(2), cut=50)), "model", 1.0)
    wanted.write(tmp_path / "state" / "wanted.json", replace(want, id="x").to_json())
    unit = Unit(tmp_path, spec)
    with unit.runs():
        assert unit.ask() == 1 + APART
        assert unit.rows() == [(2, "stable", "READY"), (3, "candidate", "UNAVAILABLE")]
        told = wanted.told(tmp_path / "state", 0)
        assert (told["state"], "cannot be read" in told["reason"]) == ("live", True)


def test_what_is_unloaded_is_in_no_memory_until_it_is_loaded_again(
    tmp_path: Path, spec: StepSpec, store: Store
) -> None:
    unit = Unit(tmp_path, spec)
    with unit.runs():
        before = unit.swaps.now.live["model"]
        store.put(wanted.unload(store.want, "model"))
        assert (unit.swaps.now.unloaded(), unit.rows()) == ("unloaded: model", [(1, "stable", "UNAVAILABLE")])
        with pytest.raises(RuntimeError, match="not loaded"):
            before.run([[1.0]])
        store.put(wanted.load(store.want, "model"))
        assert (unit.swaps.now.unloaded(), unit.ask()) == ("", 1)


def test_a_load_that_fails_by_something_that_passes_is_tried_again(
    tmp_path: Path, spec: StepSpec, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit, loads = Unit(tmp_path, spec), []
    load = ScikitLearn.load_model

    def failing(self: ScikitLearn, path: str) -> None:
        loads.append(path)
        if len(loads) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        load(self, path)

    with unit.runs():
        monkeypatch.setattr(ScikitLearn, "load_model", failing)
        assert store.put(wanted.swap(store.want, "model", store.own, store.staged(line(1))))["state"] == "live"
    assert len(loads) == 2


def test_processes_of_one_unit_switch_when_all_have_loaded_it_and_not_before(
    tmp_path: Path, spec: StepSpec, store: Store
) -> None:
    units = [Unit(tmp_path, spec, number, 2) for number in range(2)]
    with units[0].runs():
        want = replace(wanted.swap(store.want, "model", store.own, store.staged(line(1))), id="both")
        wanted.write(tmp_path / "state" / "wanted.json", want.to_json())
        wait_for(lambda: wanted.told(tmp_path / "state", 0).get("state") == "ready", 10, "the first is ready")
        assert units[0].ask() == 1
        with units[1].runs():
            assert [store.deployer.answer("both", replica=number)["state"] for number in range(2)] == ["live"] * 2
            assert [unit.ask() for unit in units] == [1 + APART] * 2


def test_what_one_process_refuses_none_has(
    tmp_path: Path, spec: StepSpec, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = [Unit(tmp_path, spec, number, 2) for number in range(2)]
    model = store.staged(line(1))

    def full(_spec: StepSpec, _folder: Path) -> ModelStep:
        raise MemoryError("no room for it")

    with ExitStack() as stack:
        for unit in units:
            stack.enter_context(unit.runs())
        monkeypatch.setattr(units[1].swaps._loader, "_load_once", full)
        assert store.put(wanted.swap(store.want, "model", store.own, model))["state"] == "refused"
        reasons = [store.deployer.answer(store.want.id, replica=number)["reason"] for number in range(2)]
        assert [unit.ask() for unit in units] == [1, 1]
    assert reasons[1] == "step 'model': MemoryError: no room for it"
    assert reasons[0] == f"process 1 refuses it: {reasons[1]}"


def test_a_process_that_starts_has_nothing_that_another_one_refused(
    tmp_path: Path, spec: StepSpec, store: Store
) -> None:
    want = replace(wanted.swap(store.want, "model", store.own, store.staged(line(1))), id="both")
    wanted.write(tmp_path / "state" / "wanted.json", want.to_json())
    wanted.write(tmp_path / "state" / "swapped.1.json", '{"id": "both", "state": "refused", "reason": "no room"}')
    unit = Unit(tmp_path, spec, 0, 2)
    with unit.runs():
        assert unit.ask() == 1
        assert store.deployer.answer("both")["reason"] == "process 1 refuses it: no room"


# ── in the shadow ────────────────────────────────────────────────────────────────────────────────────────────────────


def loaded(folder: Path, number: int, **how: Any) -> ModelStep:
    step = ModelStep(model_step(folder / f"m{number}", line(number, **how)), folder / f"m{number}")
    step.load()
    return step


def compared(shadow: Shadow) -> int:
    said = shadow.report()["model"]
    return int(said["same"] + said["different"] + said["failed"])


def test_a_shadow_counts_and_keeps_what_a_candidate_answers_otherwise(tmp_path: Path) -> None:
    stable, same = loaded(tmp_path, 0), loaded(tmp_path / "same", 0)
    shadow = Shadow()
    shadow.watch({"model": (same, 1.0)})
    values = [[float(number)] for number in range(40)]
    shadow.offer(stable, values, stable.run(values))
    wait_for(lambda: compared(shadow) == 40, 10, "40 are compared")
    assert shadow.report()["model"]["same"] == 40
    shadow.watch({"model": (loaded(tmp_path, 3), 1.0)})
    shadow.offer(stable, values, stable.run(values))
    wait_for(lambda: compared(shadow) == 40, 10, "40 are compared")
    said = shadow.report()["model"]
    assert (said["different"], len(said["samples"])) == (40, SAMPLES)
    assert said["samples"][-1]["instance"] == "[39.0]"
    assert "expected 39.0, got 3000039.0" in said["samples"][-1]["difference"]
    shadow.close()


def test_a_shadow_takes_its_share_and_drops_what_it_cannot_keep_up_with(tmp_path: Path) -> None:
    stable, chances = loaded(tmp_path, 0), iter([0.2, 0.8] * 5)
    shadow = Shadow(lambda: next(chances))
    shadow.watch({"model": (loaded(tmp_path, 1), 0.5)})
    values = [[float(number)] for number in range(10)]
    shadow.offer(stable, values, stable.run(values))
    wait_for(lambda: compared(shadow) == 5, 10, "five are compared")
    shadow = Shadow(lambda: 0.0)
    shadow._thread = Thread()  # type: ignore[assignment]  # one that does nothing
    shadow.watch({"model": (loaded(tmp_path / "x", 1), 1.0)})
    values = [[float(number)] for number in range(100)]
    results = stable.run(values)
    for _ in range(WAITING // 50):
        shadow.offer(stable, values, results)
    assert shadow._waiting <= WAITING
    assert shadow.report()["model"]["dropped"] == WAITING // 50 * 100 - shadow._waiting


# ── over HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_versions_are_called_and_listed_over_http(tmp_path: Path, spec: StepSpec) -> None:
    write_bundle(tmp_path, spec)
    store = Store(tmp_path, spec)
    with running(tmp_path, MLPACKER_STATE=str(tmp_path / "state")) as service:
        candidate = store.staged(line(1))
        store.put(wanted.shadow(wanted.stage(store.want, "model", candidate), "model", 1.0))
        assert predicted(service, "/predict") == (1, spec.sha256[:12])
        assert predicted(service, "/predict?version=candidate") == (1 + APART, candidate.sha256[:12])
        assert predicted(service, "/predict?step=model&version=2") == (1 + APART, candidate.sha256[:12])
        assert service.ask("/predict?version=7", b'{"data": [[1]]}').status == 404
        for version in ("2", "candidate", candidate.sha256[:12]):
            answer = service.ask(f"/v2/models/model/versions/{version}/infer", TENSOR)
            assert (answer.json["model_version"], answer.json["outputs"][0]["data"]) == (
                candidate.sha256[:12],
                [1 + APART],
            )
        answer = service.ask("/v2/models/plant/versions/candidate/infer", TENSOR)
        assert answer.json["outputs"][0]["data"] == [1 + APART]
        assert service.ask("/v2/models/model").json["versions"] == [spec.sha256[:12], candidate.sha256[:12]]
        assert [
            (each["version"], each["label"], each["state"])
            for each in service.ask("/v2/repository/index", b"{}").json
            if each["name"] == "model"
        ] == [(spec.sha256[:12], "stable", "READY"), (candidate.sha256[:12], "candidate", "READY")]
        wait_for(
            lambda: 'mlpacker_shadow_total{result="different",step="model"}' in service.ask("/metrics").body.decode(),
            10,
            "the candidate was tried",
        )
        store.put(wanted.unload(store.want, "model"))
        answer = service.ask("/predict", b'{"data": [[1]]}')
        assert (answer.status, answer.json) == (503, {"error": "not ready: unloaded: model"})
        assert not service.ready()
        store.put(wanted.load(store.want, "model"))
        assert predicted(service, "/predict") == (1, spec.sha256[:12])


TENSOR = json.dumps({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [1]}]}).encode()


def predicted(service: Service, path: str) -> tuple[float, str]:
    """The answer, and the version that its header names."""
    answer = service.ask(path, b'{"data": [[1]]}')
    assert answer.status == 200, answer.body
    return answer.json["predictions"][0], answer.headers[MODEL].removeprefix("model=")
