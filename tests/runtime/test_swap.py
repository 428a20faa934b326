"""New models for a unit that runs, on the memory connector: when they are taken, and when they are not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import pytest

from packer_lib.runtime import engine as engines
from packer_lib.runtime import loading, wanted
from packer_lib.runtime import swap as swaps
from packer_lib.runtime.connectors.memory import topic
from packer_lib.runtime.contract import MODEL, Message
from packer_lib.runtime.manifest import StepSpec
from packer_lib.runtime.swap import Swaps
from packer_lib.runtime.trial import EVERY, MOST, Recent, unlike
from tests.runtime.handmade import code_step, model_step
from tests.runtime.swapping import APART, Deployer, digest, line
from tests.runtime.test_engine import Unit, value_of
from tests.support import wait_for

DEAD = {"on_error": "dead_letter", "dead_letter": "dead"}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaps, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(loading, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(loading, "MISSING_SECONDS", 0.05)
    monkeypatch.setattr(engines, "IDLE_SECONDS", 0.01)


class Swapping(Unit):
    """A unit of one model, whose models a deployer changes."""

    def __init__(self, folder: Path, *before: StepSpec, **props: Any) -> None:
        self.folder, self.state_folder = folder, folder / "state"
        spec = model_step(folder, line(0), **{"inputs": ("in",), "outputs": ("out",), **props})
        self.own = digest(folder / spec.path)
        super().__init__(folder, *before, replace(spec, sha256=self.own))
        self.deployer = Deployer(self.state_folder, folder / "new")

    @contextmanager
    def running(self) -> Iterator[None]:
        self.swaps = Swaps(self.chain, self.state_folder)
        self.swaps.load()
        self.engine.between = self.swaps.apply
        self.swaps.start()
        try:
            with super().running():
                yield
        finally:
            self.swaps.close()

    def flow(self, *numbers: int) -> None:
        """These, one message each, and until they are done."""
        self.put("in", *([number] for number in numbers))
        wait_for(lambda: self.acked("in") == len(topic(self.queues["in"]).log))

    def versions(self) -> list[int]:
        """Which model answered, by the answers; each is the one that the header names."""
        made = {}
        for answer in topic(self.queues["out"]).log:
            number, mark = int(json.loads(answer.value)) // APART, answer.headers[MODEL].decode()
            assert made.setdefault(mark, number) == number
        return [int(value) // APART for value in self.got("out")]


@pytest.fixture
def unit(tmp_path: Path) -> Swapping:
    return Swapping(tmp_path)


def test_a_new_model_answers_from_the_next_batch_on(unit: Swapping) -> None:
    before = value_of("mlpacker_swaps_total", step="model", result="live")
    with unit.running():
        unit.flow(1, 2)
        told = unit.deployer.swap(line(7))
        unit.flow(3)
    assert (told["state"], told["reason"]) == ("live", "")
    assert unit.versions() == [0, 0, 7]
    new = told["models"]["model"]
    marks = [message.headers[MODEL] for message in topic(unit.queues["out"]).log]
    assert marks == [f"model={sha256[:12]}".encode() for sha256 in (unit.own, unit.own, new)]
    assert value_of("mlpacker_swaps_total", step="model", result="live") == before + 1
    assert value_of("mlpacker_model", step="model", version=new[:12], sha256=new) == 1
    assert value_of("mlpacker_model", step="model", version=unit.own[:12], sha256=unit.own) == 0


@pytest.mark.parametrize(
    ("model", "how", "reason"),
    [
        (line(7, features=2), {}, "it does not answer a message that came lately: expected (2,), got (1,)"),
        (line(7, outputs=2), {}, "its answers are not like those of the model that is live: a list, not a number"),
        (line(7), {"cut": 90}, "cannot be read by joblib"),
        (line(7), {"sha256": "ab" * 32}, "its sha256 is "),
        ("no model", {}, "holds str, which has no predict method"),
    ],
    ids=["input", "shape", "corrupt", "digest", "none"],
)
def test_a_model_that_cannot_be_used_is_refused_and_the_old_one_goes_on(
    unit: Swapping, model: Any, how: dict[str, Any], reason: str
) -> None:
    before = value_of("mlpacker_swaps_total", step="model", result="refused")
    with unit.running():
        unit.flow(1)
        told = unit.deployer.swap(model, **how)
        unit.flow(2)
    assert told["state"] == "refused"
    assert reason in told["reason"]
    assert told["models"] == {"model": unit.own}
    assert unit.versions() == [0, 0]
    assert value_of("mlpacker_swaps_total", step="model", result="refused") == before + 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"id": "wish", "models": {"mdel": {"path": "x", "sha256": "x"}}}', "no model step mdel in this unit"),
        ('{"id": "wish", "models": {"model": {"path": "../x", "sha256": "x"}}}', "leads out of the folder"),
        (
            '{"id": "wish", "models": {"model": {"path": "models/x", "sha256": "x"}}}',
            "models/x cannot be read: No such",
        ),
        ('{"id": "wi', "wanted.json is not what is written there"),
        ('{"id": "wish", "models": 3}', "wanted.json is not what is written there"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(unit: Swapping, text: str, reason: str) -> None:
    with unit.running():
        unit.state_folder.mkdir(exist_ok=True)
        (unit.state_folder / "wanted.json").write_text(text)
        answer = unit.state_folder / "swapped.0.json"
        wait_for(answer.exists)
        unit.flow(1)
    assert reason in json.loads(answer.read_text())["reason"]
    assert unit.versions() == [0]


def test_without_messages_the_golden_request_has_to_be_answered(tmp_path: Path) -> None:
    unit = Swapping(tmp_path, test={"input": [1.0], "output": 3})
    with unit.running():
        refused = [unit.deployer.swap(model) for model in (line(7, features=2), line(7, outputs=2))]
        taken = unit.deployer.swap(line(7))
    assert "it does not answer the golden request: expected (2,)" in refused[0]["reason"]
    assert "not like the one expected: a list, not a number" in refused[1]["reason"]
    assert taken["state"] == "live", "another number is what a new model is for"


def test_no_message_is_lost_doubled_or_answered_by_two_models_however_often_they_change(unit: Swapping) -> None:
    staged = [unit.deployer.stage(line(number)) for number in range(1, 6)]
    sent = 0
    with unit.running():
        for model in staged:
            wish = unit.deployer.want(model)
            for _ in range(5):  # nobody waits for these: the change is somewhere among them
                unit.put("in", *([sent + number] for number in range(50)))
                sent += 50
            unit.deployer.answer(wish)
            unit.flow(sent)
            sent += 1
    versions = unit.versions()
    assert [int(value) % APART for value in unit.got("out")] == list(range(sent))
    assert versions == sorted(versions)
    assert set(versions) >= {1, 2, 3, 4, 5}


def test_all_of_a_batch_is_answered_by_one_model_even_when_it_is_handled_in_parts(tmp_path: Path) -> None:
    """One message of each batch is refused by the model, so that it is halved until that one is alone."""
    unit = Swapping(tmp_path, max_batch=64, on_error="skip")
    batches: list[set[bytes]] = []
    run = unit.engine._batches.run

    def watched(queue: str, messages: Any) -> Any:
        result = run(queue, messages)
        batches.append({message.headers[MODEL] for message in result.out.get("out", ())})
        return result

    unit.engine._batches.run = watched  # type: ignore[method-assign]
    staged = [unit.deployer.stage(line(number)) for number in range(1, 4)]
    with unit.running():
        for model in staged:
            wish = unit.deployer.want(model)
            unit.put("in", *([1.0, 2.0] if number % 64 == 20 else [float(number)] for number in range(320)))
            unit.deployer.answer(wish)
        unit.flow(1)
    assert all(len(marks) == 1 for marks in batches)
    assert len(unit.got("out")) == 3 * 315 + 1


def test_what_is_wanted_is_what_a_process_begins_with(unit: Swapping, caplog: pytest.LogCaptureFixture) -> None:
    wish = unit.deployer.want(unit.deployer.stage(line(5)))
    with unit.running():
        unit.flow(1)
    assert unit.versions() == [5]
    assert unit.deployer.answer(wish)["state"] == "live"
    assert not (unit.state_folder / "trying.0.json").exists()


def test_a_process_that_cannot_load_what_is_wanted_begins_with_the_bundles_model_and_says_so(
    unit: Swapping, caplog: pytest.LogCaptureFixture
) -> None:
    wish = unit.deployer.want(unit.deployer.stage(line(5), cut=50))
    with unit.running():
        unit.flow(1)
    assert unit.versions() == [0]
    told = unit.deployer.answer(wish)
    assert (told["state"], told["models"]) == ("refused", {"model": unit.own})
    assert "what is wanted is not used, the models of the bundle are: step 'model'" in caplog.text


def test_a_model_that_processes_die_of_is_loaded_three_times_and_no_more(unit: Swapping) -> None:
    wish = unit.deployer.want(unit.deployer.stage(line(5)))
    wanted.write(unit.state_folder / "trying.0.json", json.dumps({"id": wish, "times": 3}))
    with unit.running():
        unit.flow(1)
    assert unit.versions() == [0]
    assert "the process died each of the 3 times" in unit.deployer.answer(wish)["reason"]


def test_a_wish_for_nothing_brings_the_bundles_model_back(unit: Swapping) -> None:
    with unit.running():
        unit.flow(1)
        unit.deployer.swap(line(3))
        unit.flow(2)
        told = unit.deployer.answer(unit.deployer.want(None))
        unit.flow(3)
    assert unit.versions() == [0, 3, 0]
    assert told["models"] == {"model": unit.own}


def test_a_dead_letter_names_the_model_that_failed(tmp_path: Path) -> None:
    unit = Swapping(tmp_path, **DEAD)
    unit.put("in", "text", [1])
    unit.run()
    (letter,) = topic(unit.queues["dead"]).log
    assert letter.headers["mlpacker-error-model"] == f"model={unit.own[:12]}".encode()


def test_the_header_names_all_models_of_the_way_after_what_came(tmp_path: Path) -> None:
    first = model_step(tmp_path, line(1), "first", inputs=("in",), outputs=("between",), sha256="")
    first = replace(first, sha256=digest(tmp_path / first.path))
    between = code_step(
        tmp_path, "between", "def handler(value):\n    return [value]\n", inputs=("first",), outputs=("model",)
    )
    unit = Swapping(tmp_path, first, between, inputs=("between",))
    own = f"first={first.sha256[:12]},model={unit.own[:12]}".encode()
    event = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/plant", "ce_type": b"reading"}
    unit.put(
        "in",
        *([1], Message(b"[1]", None, {MODEL: b"other=abc", "x": b"y"}), Message(b"[1]", None, {MODEL: b"o" * 1025})),
        Message(b"[1]", None, event),
    )
    unit.run()
    answers = topic(unit.queues["out"]).log
    assert [answer.headers[MODEL] for answer in answers] == [own, b"other=abc," + own, own, own]
    assert (answers[1].headers["x"], answers[3].headers["ce_type"]) == (b"y", b"reading")
    assert answers[3].headers["ce_mlpackermodel"] == own


@pytest.mark.parametrize(
    ("former", "new", "text"),
    [
        (1, 2.5, ""),
        (1, True, "a boolean, not a number"),
        ("a", None, "null, not a text"),
        ([1, 2], [1, 2, 3], "a list of 3, not of 2"),
        ([[1], [2]], [[1], ["x"]], "at [1][0]: a text, not a number"),
        ({"a": [1]}, {"a": [1]}, ""),
        ({"a": 1}, {"b": 1}, "an object of b, not of a"),
        ({"a": {"b": 1}}, {"a": {"b": "x"}}, "at a.b: a text, not a number"),
    ],
)
def test_answers_are_alike_by_shape_and_kind(former: Any, new: Any, text: str) -> None:
    assert unlike(former, new) == text


def test_of_each_second_a_few_copies_are_kept() -> None:
    recent = Recent()
    given = [[number] for number in range(5000)]
    recent.keep(given, [[number * 2] for number in range(5000)])
    given[0].append("changed by a later step")
    recent.keep([[-1]], [[-1]])
    kept = recent.read()
    assert 0 < len(kept) <= MOST
    assert kept[0] == ([0], [0])
    assert recent.size == 5000
    recent._next -= EVERY
    recent.keep([[-1]], [[-2]])
    assert recent.read()[-1] == ([-1], [-2])


def test_a_folders_digest_is_the_one_that_it_was_fetched_with(tmp_path: Path) -> None:
    from packer_lib.artefacts.fetch import digest_of

    for name in ("saved_model.pb", "variables/variables.index", "assets/b.txt", "assets.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "assets/b.txt").chmod(0o755)
    assert wanted.digest(tmp_path) == digest_of(tmp_path)
    joblib.dump(1, tmp_path / "x")
    assert wanted.digest(tmp_path / "x") == digest_of(tmp_path / "x")


def test_a_state_folder_that_is_not_there_costs_nothing_and_is_not_made(unit: Swapping) -> None:
    with unit.running():
        unit.flow(1)
    assert not unit.state_folder.exists()
    assert Counter(unit.versions()) == {0: 1}
