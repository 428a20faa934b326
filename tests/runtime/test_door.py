"""The door and the units behind it, each a process of its own; users ask on while releases come, go and die."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest

from tests.runtime.asking import Answer, Asking, Line
from tests.runtime.handmade import PACKAGE, Service, code_step, end, start, write_bundle
from tests.runtime.test_rest import metric
from tests.support import wait_for

DOOR = PACKAGE / "runtime" / "door"
NAMES_ITS_RELEASE = """
import os, pathlib, time
RELEASE = os.environ["MLPACKER_RELEASE"]
loading = pathlib.Path("loading-" + RELEASE)
while loading.exists():
    time.sleep(0.01)
def handler(value):
    slow = pathlib.Path("slow")
    if slow.exists():
        pathlib.Path("waiting").touch()
        while slow.exists():
            time.sleep(0.01)
    return RELEASE
"""


class House:
    """One unit: a bundle, a door, and releases of it that are started, stopped and killed."""

    def __init__(self, folder: Path, stack: ExitStack, **environment: str) -> None:
        self.environment = environment
        self.bundle = folder / "bundle"
        self.bundle.mkdir()
        write_bundle(self.bundle, code_step(self.bundle, "step", NAMES_ITS_RELEASE))
        self.folder = folder / "door"
        self.log = folder / "door.log"
        self.program = folder / "program"  # as on a machine: nothing else of ours beside it
        shutil.copytree(DOOR, self.program, ignore=shutil.ignore_patterns("__pycache__"))
        self._stack = stack
        self.port = 0
        self.open()

    def open(self) -> None:
        """Starts the door, at the port it had before."""
        argv = [sys.executable, "-I", "-S", str(self.program), "hold", str(self.folder), "127.0.0.1", str(self.port)]
        with self.log.open("ab") as log:
            self.door = subprocess.Popen(argv, stderr=log)
        self._stack.callback(_kill, self.door)
        self.port = self.ask("status", "20")["port"]

    def ask(self, *words: str) -> dict[str, Any]:
        word, *rest = words
        argv = [sys.executable, "-I", "-S", str(self.program), "ask", str(self.folder), word, *rest]
        done = subprocess.run(argv, capture_output=True, text=True)
        answer: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (1 if "error" in answer else 0)
        return answer

    def status(self) -> dict[str, Any]:
        return self.ask("status", "20")

    def switch(self, release: str) -> None:
        answer = self.ask("switch", release, "60")
        assert (answer.get("current"), answer.get("holding")) == (release, release), answer

    def begin(self, release: str) -> Service:
        """A process of that release, which may not be ready yet."""
        environment = {"MLPACKER_PORT": "0", "MLPACKER_DOOR": str(self.folder), "MLPACKER_RELEASE": release}
        service = start(self.bundle, **environment, **self.environment)
        self._stack.callback(end, service)
        return service

    def ready(self, *releases: str) -> list[Service]:
        services = [self.begin(release) for release in releases]

        def all_ready() -> bool:
            status = self.status()
            return all(name in status["ports"] and name not in status["reasons"] for name in releases)

        wait_for(all_ready, 60, f"{releases} are ready")
        return services

    def once(self) -> Answer:
        line = Line(self.port)
        try:
            return line.ask()
        finally:
            line.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with ExitStack() as stack:
        yield House(tmp_path, stack)


class TestSwitching:
    def test_back_and_forth_fifty_times_loses_nothing_and_mixes_nothing(self, house: House) -> None:
        units = house.ready("r1", "r2")
        house.switch("r1")
        with Asking(house.port) as users:
            for number in range(50):
                release = ("r2", "r1")[number % 2]
                before = users.of(release)
                house.switch(release)
                wait_for(lambda release=release, before=before: users.of(release) > before, what=f"{release} answers")  # type: ignore[misc]
        assert (users.lost, users.mixed) == ([], [])
        assert {(kept, status) for kept, status, _ in users.answers} == {(True, 200), (False, 200)}
        for unit in units:  # what 50 switches leave behind: no socket
            wait_for(lambda unit=unit: len(list(Path(f"/proc/{unit.process.pid}/fd").iterdir())) < 40, what="few files")  # type: ignore[misc]

    def test_what_is_in_flight_is_answered_and_says_that_its_connection_ends(self, house: House) -> None:
        house.ready("r1", "r2")
        house.switch("r1")
        (house.bundle / "slow").touch()
        with ThreadPoolExecutor(1) as client:
            asked = client.submit(house.once)
            wait_for((house.bundle / "waiting").exists, what="the request is in the handler")
            house.switch("r2")
            (house.bundle / "slow").unlink()
            answer = asked.result()
        assert (answer.status, answer.release, answer.last) == (200, "r1", True)
        assert house.once().release == "r2"

    def test_a_kept_connection_gets_one_more_answer_that_says_it_is_the_last(self, house: House) -> None:
        house.ready("r1", "r2")
        house.switch("r1")
        line = Line(house.port)
        assert not line.ask().last
        house.switch("r2")
        answer = line.ask()
        assert (answer.release, answer.last) == ("r1", True)
        line.close()
        house.switch("r1")  # and a release that has the port again keeps connections again
        line = Line(house.port)
        answers = [line.ask(), line.ask()]
        line.close()
        assert [(answer.release, answer.last) for answer in answers] == [("r1", False)] * 2

    def test_a_release_that_is_not_ready_is_refused_and_the_other_goes_on(self, house: House) -> None:
        house.ready("r1")
        house.switch("r1")
        (house.bundle / "loading-r2").touch()
        house.begin("r2")
        wait_for(lambda: "r2" in house.status()["waiting"], 60, "r2 is at the door")
        assert house.status()["reasons"] == {"r2": "loading"}
        assert house.ask("switch", "r2") == {"error": "release r2 is not ready: loading"}
        assert house.once().release == "r1"
        (house.bundle / "loading-r2").unlink()
        wait_for(lambda: not house.status()["reasons"], 60, "r2 is ready")
        house.switch("r2")
        assert house.once().release == "r2"

    def test_what_is_not_there_is_refused_with_what_is(self, house: House) -> None:
        house.ready("r1")
        assert house.ask("switch", "rx") == {"error": "release rx is not at the door; there is r1"}
        assert house.status()["current"] is None

    def test_again_changes_nothing(self, house: House) -> None:
        house.ready("r1")
        house.switch("r1")
        before = house.log.read_text()
        house.switch("r1")
        assert house.log.read_text() == before

    def test_a_release_answers_on_its_private_port_before_and_after(self, house: House) -> None:
        house.ready("r1", "r2")
        house.switch("r1")
        for release, port in house.status()["ports"].items():
            assert Line(port).ask().release == release


class TestDeath:
    def test_a_killed_release_is_back_before_those_who_wait_notice(self, house: House) -> None:
        unit = house.ready("r1")[0]
        house.switch("r1")
        _kill(unit.process)
        wait_for(lambda: house.status()["holding"] is None, what="the door knows")
        waiting = Line(house.port)
        waiting.send()
        house.begin("r1")
        answer = waiting.answer()
        assert (answer.status, answer.release) == (200, "r1")

    def test_a_release_told_to_end_answers_what_it_has_and_loses_nothing(self, house: House) -> None:
        """As a restart does it: the next process of the same release takes over from the queue."""
        unit = house.ready("r1")[0]
        house.switch("r1")
        with Asking(house.port) as users:
            wait_for(lambda: users.of("r1") > 50, what="users are answered")
            assert unit.stop() == 0
            before = users.of("r1")
            house.begin("r1")
            wait_for(lambda: users.of("r1") > before + 50, 60, what="users are answered again")
        assert (users.lost, users.mixed) == ([], [])

    def test_without_its_door_a_release_serves_on_and_gives_the_port_to_the_next_door(self, house: House) -> None:
        house.ready("r1", "r2")
        house.switch("r1")
        with Asking(house.port) as users:
            _kill(house.door)
            before = users.of("r1")
            wait_for(lambda: users.of("r1") > before + 50, what="users are answered without a door")
            house.open()
            wait_for(lambda: house.status()["holding"] == "r1", what="the new door knows who has the port")
            wait_for(lambda: len(house.status()["ports"]) == 2, what="both came back")
            house.switch("r2")
            before = users.of("r2")
            wait_for(lambda: users.of("r2") > before + 50, what="users are answered by the other")
        assert (users.lost, users.mixed) == ([], [])
        assert users.of("r1") + users.of("r2") == sum(users.answers.values())

    def test_all_dead_the_port_comes_back_with_what_was_current(self, house: House) -> None:
        units = house.ready("r1", "r2")
        house.switch("r2")
        for process in (house.door, *(unit.process for unit in units)):
            _kill(process)
        house.open()
        house.ready("r1", "r2")
        wait_for(lambda: house.status()["holding"] == "r2", what="r2 has the port")
        assert house.once().release == "r2"

    def test_a_child_that_outlives_its_release_holds_nothing_up(self, house: House) -> None:
        """Its copy of the line to the door stays open; the next process of the release counts all the same."""
        code = house.bundle / "code" / "step" / "main.py"
        code.write_text("import os, time\nif os.fork() == 0:\n    time.sleep(60)\n    os._exit(0)\n" + code.read_text())
        unit = house.ready("r1")[0]
        house.switch("r1")
        _kill(unit.process)
        house.begin("r1")
        wait_for(lambda: house.once().status == 200, 60, what="it answers again")
        os.killpg(unit.process.pid, 9)


class TestNobody:
    def test_was_ever_current(self, house: House) -> None:
        house.ready("r1")
        answer = house.once()
        assert (answer.status, answer.release) == (503, "")
        assert json.loads(answer.body) == {"error": "no release of this unit is running; try again later"}

    def test_a_body_that_nobody_reads_does_not_take_the_answer_away(self, house: House) -> None:
        with socket.create_connection(("127.0.0.1", house.port), 10) as caller:
            caller.sendall(b"POST /predict HTTP/1.1\r\ncontent-length: 200000\r\n\r\n" + b" " * 200000)
            assert caller.recv(65536).startswith(b"HTTP/1.1 503")


class TestItsFolder:
    def test_is_ours_and_closed_to_others(self, house: House) -> None:
        assert house.folder.stat().st_mode & 0o777 == 0o700

    def test_has_one_door(self, house: House) -> None:
        argv = [sys.executable, "-I", "-S", str(house.program), "hold", str(house.folder), "127.0.0.1", "0"]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert (done.returncode, "another door is running" in done.stderr) == (1, True)
        assert "error" not in house.status()

    def test_that_is_a_link_is_refused(self, house: House, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(house.bundle)
        argv = [sys.executable, "-I", "-S", str(house.program), "hold", str(tmp_path / "link"), "127.0.0.1", "0"]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert (done.returncode, "is not a folder of this user" in done.stderr) == (1, True)

    def test_a_port_that_is_taken_is_named_at_once(self, house: House, tmp_path: Path) -> None:
        argv = [
            sys.executable,
            "-I",
            "-S",
            str(house.program),
            "hold",
            str(tmp_path / "x"),
            "127.0.0.1",
            str(house.port),
        ]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.returncode == 1
        assert f"ended: Address already in use (127.0.0.1:{house.port})" in done.stderr

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
    def test_another_user_is_not_heard_even_if_the_folder_lets_it_in(self, house: House) -> None:
        above = [path for path in house.folder.parents if len(path.parts) > len(Path(gettempdir()).parts)]
        for path in (house.folder, *above, house.folder / "door.sock"):
            path.chmod(0o777)
        code = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
            's.sendall(b\'{"ask": "status"}\\n\'); print(s.recv(100))'
        )
        argv = ["/usr/bin/python3", "-c", code, str(house.folder / "door.sock")]
        done = subprocess.run(argv, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, cwd="/")
        assert "status" not in done.stdout + done.stderr
        assert done.stdout.strip() == "b''" or "Broken pipe" in done.stderr or "reset" in done.stderr


def test_nonsense_ends_its_own_line_only(house: House) -> None:
    house.ready("r1")
    house.switch("r1")
    for nonsense in (b"\xff\n", b"[]\n", b'{"ask": "switch"}\n', b'{"unit": 1}\n', b"{" * 70000, b'{"do": 1}\n'):
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(str(house.folder / "door.sock"))
            line.sendall(nonsense)
            assert line.recv(100) == b""
    assert house.status()["holding"] == "r1"
    assert house.once().release == "r1"


def test_is_small(house: House) -> None:
    """A door per unit must not be felt: it keeps under 16 MB, most of it Python."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{house.door.pid}/status").read_text())
    assert found
    assert int(found[1]) < 16 << 10


def test_answers_carry_their_release_whatever_they_say(house: House) -> None:
    service = house.ready("r1")[0]
    port = house.status()["ports"]["r1"]
    private = Service(service.process, f"http://127.0.0.1:{port}", service.log)
    for path, body in (("/predict", b'{"data": [1]}'), ("/predict", b"{"), ("/info", None), ("/nowhere", None)):
        assert private.ask(path, body).headers["mlpacker-release"] == "r1"
    assert metric(private, "mlpacker_in_flight") == 0
