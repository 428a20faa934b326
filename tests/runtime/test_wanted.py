"""What is wanted of a unit's models after each kind of change, as values."""

from __future__ import annotations

from typing import Any

import pytest

from packer_lib.runtime import wanted
from packer_lib.runtime.wanted import NoVersion, Staged, Wanted

OWN = Staged("", "0" * 64, "joblib", wanted.FIRST)
LATEST_2, ALL, SPECIFIC = {"latest": 2}, {"all": True}, {"specific": [1, 3]}


def model(letter: str) -> Staged:
    return Staged(f"models/m/{letter}/model.joblib", letter * 64, "joblib")


def swapped(policy: dict[str, Any], letters: str) -> Wanted:
    want = Wanted()
    for letter in letters:
        want = wanted.swap(want, "m", OWN, model(letter), policy)
    return want


def loaded(want: Wanted) -> list[tuple[int, str, str]]:
    return [(one.number, one.sha256[0], one.label) for one in wanted.versions(want, "m", OWN)]


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ({"latest": 1}, [(4, "c", "stable")]),
        (LATEST_2, [(4, "c", "stable"), (3, "b", "")]),
        (ALL, [(4, "c", "stable"), (3, "b", ""), (2, "a", ""), (1, "0", "")]),
        (SPECIFIC, [(4, "c", "stable"), (3, "b", ""), (1, "0", "")]),
    ],
)
def test_after_three_swaps_the_policy_says_what_stays_loaded(policy: dict[str, Any], left: list[Any]) -> None:
    assert loaded(swapped(policy, "abc")) == left


def test_a_model_that_was_there_before_keeps_its_number_if_it_is_loaded_and_else_has_a_new_one() -> None:
    assert loaded(swapped(LATEST_2, "aba")) == [(2, "a", "stable"), (3, "b", "")]
    assert loaded(swapped({"latest": 1}, "aba")) == [(4, "a", "stable")]


def test_going_back_to_the_bundles_own_names_no_model() -> None:
    want = wanted.promote(swapped(LATEST_2, "a"), "m", OWN, LATEST_2, "1")
    assert not want.models
    assert loaded(want) == [(1, "0", "stable"), (2, "a", "")]


def test_a_candidate_is_beside_the_live_one_until_it_is_promoted_or_discarded() -> None:
    want = wanted.stage(Wanted(), "m", model("a"))
    assert loaded(want) == [(1, "0", "stable"), (2, "a", "candidate")]
    assert loaded(wanted.discard(want, "m")) == [(1, "0", "stable")]
    assert loaded(wanted.promote(want, "m", OWN)) == [(2, "a", "stable")]
    assert loaded(wanted.stage(want, "m", model("b"))) == [(1, "0", "stable"), (3, "b", "candidate")]


def test_a_candidate_and_its_shadow_outlive_the_swap_of_another_model() -> None:
    want = wanted.shadow(wanted.stage(Wanted(), "m", model("a")), "m", 0.5)
    want = wanted.swap(want, "m", OWN, model("b"))
    assert loaded(want) == [(3, "b", "stable"), (2, "a", "candidate")]
    assert want.shadow == {"m": 0.5}
    assert not wanted.promote(want, "m", OWN).shadow
    assert not wanted.discard(want, "m").shadow


def test_versions_are_called_by_number_label_or_the_start_of_their_sha256() -> None:
    want = wanted.stage(Wanted(), "m", model("a"))
    for name in ("2", "candidate", "a" * 12, "a" * 64):
        assert wanted.find(want, "m", OWN, name).number == 2
    for name in ("stable", "1", "0" * 12):
        assert wanted.find(want, "m", OWN, name).number == 1
    for name in ("", "3", "a", "aaaaaa", "latest"):
        with pytest.raises(NoVersion, match=r"only 000000000000 \(stable\), aaaaaaaaaaaa \(candidate\)"):
            wanted.find(want, "m", OWN, name)


def test_without_a_candidate_there_is_nothing_to_promote_discard_or_shadow() -> None:
    with pytest.raises(NoVersion):
        wanted.promote(Wanted(), "m", OWN)
    with pytest.raises(NoVersion):
        wanted.discard(Wanted(), "m")
    with pytest.raises(NoVersion):
        wanted.shadow(Wanted(), "m", 1.0)


def test_what_is_unloaded_is_loaded_again_by_a_swap_too() -> None:
    want = wanted.unload(swapped({"latest": 1}, "a"), "m")
    assert want.unloaded == {"m"}
    assert not wanted.load(want, "m").unloaded
    assert not wanted.swap(want, "m", OWN, model("b")).unloaded


def test_it_is_read_as_it_was_written() -> None:
    want = wanted.unload(wanted.shadow(wanted.stage(swapped(ALL, "ab"), "m", model("c")), "m", 0.25), "n")
    assert wanted.parse(want.to_json()) == want


def test_what_an_older_deployer_writes_is_read_too() -> None:
    want = wanted.parse('{"id": "x", "models": {"m": {"path": "p", "sha256": "s", "serializer": "joblib"}}}')
    assert want == Wanted("x", {"m": Staged("p", "s", "joblib")})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": 1, "models": {"m": {}}}', '{"id": 1, "models": [1]}'])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not what is written there"):
        wanted.parse(text)
