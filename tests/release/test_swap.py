"""The deployer's side of a swap: what it asks for, what it waits for, and what it takes back. Replicas are threads here
that answer in the state folder as processes do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from packer_lib import kept
from packer_lib.artefacts import fetch_another
from packer_lib.errors import BuildFailed, DeployFailed, PolicyRefused, RollbackFailed
from packer_lib.hosts.layout import Layout
from packer_lib.hosts.local import LocalHost
from packer_lib.padl.model import Step
from packer_lib.plan import Plan, Unit
from packer_lib.release import models
from packer_lib.release.forms import Launch
from packer_lib.release.model import Release
from packer_lib.release.models import Place
from packer_lib.release.swap import NotSwappable
from packer_lib.runtime.wanted import CANDIDATE, Staged, Wanted
from packer_lib.settings import Settings
from tests.bundle.golden import MODELS
from tests.support import beside

swap = sys.modules["packer_lib.release.swap"]  # the package has the function of that name
Answer = Callable[[int, dict[str, Any]], str]  # replica, wanted → why it refuses it, or ""
MODEL = Step("model", "model", "./model.joblib", framework="scikit-learn", serializer="joblib")
OWN = Release("plant", "model", "abc", "b", "l", "stream", "127.0.0.1", 1, (("model", "old"),), own=(("model", "old"),))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", ready_timeout=5)


@pytest.fixture
def place(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(models, "LOOK_EVERY", 0.01)
    return Place(LocalHost(settings), OWN, 2)


@pytest.fixture
def launched(place: Place) -> None:
    """Its release is on record as one of two workers."""
    file = Path(Layout(place.host.home).history("plant", "model", "abc"), "launch.json")
    file.parent.mkdir(parents=True)
    file.write_text(Launch(env={"MLPACKER_WORKERS": "2"}).to_json())


@contextmanager
def replicas(place: Place, answer: Answer) -> Iterator[None]:
    folder = Path(place.state)

    def answers(stop: Event) -> None:
        done = ""
        while not stop.wait(0.005):
            file = folder / "wanted.json"
            told = json.loads(file.read_text()) if file.exists() else {}
            if told.get("id", "") == done:
                continue
            done = told["id"]
            for number in range(place.processes):
                why = answer(number, told["models"])
                state = {"id": done, "state": "refused" if why else "live", "reason": why}
                (folder / f"new.{number}").write_text(json.dumps(state))
                (folder / f"new.{number}").replace(folder / f"swapped.{number}.json")

    with beside(answers):
        yield


def now(place: Place) -> Wanted:
    return models.read(place)


NEW = Staged("models/model/new/model.joblib", "new", "joblib", 2)
AFTER = Wanted(models={"model": NEW})


def bring(place: Place, settings: Settings) -> list[str]:
    said: list[str] = []
    models.bring(place, AFTER, settings, said.append)
    return said


def test_it_is_done_when_all_processes_have_it(place: Place, settings: Settings) -> None:
    with replicas(place, lambda number, models: ""):
        said = bring(place, settings)
    assert said[-1] == "plant.model: 2 of 2 processes answer with it"
    assert now(place).models == AFTER.models
    assert models.live(place) == {"model": "new"}


def test_what_one_refuses_is_taken_back_for_all(place: Place, settings: Settings) -> None:
    with (
        replicas(place, lambda number, models: "too large" if number == 1 and models else ""),
        pytest.raises(DeployFailed, match="process 1 refuses the model: too large") as caught,
    ):
        bring(place, settings)
    assert caught.value.exit_code == 7
    assert now(place).models == {}


def test_who_does_not_answer_is_named_and_what_was_wanted_before_is_wanted_again(
    place: Place, settings: Settings
) -> None:
    with pytest.raises(RollbackFailed, match=r"no answer of process 0, 1 in 0\.05 s") as caught:
        bring(place, replace(settings, ready_timeout=0.05))
    assert caught.value.exit_code == 8
    assert now(place).models == {}


UNIT = Unit("model", (MODEL,))


def test_a_deploy_takes_back_what_was_wanted_before_it_whatever_died_meanwhile(
    place: Place, settings: Settings, launched: None
) -> None:
    before = Wanted("x", {"model": NEW}, {"model": (replace(NEW, sha256="next", label=CANDIDATE, number=3),)})
    with replicas(place, lambda number, models: ""):
        models.bring(place, before, settings, lambda _: None)
        models.swap_unit(place, UNIT, settings, lambda _: None)
        assert models.live(place) == {"model": "old"}
        assert now(place).others == before.others, "a candidate stays one"
        models.swap_unit(place, UNIT, settings, lambda _: None)  # the deploy was killed, and is repeated
        models.take_back(place.host, place.release, alive=True, settings=settings)
    assert replace(now(place), id="x") == before
    assert not Path(place.state, "before.json").exists()


def test_a_unit_that_does_not_run_begins_with_what_is_wanted(place: Place, settings: Settings) -> None:
    put(place, "new")
    models.want_unit(replace(place, release=replace(OWN, models=(("model", "new"),))), UNIT)
    assert models.live(place) == {"model": "new"}
    assert now(place).models["model"].path == NEW.path
    models.take_back(place.host, place.release, alive=False, settings=settings)
    assert now(place) == Wanted()


def test_whoever_wrote_what_is_wanted_a_deploy_knows_it(place: Place, settings: Settings) -> None:
    assert models.has(place.host, OWN)
    Path(place.state).mkdir(parents=True, exist_ok=True)
    for text in (
        AFTER.to_json(),
        Wanted(unloaded=frozenset({"model"})).to_json(),
        "no JSON at all",
    ):
        Path(place.state, "wanted.json").write_text(text)
        assert not models.has(place.host, OWN), text


def test_a_model_that_is_gone_is_not_wanted(place: Place, settings: Settings) -> None:
    gone = replace(place, release=replace(OWN, models=(("model", "ab" * 32),)))
    with pytest.raises(DeployFailed, match="model abababababab of model is not there any more"):
        models.want_unit(gone, UNIT)


def test_models_go_that_nothing_wants_or_can_come_back_to(place: Place, settings: Settings) -> None:
    for name in ("old", "new", "next", "kept", "loose"):
        put(place, name)
    want = replace(AFTER, others={"model": (replace(NEW, sha256="next", label=CANDIDATE),)})
    Path(place.state, "wanted.json").write_text(want.to_json())
    plan = Plan("plant", "stream", "local", False, (UNIT,))
    for name in ("kept", "new"):
        live = replace(OWN, models=(("model", name),))
        kept.remember("plant", kept.generation(plan, [live]), settings)
    models.sweep(replace(place, release=replace(OWN, models=(("model", "new"),))), settings)
    assert sorted(path.name for path in Path(place.state, "models/model").iterdir()) == ["kept", "new", "next"]


def put(place: Place, name: str) -> None:
    folder = Path(place.state, "models/model", name)
    folder.mkdir(parents=True)
    (folder / "model.joblib").write_bytes(b"x")


def test_what_is_no_model_step_is_refused_with_what_there_is() -> None:
    steps = (MODEL, Step("clean", "code", "./clean"))
    stream = Plan("plant", "stream", "local", False, (Unit("model", steps),))
    assert swap._step(stream, "model")[1] is MODEL
    for name, text in (
        ("modle", "did you mean 'model'"),
        ("clean", "step 'clean' is code, which only a deploy changes"),
    ):
        with pytest.raises(NotSwappable) as caught:
            swap._step(stream, name)
        assert text in str(caught.value)


def test_a_model_of_another_serializer_of_its_framework_is_one_too(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan("plant", "stream", "local", False, (Unit("model", (MODEL,)),), file=str(tmp_path / "padl/plant.yaml"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for serializer in ("joblib", "skops", "h5"):
        (here / serializer).write_bytes(MODELS[serializer])
    assert [fetch_another(plan, MODEL, name, "", settings)[1] for name in ("joblib", "skops")] == ["joblib", "skops"]
    with pytest.raises(BuildFailed, match=r"is no joblib file: it looks like h5"):
        fetch_another(plan, MODEL, "h5", "", settings)
    with pytest.raises(BuildFailed, match="the model's sha256 is"):
        fetch_another(plan, MODEL, "joblib", "ab" * 32, settings)
    with pytest.raises(PolicyRefused, match="strict mode: the model can run code"):
        fetch_another(plan, MODEL, "joblib", "", replace(settings, strict=True))
    assert fetch_another(plan, MODEL, "skops", "", replace(settings, strict=True))[0].path.is_file()
    (tmp_path / "secret").write_bytes(MODELS["joblib"])
    with pytest.raises(PolicyRefused, match="outside the model roots"):
        fetch_another(plan, MODEL, str(tmp_path / "secret"), "", settings)
