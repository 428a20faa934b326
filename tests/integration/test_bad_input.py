"""Bad input, by the command line as a person uses it: one message with its place and a remedy, the right exit code, and
nothing half deployed. What has a release that works keeps it."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.integration.bad_input import HANDLER, MODEL, NEVER_READY, OLD, REFUSED, REST, STREAM, UNUSABLE
from tests.integration.here import Here, ask, processes
from tests.lab import brokers
from tests.support import free_port, require, wait_for


def answers(endpoint: str) -> bool:
    return ask(endpoint, 16) == (200, {"predictions": [4]})


def one_message(text: str) -> str:
    """`text`, which is for a person: nothing of Python's own in it."""
    assert "Traceback" not in text
    assert "this is a bug" not in text
    assert 'File "' not in text
    return text


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One for all tests that deploy: its environments are built once, and nothing of it runs at the end."""
    home = tmp_path_factory.mktemp("bad-input") / "home"
    yield home
    wait_for(lambda: not processes(home), 30, "the end of all processes")


@pytest.fixture
def here(tmp_path: Path, home: Path) -> Here:
    made = Here(tmp_path, home)
    made.write("code/main.py", HANDLER)
    return made


@pytest.fixture(scope="module")
def calc(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[str]:
    """The endpoint of a release that works; every deploy of these tests would replace it, and none may."""
    place = Here(tmp_path_factory.mktemp("calc"), home)
    place.write("code/main.py", HANDLER)
    done = place.mlpacker("deploy", place.write("calc.yaml", REST), "--json")
    assert done.returncode == 0, done.stderr
    assert "waiting for every unit to answer" in done.stderr
    yield json.loads(done.stdout)["units"][0]["endpoint"]
    assert place.mlpacker("undeploy", "calc").returncode == 0
    assert place.state()["files"] == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_at_its_place_and_nothing_is_made(tmp_path: Path, name: str) -> None:
    here, case = Here(tmp_path, tmp_path / "home"), REFUSED[name]
    here.write("code/main.py", HANDLER)
    here.write("model.pickle", pickle.dumps(1))
    done = here.mlpacker("deploy", here.write(case.name, case.text))
    assert (done.returncode, done.stdout) == (case.code, ""), done.stderr
    message = one_message(done.stderr).removeprefix("error: ")
    assert message.startswith(f"{case.name}:{case.place}: ")
    assert message.count("\n") == 1
    assert [word for word in case.words if word not in message] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["code", "model.pickle", case.name])


def test_every_problem_is_told_at_once_and_only_the_report_for_machines_is_on_stdout(tmp_path: Path) -> None:
    here = Here(tmp_path, tmp_path / "home")
    old, good = here.write("old.json", json.dumps(OLD, indent=1)), here.write("good.yaml", REST)
    done = here.mlpacker("validate", old, good)
    assert (done.returncode, done.stdout) == (3, "good.yaml: valid\n")
    assert re.findall(r"^old.json:(\d+):\d+: (.*?): ", one_message(done.stderr), re.M) == [
        ("7", "schedule"),
        ("15", "pipeline.root.replicas"),
    ]
    machine = here.mlpacker("validate", "--json", old, good)
    assert (machine.returncode, machine.stderr) == (3, "")
    reports = [json.loads(line) for line in machine.stdout.splitlines()]
    assert [(report["file"], report["valid"]) for report in reports] == [("old.json", False), ("good.yaml", True)]
    told = [f"{p['file']}:{p['line']}:{p['column']}: {p['path']}: {p['message']}" for p in reports[0]["problems"]]
    assert [line.startswith(one) for line, one in zip(done.stderr.splitlines(), told, strict=True)] == [True, True]


def test_two_files_with_one_id_are_both_told_where_the_other_is(tmp_path: Path) -> None:
    here = Here(tmp_path, tmp_path / "home")
    done = here.mlpacker("validate", here.write("one.yaml", REST), here.write("two.yaml", REST))
    assert (done.returncode, done.stdout) == (3, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("one.yaml:2:5: id: the id 'calc' is also in two.yaml (one file per id; rename one")
    assert second.startswith("two.yaml:2:5: id: the id 'calc' is also in one.yaml (one file per id; rename one")


@pytest.mark.native
@pytest.mark.parametrize("name", UNUSABLE)
def test_what_does_not_load_or_answer_is_not_switched_to(here: Here, calc: str, name: str) -> None:
    content, words = UNUSABLE[name]
    before = here.state()
    is_code = isinstance(content, str)
    here.write("code/main.py" if is_code else "model.pickle", content)
    done = here.mlpacker("deploy", here.write("calc.yaml", REST if is_code else MODEL))
    assert (done.returncode, done.stdout) == (5 if is_code else 4, ""), done.stderr
    assert [word for word in words if word not in done.stderr] == []
    if is_code:  # a model is looked at before anything is made of it
        assert "error: calc.yaml:8:5: pipeline.root: the unit does not start: step " in one_message(done.stderr)
        assert done.stderr.endswith("nothing was switched; mend it and deploy again\n")
    assert here.state() == before
    assert answers(calc)


@pytest.mark.native
def test_a_handler_that_raises_fails_its_own_request_and_no_other(here: Here, calc: str) -> None:
    status, body = ask(calc, 4, -1)
    assert status == 500
    assert body == {"error": "data[1]: step 'root' failed: ValueError: math domain error (main.py:4)"}
    assert answers(calc)
    logged = here.mlpacker("logs", "calc").stdout
    assert "data[1]: step 'root', handle: ValueError: math domain error (main.py:4)" in logged


@pytest.mark.native
def test_a_port_that_is_taken_is_refused_with_its_place_and_holder(here: Here, calc: str) -> None:
    before = here.state()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = here.mlpacker(
            "deploy", here.write("calc.yaml", REST.replace("    test:", f"    port: {port}\n    test:"))
        )
    assert (done.returncode, done.stdout) == (7, ""), done.stderr
    told = (
        f"error: calc.yaml:11:11: pipeline.root.port: port {port} on this machine is taken by process {os.getpid()} ("
    )
    assert told in one_message(done.stderr)
    assert done.stderr.endswith("stop that process, or give the step another `port`\n")
    assert here.state() == before
    assert answers(calc)


@pytest.mark.native
def test_a_broker_that_is_down_is_named_and_nothing_is_left(here: Here, calc: str) -> None:
    before, port = here.state(), free_port()
    file = here.write("flow.yaml", STREAM.replace("PORT", str(port)))
    done = here.mlpacker("deploy", file, MLPACKER__DEPLOY__READY_TIMEOUT="3")
    assert (done.returncode, done.stdout) == (7, ""), done.stderr
    place, reason = (
        "flow.yaml:13:8: queues.raw: flow~root",
        f"cannot reach mqtt broker 127.0.0.1:{port}: Connection refused",
    )
    assert f"error: {place}: not ready after 3 s: {reason} (is it running?" in one_message(done.stderr)
    assert "rolled back: root: removed, there was none before" in done.stderr
    assert "MLPACKER__DEPLOY__READY_TIMEOUT" in done.stderr.splitlines()[-1]
    assert here.state() == before
    gone = here.mlpacker("status", "flow")
    assert (gone.returncode, gone.stdout) == (2, "")
    assert "there is calc" in gone.stderr
    assert answers(calc)


@pytest.mark.native
@pytest.mark.broker
def test_a_release_whose_broker_goes_down_is_what_runs_again_when_it_comes_back(here: Here) -> None:
    require("mosquitto", "apt-get install mosquitto")
    with brokers.mosquitto() as broker:
        file = here.write("flow.yaml", STREAM.replace("PORT", str(broker.port)))
        assert here.mlpacker("deploy", file).returncode == 0
        try:
            before = flow(here)
            broker.stop()
            here.write("code/main.py", f"{HANDLER}# another version\n")
            done = here.mlpacker("deploy", file, MLPACKER__DEPLOY__READY_TIMEOUT="3")
            assert done.returncode == 8, done.stderr
            assert "the way back failed: flow~root: not ready after 3 s: cannot reach mqtt" in one_message(done.stderr)
            broker.start()
            wait_for(lambda: flow(here)["state"] == "running", 30, "the former release")
            assert flow(here)["release"] == before["release"]
        finally:
            here.mlpacker("undeploy", "flow")


def flow(here: Here) -> dict[str, Any]:
    done = here.mlpacker("status", "flow", "--json")
    assert done.returncode == 0, done.stderr
    unit: dict[str, Any] = json.loads(done.stdout)["units"][0]
    return unit


@pytest.mark.native
@pytest.mark.parametrize("moment", ["root: create", "root: switched to", "waiting for every unit"])
def test_ctrl_c_leaves_nothing_of_a_first_release(here: Here, calc: str, moment: str) -> None:
    before = here.state()
    told = interrupted(here, here.write("flow.yaml", STREAM.replace("PORT", str(free_port()))), moment)
    if moment != "root: create":
        assert "rolled back: root: removed, there was none before" in told
    assert here.state() == before
    assert answers(calc)


@pytest.mark.native
def test_ctrl_c_leaves_no_half_environment(tmp_path: Path) -> None:
    here = Here(tmp_path, tmp_path / "home")
    here.write("code/main.py", HANDLER)
    interrupted(here, here.write("calc.yaml", REST), "installing what the unit needs")
    assert here.state() == {"files": [], "unfinished": [], "processes": {}}


@pytest.mark.native
def test_ctrl_c_twice_still_brings_the_former_release_back(here: Here, calc: str) -> None:
    release = json.load(urlopen(f"{calc}/info"))["release"]
    files = here.state()["files"]
    here.write("code/main.py", NEVER_READY)
    told = interrupted(here, here.write("calc.yaml", REST), "waiting until it is ready", "putting every unit back")
    assert f"rolled back: root: back on {release}" in told
    assert here.state()["files"] == files
    assert answers(calc)


def interrupted(here: Here, file: str, *moments: str) -> str:
    """What `mlpacker deploy` said on stderr; it is sent SIGINT as soon as it says each of `moments`."""
    process = here.start("deploy", file)
    assert process.stderr is not None
    said, waiting = [], list(moments)
    for line in process.stderr:
        said.append(line)
        if waiting and waiting[0] in line:
            del waiting[0]
            os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out, waiting) == (130, "", []), "".join(said)
    return one_message("".join(said))
