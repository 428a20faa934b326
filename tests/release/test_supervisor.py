"""Supervisor's configuration as supervisor itself reads it."""

from __future__ import annotations

import os
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from supervisor.datatypes import RestartWhenExitUnexpected
from supervisor.options import ServerOptions

from packer_lib.errors import DeployFailed
from packer_lib.hosts.home import prepare, put_text
from packer_lib.hosts.layout import LONGEST_SOCKET, Layout
from packer_lib.hosts.local import LocalHost
from packer_lib.release import supervisor
from packer_lib.release.model import Release, number_of
from packer_lib.settings import Settings

NASTY = st.text(st.sampled_from("ab %'\";#,=\\$()&~éü€\t") | st.characters(codec="utf-8"), min_size=1, max_size=40)


def _release() -> Release:
    return Release("p", "u", "1", "b", "l", "api", "127.0.0.1", 1)


@settings(max_examples=60, deadline=None)
@example(name="\xa0;")
@given(name=NASTY.filter(lambda name: "/" not in name and "\0" not in name and name not in (".", "..")))
def test_any_home_is_read_back_as_it_is_or_refused(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        home = tmp_path_factory.mktemp("home") / name.encode()[:200].decode(errors="ignore")
        home.mkdir()
    except (OSError, ValueError):
        return  # no file system takes it
    layout, host = Layout(str(home)), LocalHost(Settings(home=home))
    prepare(host, layout)
    try:
        supervisor.configure(host, layout)
        put_text(host, supervisor.unit_conf(host, layout, _release(), "1"), layout.conf("p~u~1"))
    except DeployFailed:
        return  # said in words; what is not refused must be read back
    section = ServerOptions().read_config(layout.supervisord)
    program = section.process_group_configs[0].process_configs[0]
    launch = f"{layout.history('p', 'u', '1')}/launch.json"
    assert shlex.split(program.command) == [sys.executable, "-I", "-S", layout.toolbox, "launch", launch]
    assert program.stdout_logfile == layout.log("p", "u")
    assert program.directory == layout.home
    assert program.environment == {}
    assert section.server_configs[0]["file"] == supervisor.socket_path(layout.home, os.getuid())


def test_a_unit_is_stopped_and_restarted_as_promised(tmp_path: Path) -> None:
    layout, host = Layout(str(tmp_path)), LocalHost(Settings(home=tmp_path))
    prepare(host, layout)
    supervisor.configure(host, layout)
    put_text(host, supervisor.unit_conf(host, layout, _release(), "1"), layout.conf("p~u~1"))
    assert Path(layout.conf("p~u~1")).stat().st_mode & 0o777 == 0o600
    section = ServerOptions().read_config(layout.supervisord)
    program = section.process_group_configs[0].process_configs[0]
    assert program.name == "p~u~1"
    assert (program.startretries, program.startsecs, program.stopwaitsecs) == (4, 10, 30)
    assert program.killasgroup
    assert (program.stdout_logfile_maxbytes, program.stdout_logfile_backups) == (10 << 20, 3)
    assert section.server_configs[0]["chmod"] == 0o600


def test_a_replica_that_has_left_for_good_stays_away_and_finds_a_port_of_its_own(tmp_path: Path) -> None:
    layout, host = Layout(str(tmp_path)), LocalHost(Settings(home=tmp_path))
    prepare(host, layout)
    supervisor.configure(host, layout)
    release = replace(_release(), mode="stream", replicas=3)
    assert release.processes == ("1.0", "1.1", "1.2")
    for process in release.processes:
        put_text(host, supervisor.unit_conf(host, layout, release, process), layout.conf(f"p~u~{process}"))
    Path(layout.replica_logs("p", "u")).mkdir()
    groups = ServerOptions().read_config(layout.supervisord).process_group_configs
    first, _, last = sorted((group.process_configs[0] for group in groups), key=lambda program: program.name)
    told = ["MLPACKER_REPLICA=2", "MLPACKER_REPLICAS=3", "MLPACKER_PORT=0"]
    assert shlex.split(last.command)[-3:] == told
    assert shlex.split(first.command)[-2:] == ["MLPACKER_REPLICA=0", "MLPACKER_REPLICAS=3"]
    assert (last.name, last.autorestart, last.exitcodes) == ("p~u~1.2", RestartWhenExitUnexpected, [85])
    assert (first.stdout_logfile, last.stdout_logfile) == (layout.log("p", "u"), layout.log("p", "u", 2))
    assert {number_of(process) for process in release.processes} == {0, 1, 2}


def test_a_long_home_has_its_sockets_in_a_private_folder(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 20) / "home"
    layout, host = Layout(str(home)), LocalHost(Settings(home=home))
    prepare(host, layout)
    supervisor.configure(host, layout)
    path = supervisor.socket_path(layout.home, host.uid)
    door = layout.door("p" * 60, "u" * 60, host.uid)
    assert len(path.encode()) <= supervisor.LONGEST_SOCKET
    assert len(f"{door}/door.sock".encode()) <= LONGEST_SOCKET
    assert path != supervisor.socket_path(f"{home}2", host.uid)
    assert door != layout.door("p" * 60, "v" * 60, host.uid)
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    Path(path).parent.rmdir()


@given(length=st.integers(1, 300), name=st.integers(1, 63))
def test_a_door_that_is_not_in_our_home_is_below_what_supervisor_made_private(length: int, name: int) -> None:
    home = "/" + "h" * length
    door = Layout(home).door("p" * name, "u" * name, 1000)
    if not door.startswith(f"{home}/"):
        assert Path(door).parent == Path(supervisor.socket_path(home, 1000)).parent


def test_a_folder_that_somebody_else_made_first_is_refused(tmp_path: Path) -> None:
    real, link, shared = tmp_path / "real", tmp_path / "link", tmp_path / "shared"
    real.mkdir(mode=0o700)
    link.symlink_to(real)
    shared.mkdir(mode=0o755)
    supervisor.private_folder(real)
    for folder in (link, shared):
        with pytest.raises(DeployFailed, match="is not ours alone"):
            supervisor.private_folder(folder)


def test_a_home_that_is_a_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeployFailed, match="for a pattern"):
        supervisor.configure(LocalHost(Settings(home=tmp_path / "[0]")), Layout(str(tmp_path / "[0]")))


def test_of_several_who_are_the_first_at_once_one_starts_supervisor(tmp_path: Path) -> None:
    layout, host = Layout(str(tmp_path)), LocalHost(Settings(home=tmp_path))
    prepare(host, layout)
    supervisor.configure(host, layout)

    def start(number: int) -> None:
        time.sleep(0.2 * number)  # it has just found nobody, and comes while another starts it, or has
        supervisor.start(host, layout)

    try:
        with ThreadPoolExecutor(6) as pipelines:
            list(pipelines.map(start, range(6)))
        log = (tmp_path / "logs" / "supervisord.log").read_text()
        assert log.count("supervisord started with pid") == 1
        assert "SIGTERM" not in log
    finally:
        assert supervisor.stop_if_idle(host, layout)
    assert list((tmp_path / "locks").iterdir()) == []
