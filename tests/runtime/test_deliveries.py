"""What killed the process before is handled alone, and not more often than three times."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from packer_lib.runtime.contract import Message
from packer_lib.runtime.deliveries import Deliveries


def some(*numbers: int) -> list[Message]:
    return [Message(b"%d" % number, position=f"t@{number}") for number in numbers]


def sizes(deliveries: Deliveries, messages: list[Message]) -> list[int]:
    return [len(part) for part in deliveries.parts("in", messages)]


def handle(folder: Path, messages: list[Message]) -> None:
    """A process that gets all of them through."""
    process = Deliveries(folder)
    for part in process.parts("in", messages):
        process.begin("in", part)
        process.end()
        process.done("in", part)
    process.close()


def deadly(folder: Path, *numbers: int) -> bool:
    process = Deliveries(folder)
    found = process.deadly("in", some(*numbers))
    process.close()
    return found


def die_with(folder: Path, messages: list[Message], *, alone: bool = False) -> None:
    """A process that has these in hand and is no more; `alone`: of several, one by one."""
    process = Deliveries(folder)
    for part in process.parts("in", messages):
        if not alone or len(part) == 1:
            process.begin("in", part)
            break
    process.close()


def test_without_a_death_a_batch_stays_a_batch(tmp_path: Path) -> None:
    for _ in range(3):
        deliveries = Deliveries(tmp_path)
        assert sizes(deliveries, some(1, 2, 3)) == [3]
        deliveries.begin("in", some(1, 2, 3))
        deliveries.end()
        deliveries.close()


def test_what_was_in_hand_is_handled_alone_until_it_is_through(tmp_path: Path) -> None:
    die_with(tmp_path, some(1, 2, 3))
    deliveries = Deliveries(tmp_path)
    assert sizes(deliveries, some(1, 2, 3, 4, 5)) == [1, 1, 1, 2]
    deliveries.close()
    handle(tmp_path, some(1, 2, 3))
    assert sizes(Deliveries(tmp_path), some(1, 2, 3)) == [3]


def test_suspects_are_found_by_their_places_wherever_they_come(tmp_path: Path) -> None:
    """As when another partition of the topic is read first."""
    die_with(tmp_path, some(10, 11))
    deliveries = Deliveries(tmp_path)
    assert sizes(deliveries, some(1, 2, 3, 4, 10, 5, 11)) == [1, 1, 2, 1, 1, 1]
    assert sizes(deliveries, some(6, 7)) == [2]


def test_where_places_change_the_first_of_the_queue_are_suspected(tmp_path: Path) -> None:
    die_with(tmp_path, some(1, 2))
    deliveries = Deliveries(tmp_path)
    again = [Message(b"%d" % number, position=f"another #{number}") for number in (1, 2, 3, 4)]
    assert sizes(deliveries, again) == [1, 1, 2]
    for message in again:
        deliveries.done("in", [message])
    deliveries.close()
    assert sizes(Deliveries(tmp_path), again) == [4], "the next process does not look for them again"


def test_three_deaths_make_a_message_deadly_and_no_other(tmp_path: Path) -> None:
    die_with(tmp_path, some(1, 2, 3))
    for _ in range(2):
        assert not deadly(tmp_path, 1)
        die_with(tmp_path, some(1, 2, 3), alone=True)
    assert deadly(tmp_path, 1)
    assert not deadly(tmp_path, 2)
    assert not deadly(tmp_path, 1, 2)
    handle(tmp_path, some(1))
    assert not deadly(tmp_path, 1)


def test_a_message_that_comes_through_is_forgiven_its_deaths(tmp_path: Path) -> None:
    """Killed from outside four times with the same message in hand, but not in a row."""
    for _ in range(2):
        die_with(tmp_path, some(1))
        die_with(tmp_path, some(1), alone=True)
        handle(tmp_path, some(1))
    assert not deadly(tmp_path, 1)


@pytest.mark.parametrize("notes", ["", "[]", '{"suspects": 3}', '{"suspects": {"in": 1}, "deaths": {}}'])
def test_notes_that_are_not_ours_are_left_out(tmp_path: Path, notes: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "suspects-0.json").write_text(notes)
    (tmp_path / "in-hand-0").write_bytes(b"+none")
    deliveries = Deliveries(tmp_path)
    assert sizes(deliveries, some(1, 2)) == [2]
    assert "is not what was written there" in caplog.text


def test_a_folder_that_cannot_be_written_costs_the_count_and_not_the_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        deliveries = Deliveries(tmp_path / "file" / "state")
    assert "set MLPACKER_STATE to a folder" in caplog.text
    deliveries.begin("in", some(1))
    deliveries.end()


def test_two_processes_do_not_share_a_folder_and_two_replicas_may(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Deliveries(tmp_path)
    Deliveries(tmp_path, 1).close()
    assert not caplog.text
    Deliveries(tmp_path)
    assert "deliveries are not counted" in caplog.text
    first.begin("in", some(1))
    first.close()
    assert sizes(Deliveries(tmp_path), some(1, 2)) == [1, 1]
