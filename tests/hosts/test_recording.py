"""The double that is also the dry run."""

from __future__ import annotations

from pathlib import Path

import pytest

from packer_lib import commands
from packer_lib.hosts import Host, Result
from packer_lib.hosts.local import LocalHost
from packer_lib.hosts.recording import RecordingHost, rehearsal
from packer_lib.images import words
from packer_lib.release import records
from packer_lib.release.model import Release
from packer_lib.settings import Settings


def test_what_would_be_done_is_written_down_in_order(tmp_path: Path) -> None:
    host = RecordingHost()
    double: Host = host
    double.run(commands.remove("/a"), env={"SECRET": "hunter2"}, input="hunter2")
    double.put(tmp_path, "/b", 0o600)
    double.close()
    assert host.done == [("rm", "-rf", "--", "/a"), ("put", "/b")]
    assert "hunter2" not in repr(vars(host))


def test_answers_may_be_scripted() -> None:
    host = RecordingHost(lambda argv: Result(1, err=argv[0]))
    assert host.run(("false",)) == Result(1, err="false")


def test_a_rehearsal_looks_at_the_real_machine_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("there")
    host = rehearsal(LocalHost(Settings(home=tmp_path)))
    assert host.run(commands.read(str(file))).out == "there"
    assert host.run(commands.remove(str(file))).ok
    assert file.exists()


def test_a_rehearsal_reads_what_is_released_there(tmp_path: Path) -> None:
    released = Release("p", "u", "1", "b", "l", "api", "127.0.0.1", 1)
    (tmp_path / "releases/p/u").mkdir(parents=True)
    (tmp_path / "releases/p/u/release.json").write_text(released.to_json())
    host = rehearsal(LocalHost(Settings(home=tmp_path)))
    assert records.read(host, "p").current == {"u": released}


@pytest.mark.parametrize(
    ("argv", "asked"),
    [
        (words.containers("CLIENT", {}, "{{.Names}}"), True),
        (words.inspect_container("CLIENT", "c"), True),
        (words.images("CLIENT"), True),
        (words.remove_container("CLIENT", "c"), False),
        (words.stop("CLIENT", "c"), False),
        (words.make_volume("CLIENT", "v", {}), False),
    ],
)
def test_a_rehearsal_asks_the_engine_and_changes_nothing_there(
    tmp_path: Path, argv: commands.Argv, asked: bool
) -> None:
    client = tmp_path / "client"
    client.write_text("#!/bin/sh\necho asked\n")
    client.chmod(0o755)
    host = rehearsal(LocalHost(Settings(home=tmp_path, docker=str(client))))
    assert host.run((str(client), *argv[1:])) == Result(0, "asked\n" if asked else "")
