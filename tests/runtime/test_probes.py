from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from packer_lib.runtime import metrics
from packer_lib.runtime.probes import PortTaken, Probes, State


@pytest.fixture
def state() -> State:
    return State({"pipeline": "plant", "unit": "filter"})


@pytest.fixture
def probes(state: State) -> Iterator[Probes]:
    made = Probes("127.0.0.1", 0, state)
    yield made
    made.close()


def ask(probes: Probes, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{probes.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_ready_says_why_not(probes: Probes, state: State) -> None:
    state.reason = "cannot reach mqtt broker h:1883"
    status, body = ask(probes, "/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "reason": "cannot reach mqtt broker h:1883"})
    state.reason = ""
    status, body = ask(probes, "/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True})


def test_it_lives_while_it_is_not_ready(probes: Probes, state: State) -> None:
    assert state.reason == "starting"
    assert ask(probes, "/livez")[0] == 200


def test_info_is_what_the_unit_says_of_itself(probes: Probes) -> None:
    assert json.loads(ask(probes, "/info")[1]) == {"pipeline": "plant", "unit": "filter"}


def test_metrics_have_the_names_that_streams_and_rest_share(probes: Probes) -> None:
    metrics.MESSAGES_IN.labels("q").inc(3)
    metrics.MESSAGES_FAILED.labels("step", "decode").inc()
    text = ask(probes, "/metrics")[1]
    for line in (
        'mlpacker_messages_in_total{queue="q"} ',
        'mlpacker_messages_failed_total{stage="decode",step="step"} ',
        "mlpacker_messages_skipped_total ",
        "mlpacker_dead_letters_total ",
        'mlpacker_batch_size_bucket{le="1.0"} ',
        'mlpacker_end_to_end_seconds_bucket{le="0.001"} ',
        "mlpacker_in_flight ",
    ):
        assert line in text


def test_another_path_is_answered_with_those_there_are(probes: Probes) -> None:
    status, body = ask(probes, "/")
    assert status == 404
    assert "/readyz" in json.loads(body)["error"]


def test_a_taken_port_is_named_with_what_to_set(state: State) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}: Address already in use .*MLPACKER_PORT"):
            Probes("127.0.0.1", port, state)
