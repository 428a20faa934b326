"""Streaming units in several processes, put there by `mlpacker deploy` and counted message by message."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from packer_lib.runtime.manifest import QueueSpec
from tests.integration.here import Here, processes
from tests.integration.streaming import CODE, HANDLER, LONG, Flow, document, unit
from tests.lab.brokers import Broker
from tests.runtime.test_replicas import spread
from tests.runtime.test_streams import on, put, read_until, reading
from tests.support import wait_for

pytestmark = [pytest.mark.native, pytest.mark.broker, pytest.mark.timeout(600)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path, tmp_path / "home")
    made.write("code/main.py", HANDLER)
    yield made
    print(made.mlpacker("logs", "shared").stdout[-6000:])  # for whoever looks why it failed
    made.mlpacker("undeploy", "shared")


def write(place: Here, queues: Sequence[QueueSpec], replicas: int, **more: Any) -> str:
    return place.write("shared.json", document("shared", {**CODE, "replicas": replicas, **more}, queues))


@pytest.mark.parametrize("kind", ["kafka", "mqtt", *(["kafka once"] if LONG else [])])
def test_more_and_fewer_replicas_under_load_lose_and_double_nothing(
    kind: str, place: Here, mosquitto: Broker, kafka: Broker
) -> None:
    source = on(mosquitto, "in") if kind == "mqtt" else spread(kafka, "in", 4)
    sink = on(kafka, "out")
    more = {"delivery": "exactly_once"} if "once" in kind else {}
    told, seen = [], []

    def deploy(replicas: int) -> None:
        begun = time.monotonic()
        done = place.mlpacker("deploy", write(place, (source, sink), replicas, **more), "--json")
        assert done.returncode == 0, done.stderr
        told.extend(one["action"] for one in json.loads(done.stdout)["units"])
        seen.append(wait_for(lambda: (one := unit(place))["state"] == "running" and one))  # a group may be moving
        print(f"{kind}, {replicas} replicas: {time.monotonic() - begun:.1f} s")

    deploy(1)
    with Flow(source, sink) as flow:
        for replicas in (2, 3, 1):
            deploy(replicas)
        flow.stop()
    counts = Counter(flow.got)
    print(f"{kind}: {flow.sent} sent, lost {flow.sent - len(counts)}, doubled {len(flow.got) - len(counts)}")
    # between alone and several a subscription of MQTT is another: what comes just then comes twice, see `MqttSource`
    assert flow.sent == len(counts)
    assert len(flow.got) - len(counts) <= (2 if kind == "mqtt" else 0)
    assert told == ["create", "scale", "scale", "scale"]
    assert [one["replicas"] for one in seen] == [{"wanted": n, "running": n} for n in (1, 2, 3, 1)]
    assert [one["state"] for one in seen] == ["running"] * 4
    assert len({one["release"] for one in seen}) == 1
    pids = [one["pid"] for one in seen]
    assert pids[1] == pids[2], "two that become three go on"
    assert place.mlpacker("undeploy", "shared").returncode == 0
    state = place.state()
    assert (state["files"], state["processes"]) == ([], {})
    assert list((place.home / "state").iterdir()) == []


HANGS = """\
import threading
def handler(value):
    if value["n"] == 7:
        threading.Event().wait()
    return value
"""
SHORT = {"MLPACKER__DEPLOY__STALL_SECONDS": "1"}


def test_a_message_that_hangs_its_unit_is_quarantined_after_three_deliveries(place: Here, kafka: Broker) -> None:
    source, sink, dead = on(kafka, "in"), on(kafka, "out"), on(kafka, "dead")
    place.write("code/main.py", HANGS)
    file = write(place, (source, sink, dead), 1, on_error="dead_letter", dead_letter="dead")
    with reading(sink) as reader, reading(dead) as letters:
        done = place.mlpacker("deploy", file, **SHORT)
        assert done.returncode == 0, done.stderr
        put(source, range(20))
        (letter,) = wait_for(lambda: letters.consume(1, 1), 90, "the dead letter")
        read_until(reader, set(range(20)) - {7})
    log = place.mlpacker("logs", "shared", "--lines", "1000").stdout
    assert log.count("it is ended (exit code 70)") == 3
    assert "in handler" in log
    assert (letter.value, letter.headers["mlpacker-error-stage"]) == (b'{"n": 7}', b"crash")
    assert wait_for(lambda: unit(place)["state"] == "running")


DIES = """\
import os, pathlib
if os.environ.get("MLPACKER_REPLICA") == "1" and pathlib.Path("MARK").exists():
    os._exit(3)
def handler(value):
    return value
"""


def test_a_set_of_which_one_has_failed_says_so_and_is_mended_by_a_deploy(place: Here, mosquitto: Broker) -> None:
    mark = place.folder / "mark"
    place.write("code/main.py", DIES.replace("MARK", str(mark)))
    queues = on(mosquitto, "in"), on(mosquitto, "out")
    for replicas in (1, 2):
        file = write(place, queues, replicas)
        assert place.mlpacker("deploy", file).returncode == 0
    whole = unit(place)
    mark.touch()
    (second,) = [pid for pid, words in processes(place.home).items() if runs_replica(pid, 1)]
    os.kill(second, signal.SIGKILL)
    failed = wait_for(lambda: (one := unit(place))["state"] == "failed" and one, 60, "it is given up", every=1)
    table = place.mlpacker("status", "shared").stdout
    print(failed, table, sep="\n")
    assert failed["replicas"] == {"wanted": 2, "running": 1}
    assert failed["reason"].startswith("replica 1: Exited too quickly")
    assert "failed 1/2: replica 1: Exited" in " ".join(table.split())
    assert failed["pid"] == whole["pid"]
    lines = place.mlpacker("logs", "shared").stdout.splitlines()
    assert {line.partition(" | ")[0] for line in lines} == {"step.0", "step.1"}
    mark.unlink()
    done = place.mlpacker("deploy", file, "--json")
    assert [one["action"] for one in json.loads(done.stdout)["units"]] == ["replace"], done.stderr
    assert (unit(place)["replicas"], unit(place)["pid"]) == ({"wanted": 2, "running": 2}, whole["pid"])
    back = place.mlpacker("rollback", "shared", "--json")
    assert [one["action"] for one in json.loads(back.stdout)["units"]] == ["scale"], back.stderr
    assert (unit(place)["replicas"], unit(place)["release"]) == ({"wanted": 1, "running": 1}, whole["release"])


def runs_replica(pid: int, number: int) -> bool:
    return f"MLPACKER_REPLICA={number}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
