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

from packer_lib.artefacts import fetch_another
from packer_lib.errors import BuildFailed, DeployFailed, PolicyRefused, RollbackFailed
from packer_lib.hosts.local import LocalHost
from packer_lib.padl.model import Step
from packer_lib.plan import Plan, Unit
from packer_lib.release.model import Release, parse
from packer_lib.release.records import Records
from packer_lib.release.scene import Place as Machine
from packer_lib.release.scene import Scene
from packer_lib.release.swap import NotSwappable
from packer_lib.settings import Settings
from tests.bundle.golden import MODELS
from tests.support import beside

swap = sys.modules["packer_lib.release.swap"]  # the package has the function of that name
Answer = Callable[[int, dict[str, Any]], str]  # replica, wanted → why it refuses it, or ""
MODEL = Step("model", "model", "./model.joblib", framework="scikit-learn", serializer="joblib")
RELEASE = Release("plant", "model", "abc", "b", "l", "stream", "127.0.0.1", 1, models=(("model", "old"),))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", ready_timeout=5)


@pytest.fixture
def place(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> swap.Place:
    monkeypatch.setattr(swap, "LOOK_EVERY", 0.01)
    return swap.Place(LocalHost(settings), RELEASE, 2)


@contextmanager
def replicas(place: swap.Place, answer: Answer) -> Iterator[None]:
    folder = Path(place.state)

    def answers(stop: Event) -> None:
        done = ""
        while not stop.wait(0.005):
            file = folder / "wanted.json"
            told = json.loads(file.read_text()) if file.exists() else {}
            if told.get("id", "") == done:
                continue
            done = told["id"]
            for number in range(place.replicas):
                why = answer(number, told["models"])
                state = {"id": done, "state": "refused" if why else "live", "reason": why}
                (folder / f"new.{number}").write_text(json.dumps(state))
                (folder / f"new.{number}").replace(folder / f"swapped.{number}.json")

    with beside(answers):
        yield


def wanted(place: swap.Place) -> dict[str, Any]:
    models: dict[str, Any] = json.loads(Path(place.state, "wanted.json").read_text())["models"]
    return models


BEFORE = {"id": "x", "models": {"model": {"sha256": "old"}}}
AFTER = {"model": {"sha256": "new"}}


def bring(place: swap.Place, settings: Settings) -> list[str]:
    said: list[str] = []
    swap._bring(place, BEFORE, AFTER, settings, said.append)
    return said


def test_it_is_done_when_all_replicas_have_it(place: swap.Place, settings: Settings) -> None:
    with replicas(place, lambda number, models: ""):
        said = bring(place, settings)
    assert said[-1] == "plant.model: 2 of 2 processes answer with it"
    assert wanted(place) == AFTER


def test_what_one_refuses_is_taken_back_for_all(place: swap.Place, settings: Settings) -> None:
    with (
        replicas(place, lambda number, models: "too large" if number == 1 and models == AFTER else ""),
        pytest.raises(DeployFailed, match="replica 1 refuses the model: too large") as caught,
    ):
        bring(place, settings)
    assert caught.value.exit_code == 7
    assert wanted(place) == BEFORE["models"]


def test_who_does_not_answer_is_named_and_what_was_wanted_before_is_wanted_again(
    place: swap.Place, settings: Settings
) -> None:
    with pytest.raises(RollbackFailed, match=r"no answer of replica 0, 1 in 0\.05 s") as caught:
        bring(place, replace(settings, ready_timeout=0.05))
    assert caught.value.exit_code == 8
    assert wanted(place) == BEFORE["models"]


def test_a_release_that_was_swapped_gets_its_own_models_back_and_is_put_on_record(
    place: swap.Place, settings: Settings
) -> None:
    swapped, own = replace(RELEASE, models=(("model", "new"),)), RELEASE
    found = Records({"model": swapped}, {"model": (swapped,)})
    scene = Scene(Plan("plant", "stream", "local", False, (Unit("model", (MODEL,)),)), {})
    scene.places[None] = Machine(place.host, found, ("native",))
    with replicas(place, lambda number, models: ""):
        swap.own_models(scene, [own], settings, lambda _: None)
    assert wanted(place) == {}
    home = Path(place.host.home, "releases/plant/model")
    for file in (home / "release.json", home / "history/abc/release.json"):
        assert parse(file.read_text()) == own
    swap.own_models(scene, [swapped], replace(settings, ready_timeout=0), lambda _: pytest.fail("nothing to do"))


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
