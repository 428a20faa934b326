"""Chains of steps on whole batches: neighbours, routes, golden requests, refusals."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.linear_model import LinearRegression

from packer_lib.runtime import manifest as manifests
from packer_lib.runtime.catalogue import FRAMEWORKS, Plugin
from packer_lib.runtime.chain import Chain, CheckFailed, check_command
from packer_lib.runtime.contract import BadInput, Framework, HandlerUnusable, ModelUnusable
from packer_lib.runtime.golden import difference
from packer_lib.runtime.manifest import Manifest, StepSpec
from packer_lib.runtime.model_step import ModelStep
from tests.runtime.handmade import code_step, model_step

ADD = "def handler(value):\n    return value + 1"
DOUBLE = LinearRegression().fit([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [2.0, 2.0, 4.0])  # 2a + 2b


@pytest.fixture(autouse=True)
def closed() -> Iterator[list[Chain]]:
    made: list[Chain] = []
    path = list(sys.path)
    yield made
    for chain in made:
        chain.close()
    sys.path[:] = path


@pytest.fixture
def chain_of(tmp_path: Path, closed: list[Chain]) -> Any:
    def make(*steps: StepSpec) -> Chain:
        manifest = manifests.parse(Manifest("plant", steps[0].name, "api", steps).to_json())
        chain = Chain(manifest, tmp_path)
        closed.append(chain)
        chain.load()
        return chain

    return make


def values(chain: Chain, given: Sequence[Any], queue: str = "") -> list[Any]:
    return [outcome.error or outcome.values for outcome in chain.run(given, queue)]


def test_steps_run_in_order_each_on_the_whole_batch(tmp_path: Path, chain_of: Any) -> None:
    batches: list[tuple[str, int]] = []
    first = code_step(tmp_path, "first", ADD, outputs=("second",))
    second = code_step(tmp_path, "second", "def handler(value):\n    return value * 10", inputs=("first",))
    chain = chain_of(first, second)
    chain._observe = lambda step, size, seconds: batches.append((step, size))
    assert values(chain, [1, 2, 3]) == [[20], [30], [40]]
    assert batches == [("first", 3), ("second", 3)]


def test_a_bad_value_fails_no_neighbour_in_any_step(tmp_path: Path, chain_of: Any) -> None:
    text = "def handler(value):\n    return [1.0, 1.0] if value == 1 else [value] if value == 2 else 1 / value"
    first = code_step(tmp_path, "first", text, outputs=("model",))
    chain = chain_of(first, model_step(tmp_path, DOUBLE, inputs=("first",)))
    good, unfit, raised, again = chain.run([1, 2, 0, 1])
    assert (good.values, again.values) == ([pytest.approx(4.0)], [pytest.approx(4.0)])
    assert (unfit.error.step, unfit.error.stage, unfit.error.reason) == ("model", "input", "expected (2,), got (1,)")
    assert (raised.error.step, raised.error.stage) == ("first", "handle")
    assert (raised.values, raised.outputs) == ([], [])


def test_dropped_values_and_generators_reach_the_model_as_one_batch(tmp_path: Path, chain_of: Any) -> None:
    first = code_step(
        tmp_path,
        "first",
        "def handler(value):\n    return None if value == 0 else ([float(n), 0.0] for n in range(value))",
        outputs=("model",),
    )
    chain = chain_of(first, model_step(tmp_path, DOUBLE, inputs=("first",)))
    none, two = values(chain, [0, 2])
    assert none == []
    assert two == pytest.approx([0.0, 2.0])


def test_a_value_that_became_many_fails_whole_when_one_of_them_fails(tmp_path: Path, chain_of: Any) -> None:
    first = code_step(tmp_path, "first", "def handler(value):\n    yield 1\n    yield 0", outputs=("second",))
    second = code_step(tmp_path, "second", "def handler(value):\n    return 1 / value", inputs=("first",))
    [outcome] = chain_of(first, second).run([5])
    assert outcome.error.step == "second"
    assert outcome.values == []


def test_a_model_gets_the_data_of_an_object_and_adds_its_prediction(tmp_path: Path, chain_of: Any) -> None:
    chain = chain_of(model_step(tmp_path, DOUBLE))
    given = {"data": [1, 2], "timestamp": 7}
    [[answer]] = values(chain, [given])
    assert answer == {"data": [1, 2], "timestamp": 7, "prediction": pytest.approx(6.0)}
    assert "prediction" not in given


def test_a_model_after_a_model_gets_the_prediction(tmp_path: Path, chain_of: Any) -> None:
    line = LinearRegression().fit([[1.0], [2.0]], [10.0, 20.0])
    first = model_step(tmp_path, DOUBLE, "first", outputs=("second",))
    chain = chain_of(first, model_step(tmp_path, line, "second", inputs=("first",)))
    [[plain], [carried]] = values(chain, [[1, 2], {"data": [1, 2]}])
    assert plain == pytest.approx(60.0)
    assert carried["prediction"] == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, 'expected a number, a list, or an object with "data"; got null'),
        ({"rows": 1}, "expected a number, a list, or an object with \"data\"; the object has 'rows'"),
        ([1, "x"], "could not convert string to float: 'x'"),
    ],
)
def test_what_a_model_cannot_take_is_the_senders(tmp_path: Path, chain_of: Any, value: Any, reason: str) -> None:
    good, bad = chain_of(model_step(tmp_path, DOUBLE)).run([[1, 1], value])
    assert good.values == [pytest.approx(4.0)]
    assert (bad.error.stage, bad.error.reason) == ("input", reason)


class Picky(Framework):
    """Refuses every batch that has a 13 in it, gives too few answers for a 14, and counts how often it is asked."""

    asked: list[int]

    def load_model(self, path: str) -> None:
        self.asked = []

    def get_model_result(self, batch: Sequence[Any]) -> list[Any]:
        self.asked.append(len(batch))
        if 13 in batch:
            raise RuntimeError("thirteen")
        return [value for value in batch if value != 14]


@pytest.fixture
def picky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStep:
    monkeypatch.setitem(FRAMEWORKS, "picky", Plugin("picky", "", (), ()))
    monkeypatch.setattr(Plugin, "load", lambda self: Picky)
    (tmp_path / "model").write_text("x")
    step = ModelStep(StepSpec("picky", "model", "model", framework="picky", max_batch=256), tmp_path)
    step.load()
    return step


def test_a_refused_batch_is_halved_until_the_bad_value_is_alone(picky: ModelStep) -> None:
    results = picky.run(range(256))
    assert [str(result) for result in results if not isinstance(result, list)] == [
        "step 'picky', predict: RuntimeError: thirteen",
        "step 'picky', predict: ValueError: the model gave 0 answers for 1 instances",
    ]
    assert results[12] == [12]
    assert len(picky._model.asked) < 40  # type: ignore[union-attr]


def test_a_model_is_never_asked_for_more_than_max_batch(picky: ModelStep) -> None:
    picky.run([1] * 600)
    assert picky._model.asked == [256, 256, 88]  # type: ignore[union-attr]


class TestRoutes:
    def test_a_value_goes_to_every_output(self, tmp_path: Path, chain_of: Any) -> None:
        chain = chain_of(code_step(tmp_path, "first", ADD, inputs=("in",), outputs=("left", "right")))
        [outcome] = chain.run([1], "in")
        assert list(zip(outcome.outputs, outcome.values, strict=True)) == [("left", 2), ("right", 2)]

    def test_a_queue_and_a_step_side_by_side_and_a_merge(self, tmp_path: Path, chain_of: Any) -> None:
        first = code_step(tmp_path, "first", ADD, inputs=("in",), outputs=("raw", "half", "last"))
        half = code_step(tmp_path, "half", "def handler(v):\n    return v / 2", inputs=("first",), outputs=("last",))
        last = code_step(tmp_path, "last", "def handler(v):\n    return -v", inputs=("first", "half"), outputs=("out",))
        outcomes = chain_of(first, half, last).run([1, 3], "in")
        pairs = [list(zip(outcome.outputs, outcome.values, strict=True)) for outcome in outcomes]
        assert pairs == [[("raw", 2), ("out", -2), ("out", -1)], [("raw", 4), ("out", -4), ("out", -2)]]

    def test_a_step_that_changes_its_input_changes_no_other_branch(self, tmp_path: Path, chain_of: Any) -> None:
        first = code_step(tmp_path, "first", "def handler(v):\n    return v", outputs=("out", "left", "right"))
        text = "def handler(v):\n    v['seen'].append(1)\n    return v"
        left = code_step(tmp_path, "left", text, inputs=("first",), outputs=("out",))
        right = code_step(tmp_path, "right", text, inputs=("first",), outputs=("out",))
        [outcome] = chain_of(first, left, right).run([{"seen": []}])
        assert outcome.values == [{"seen": []}, {"seen": [1]}, {"seen": [1]}]

    def test_each_queue_enters_at_the_steps_that_read_it(self, tmp_path: Path, chain_of: Any) -> None:
        first = code_step(tmp_path, "first", ADD, inputs=("a",), outputs=("second",))
        second = code_step(
            tmp_path, "second", "def handler(v):\n    return -v", inputs=("b", "first"), outputs=("out",)
        )
        chain = chain_of(first, second)
        assert values(chain, [1], "a") == [[-2]]
        assert values(chain, [1], "b") == [[-1]]


class TestGoldenRequests:
    def test_all_right(self, tmp_path: Path, chain_of: Any) -> None:
        test = {"input": [1, 2], "output": 6.00001}
        assert chain_of(model_step(tmp_path, DOUBLE, test=test)).check() == 1

    def test_what_was_expected_and_what_came_for_every_step(self, tmp_path: Path, chain_of: Any) -> None:
        first = code_step(tmp_path, "first", ADD, outputs=("second",), test={"input": 1, "output": 3})
        second = code_step(tmp_path, "second", "handler = lambda v: v / 0", inputs=("first",), test={"input": 1})
        with pytest.raises(CheckFailed) as raised:
            chain_of(first, second).check()
        assert str(raised.value).splitlines() == [
            "step 'first': golden request: expected 3, got 2",
            "step 'second': golden request: handle: ZeroDivisionError: division by zero (main.py:1)",
        ]

    def test_without_an_output_any_answer_will_do(self, tmp_path: Path, chain_of: Any) -> None:
        assert chain_of(code_step(tmp_path, "first", ADD, test={"input": 1, "output": None})).check() == 1

    @pytest.mark.parametrize(
        ("expected", "got", "text"),
        [
            (1, 1.00009, ""),
            (1000000, 1000001.0, ""),
            (1, 1.001, "expected 1, got 1.001"),
            (True, 1, "expected true, got 1"),
            ([1, [2, 3]], [1, [2, 4]], "at [1][1]: expected 3, got 4"),
            ([1], [1, 2], "expected 1 items, got 2"),
            ({"a": {"b": 1}}, {"a": {"b": 2}, "c": 3}, "at a.b: expected 1, got 2"),
            ({"a": 1}, {"a": 1, "c": 3}, ""),
            ({"a": 1, "b": 2}, {"a": 1}, "expected the keys a, b, b not there"),
            ("x", None, 'expected "x", got null'),
        ],
    )
    def test_what_counts_as_the_same(self, expected: Any, got: Any, text: str) -> None:
        assert difference(expected, got) == text

    def test_the_check_command_says_ok_or_why_not(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        good = code_step(tmp_path, "good", ADD, test={"input": 1, "output": 2})
        assert check_command(tmp_path, Manifest("plant", "good", "api", (good,))) == 0
        assert capsys.readouterr().out == "ok: 1 steps loaded, 1 golden requests answered\n"
        bad = replace(good, function="missing")
        assert check_command(tmp_path, Manifest("plant", "good", "api", (bad,))) == 1
        assert capsys.readouterr().out.startswith("check failed: step 'good': code/good/main.py has no function")


class TestUnusable:
    def refusal(self, folder: Path, spec: StepSpec) -> str:
        with pytest.raises((ModelUnusable, HandlerUnusable)) as raised:
            Chain(Manifest("plant", spec.name, "api", (spec,)), folder).load()
        return str(raised.value)

    def test_a_missing_model_file_says_what_is_there(self, tmp_path: Path) -> None:
        spec = replace(model_step(tmp_path, DOUBLE), path="models/model/modle.joblib")
        assert self.refusal(tmp_path, spec) == (
            "step 'model': models/model/modle.joblib: no such file; there is model.joblib in its folder"
            " (did you mean 'model.joblib'?)"
        )

    def test_another_file_than_the_one_in_padl(self, tmp_path: Path) -> None:
        spec = replace(model_step(tmp_path, DOUBLE), sha256="0" * 64)
        found = hashlib.sha256((tmp_path / spec.path).read_bytes()).hexdigest()
        assert f"sha256 is {found}, expected {'0' * 64}" in self.refusal(tmp_path, spec)

    def test_the_right_digest_in_capitals_or_with_its_name_is_right(self, tmp_path: Path, chain_of: Any) -> None:
        spec = model_step(tmp_path, DOUBLE)
        digest = hashlib.sha256((tmp_path / spec.path).read_bytes()).hexdigest()
        assert chain_of(replace(spec, sha256=f"sha256:{digest.upper()}")).steps

    def test_a_wrong_serializer(self, tmp_path: Path) -> None:
        spec = replace(model_step(tmp_path, DOUBLE), serializer="skops")
        assert "serializer is skops, the file is not a zip archive" in self.refusal(tmp_path, spec)

    def test_a_file_that_is_no_model(self, tmp_path: Path) -> None:
        spec = model_step(tmp_path, DOUBLE)
        (tmp_path / spec.path).write_text("hello")
        assert "cannot be read by joblib" in self.refusal(tmp_path, spec)

    def test_something_else_than_a_model(self, tmp_path: Path) -> None:
        spec = model_step(tmp_path, DOUBLE)
        joblib.dump({"a": 1}, tmp_path / spec.path)
        assert "holds dict, which has no predict method" in self.refusal(tmp_path, spec)

    def test_a_handler_that_is_not_there_names_the_step(self, tmp_path: Path) -> None:
        assert self.refusal(tmp_path, code_step(tmp_path, "scale", "x = 1")).startswith(
            "step 'scale': code/scale/main.py"
        )


def test_bad_input_is_what_a_framework_says_of_a_value(picky: ModelStep, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Picky, batch: Sequence[Any]) -> list[Any]:
        raise BadInput("expected something else")

    monkeypatch.setattr(Picky, "get_model_result", refuse)
    [failed] = picky.run([1])
    assert (failed.stage, failed.reason) == ("input", "expected something else")  # type: ignore[union-attr]
