"""A machine by SSH when things go wrong: cut lines, swapped keys, an sshd that allows little, eyes on secrets."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from packer_lib.errors import PolicyRefused
from packer_lib.hosts import Unreachable
from packer_lib.hosts.connect import APART, shown_key
from packer_lib.hosts.known import fingerprint, remember
from packer_lib.hosts.ssh import SshHost
from packer_lib.settings import Settings
from tests.hosts.sshd import Line, Sshd, running
from tests.support import require, wait_for
from tests.tiny import is_gone

SENTINEL = "hunter2-3f1c"


@pytest.fixture
def far(sshd: Sshd, here: Settings, line: Line) -> Iterator[SshHost]:
    """The machine, over a line that can be cut."""
    host = sshd.host(here, port=line.port)
    yield host
    host.close()


# Cuts


def test_an_upload_that_is_cut_goes_on_where_it_stopped(far: SshHost, line: Line, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "there/folder"
    source.mkdir()
    for number in range(8):
        (source / f"part{number}").write_bytes(os.urandom(4_000_000))
    assert far.run(("true",)).ok
    line.sent, line.cut_after = 0, 20_000_000
    far.put(source, str(target))
    assert len(line.begun) == 2, "connected once more"
    assert line.sent < 45_000_000, "most of what had arrived was not sent again"
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


def test_an_upload_that_is_given_up_leaves_no_target(far: SshHost, sshd: Sshd, line: Line, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "there/file"
    source.write_bytes(os.urandom(8_000_000))
    assert far.run(("true",)).ok
    line.cut_after = line.sent + 4_000_000
    line.refuse()
    with pytest.raises(Unreachable):
        far.put(source, str(target))
    assert not target.exists()
    with contextlib.closing(sshd.host(Settings(home=tmp_path / "other"))) as other:
        other.put(source, str(target))
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_a_command_that_is_cut_is_dead_and_not_repeated(far: SshHost, line: Line, tmp_path: Path) -> None:
    begun, failed = tmp_path / "begun", []
    script = f"echo $$ >> {begun}; sleep 300 & echo $! >> {begun}; wait"

    def work() -> None:
        try:
            far.run(("sh", "-c", script))
        except Unreachable as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: begun.exists() and begun.read_text().count("\n") == 2, 20, "the command's begin")
    line.cut()
    thread.join(30)
    assert "was cut (sh)" in failed[0].message
    for pid in begun.read_text().split():
        wait_for(lambda pid=int(pid): is_gone(pid), 20, "its end")  # type: ignore[misc]
    assert begun.read_text().count("\n") == 2, "it ran once"
    assert far.run(("true",)).ok, "the next command has a connection again"
    assert len(line.begun) == 2


def test_a_command_that_leaves_its_session_is_found_too(far: SshHost, line: Line, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    result = far.run(("setsid", "-w", "sh", "-c", f"echo $$ > {pid}; sleep 300"), timeout=1.0)
    assert result.code == 124
    wait_for(lambda: is_gone(int(pid.read_text())), 10, "its end")


def test_a_connection_cut_between_commands_is_made_again_once(far: SshHost, line: Line) -> None:
    assert far.run(("echo", "1")).out == "1\n"
    line.cut()
    assert far.run(("echo", "2")).out == "2\n"
    assert len(line.begun) == 2


# Connections


def test_one_connection_serves_all_commands_at_once(sshd: Sshd, far: SshHost, line: Line) -> None:
    before, said = sshd.logins(), []
    threads = [threading.Thread(target=lambda: said.append(far.run(("sleep", "0.3")).code)) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [0] * 30
    assert (len(line.begun), sshd.logins() - before) == (1, 1)


def test_an_sshd_with_one_session_at_a_time_is_enough(tmp_path: Path, here: Settings) -> None:
    with running(tmp_path / "sshd", MaxSessions=1) as sshd, contextlib.closing(sshd.host(here)) as host:
        said: list[str] = []
        threads = [threading.Thread(target=lambda: said.append(host.run(("echo", "1")).out)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert said == ["1\n"] * 6


def test_connects_keep_their_distance(sshd: Sshd, here: Settings, line: Line) -> None:
    hosts = [sshd.host(here, port=line.port) for _ in range(5)]
    threads = [threading.Thread(target=host.run, args=(("true",),)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for host in hosts:
        host.close()
    begun = sorted(line.begun)
    assert len(begun) == 5
    assert min(later - sooner for sooner, later in itertools.pairwise(begun)) > APART * 0.8


def test_an_sshd_that_is_too_busy_is_asked_again(tmp_path: Path, here: Settings) -> None:
    with running(tmp_path / "sshd", MaxStartups="1:100:1") as sshd:
        holder = socket.create_connection(("127.0.0.1", sshd.port))
        assert holder.recv(10)
        wait_for(lambda: not _first_bytes(sshd.port), 10, "sshd's refusal")
        threading.Timer(1.5, holder.close).start()
        with contextlib.closing(sshd.host(here)) as host:
            assert host.run(("true",)).ok


def _first_bytes(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.settimeout(2)
        with contextlib.suppress(OSError):
            return plain.recv(4).replace(b"Exce", b"")
        return b""


def test_a_login_shell_that_talks_is_not_listened_to(tmp_path: Path, here: Settings) -> None:
    with running(tmp_path / "sshd", ForceCommand='echo hello; echo oops >&2; sh -c "$SSH_ORIGINAL_COMMAND"') as sshd:
        (tmp_path / "file").write_text("content")
        with contextlib.closing(sshd.host(here)) as host:
            assert host.run(("echo", "1")).out == "1\n"
            host.put(tmp_path / "file", str(tmp_path / "there/file"))
            assert (tmp_path / "there/file").read_text() == "content"


def test_a_user_who_may_run_nothing_gets_his_machines_words(tmp_path: Path, here: Settings) -> None:
    refuse = "echo This account is not available. >&2; exit 1"
    with (
        running(tmp_path / "sshd", ForceCommand=refuse) as sshd,
        contextlib.closing(sshd.host(here)) as host,
        pytest.raises(Unreachable, match="not available"),
    ):
        host.run(("true",))


def test_a_machine_without_python_is_told_so(tmp_path: Path, here: Settings) -> None:
    with (
        running(tmp_path / "sshd", ForceCommand='PATH=/nowhere; eval "$SSH_ORIGINAL_COMMAND"') as sshd,
        contextlib.closing(sshd.host(here)) as host,
        pytest.raises(Unreachable, match="has no python3") as failed,
    ):
        host.run(("true",))
    assert "apt-get install python3" in failed.value.hint


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hostname": "no-such-machine.invalid"}, "nobody knows the host name"),
        ({"port": 1}, "nothing listens there"),
        ({"user": "nobody-of-that-name"}, "refuses the login of nobody-of-that-name with the key"),
    ],
)
def test_no_connection_is_told_in_words(sshd: Sshd, here: Settings, changes: dict[str, object], says: str) -> None:
    with pytest.raises(Unreachable, match=says) as failed:
        sshd.host(here, **changes).run(("true",))
    assert failed.value.hint


# Host keys


def test_an_unknown_machine_is_refused_with_fingerprint_and_remedy(tmp_path: Path, here: Settings) -> None:
    with running(tmp_path / "sshd") as sshd:
        shown = _ssh_keygen_says(sshd)
        with pytest.raises(PolicyRefused) as refused:
            sshd.host(here, host_key="").run(("true",))
        assert f"is not known yet; it shows the host key ssh-ed25519 {shown}" in refused.value.message
        assert f"mlpacker trust 127.0.0.1:{sshd.port} --fingerprint {shown}" in refused.value.hint
        _assert_no_login_was_tried(sshd, 0)


def test_a_trusted_machine_is_known_until_its_key_changes(tmp_path: Path, here: Settings) -> None:
    with running(tmp_path / "sshd") as sshd:
        remember(here, "127.0.0.1", sshd.port, shown_key("127.0.0.1", sshd.port, here))
        with contextlib.closing(sshd.host(here, host_key="")) as host:
            assert host.run(("true",)).ok
        old = _ssh_keygen_says(sshd)
        sshd.change_host_key()
        before = sshd.log.stat().st_size
        with pytest.raises(PolicyRefused) as refused:
            sshd.host(here, host_key="").run(("true",))
        assert f"another host key than before: ssh-ed25519 {_ssh_keygen_says(sshd)}, not {old}" in refused.value.message
        _assert_no_login_was_tried(sshd, before)
        remember(here, "127.0.0.1", sshd.port, shown_key("127.0.0.1", sshd.port, here))
        with contextlib.closing(sshd.host(here, host_key="")) as host:
            assert host.run(("true",)).ok


@pytest.mark.parametrize("pin", ["key", "fingerprint"])
def test_a_pinned_key_is_the_only_one(tmp_path: Path, here: Settings, pin: str) -> None:
    with running(tmp_path / "sshd") as sshd:
        pinned = sshd.public if pin == "key" else _ssh_keygen_says(sshd)
        with contextlib.closing(sshd.host(here, host_key=pinned)) as host:
            assert host.run(("true",)).ok
        sshd.change_host_key()
        remember(here, "127.0.0.1", sshd.port, shown_key("127.0.0.1", sshd.port, here))  # which is not asked
        before = sshd.log.stat().st_size
        with pytest.raises(PolicyRefused, match="another host key than the PADL file pins") as refused:
            sshd.host(here, host_key=pinned).run(("true",))
        assert _ssh_keygen_says(sshd) in refused.value.message
        _assert_no_login_was_tried(sshd, before)


def test_a_key_that_is_swapped_between_two_commands_is_noticed(tmp_path: Path, here: Settings) -> None:
    with running(tmp_path / "sshd") as sshd, contextlib.closing(sshd.host(here)) as host:
        assert host.run(("true",)).ok
        sshd.change_host_key()
        with pytest.raises(PolicyRefused):
            host.run(("true",))


def test_our_fingerprint_is_ssh_keygens(sshd: Sshd, here: Settings) -> None:
    assert fingerprint(shown_key("127.0.0.1", sshd.port, here)) == _ssh_keygen_says(sshd)


def _ssh_keygen_says(sshd: Sshd) -> str:
    program = require("ssh-keygen", "apt-get install openssh-client")
    return subprocess.check_output((program, "-lf", f"{sshd.host_key}.pub"), text=True).split()[1]


def _assert_no_login_was_tried(sshd: Sshd, before: int) -> None:
    """sshd names the user in every line of its log from the moment on that it hears one."""
    with sshd.log.open() as log:
        log.seek(before)
        text = log.read()
        while "[preauth]" not in text:  # the last line of a connection that came to nothing
            text += wait_for(log.read, 10, "sshd's log")
    lines = text.splitlines()
    assert any("Connection from 127.0.0.1" in line for line in lines), lines
    told = ("user", "Accepted", "Failed", "Postponed", "publickey")
    assert [line for line in lines if any(word in line for word in told)] == []


# Logins


def test_an_agents_key_logs_in(sshd: Sshd, here: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    agent = require("ssh-agent", "apt-get install openssh-client")
    place = tmp_path / "agent"
    process = subprocess.Popen((agent, "-D", "-a", str(place)), stdout=subprocess.DEVNULL)
    try:
        wait_for(place.exists, 10, "the agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(Unreachable, match="with the SSH agent"):
            sshd.host(here, key_file="", own_keys=True).run(("true",))
        subprocess.run((require("ssh-add", ""), "-q", str(sshd.key)), check=True, stdin=subprocess.DEVNULL)
        with contextlib.closing(sshd.host(here, key_file="", own_keys=True)) as host:
            assert host.run(("true",)).ok
    finally:
        process.terminate()
        process.wait()


def test_a_key_as_text_logs_in(sshd: Sshd, here: Settings) -> None:
    with contextlib.closing(sshd.host(here, key_file="", key_text=sshd.key.read_text())) as host:
        assert host.run(("true",)).ok


def test_without_a_secret_nothing_is_tried(sshd: Sshd, here: Settings) -> None:
    with pytest.raises(PolicyRefused, match="names no secret"):
        sshd.host(here, key_file="").run(("true",))


# Secrets


def test_no_secret_of_a_command_is_on_any_command_line(remote: SshHost, sshd: Sshd, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    script = f"read line; echo $line | wc -c; touch {begun}; until test -e {go}; do sleep 0.05; done"
    thread = threading.Thread(
        target=remote.run,
        args=(("sh", "-c", script),),
        kwargs={"env": {"PATH": "/usr/bin:/bin", "PASSWORD": SENTINEL}, "input": f"{SENTINEL}\n"},
    )
    thread.start()
    wait_for(begun.exists, 20, "the command's begin")
    try:
        assert SENTINEL not in _command_lines()
        assert script in _command_lines(), "else the look itself is blind"
    finally:
        go.touch()
        thread.join()
    assert SENTINEL not in sshd.log.read_text()
    assert SENTINEL not in repr(remote.login)


def _command_lines() -> str:
    lines = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lines.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(lines)


def test_a_private_file_is_never_readable_by_others(remote: SshHost, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "there/secret"
    source.write_bytes(b"x" * 30_000_000)
    source.chmod(0o644)
    seen: set[int] = set()
    thread = threading.Thread(target=remote.put, args=(source, str(target), 0o600))
    thread.start()
    while thread.is_alive():
        with contextlib.suppress(OSError):  # gone while we look
            seen |= {path.stat().st_mode & 0o077 for path in target.parent.rglob("*")}
    thread.join()
    assert seen == {0}


# Folders


def test_a_link_that_was_there_first_is_not_followed(remote: SshHost, sshd: Sshd, tmp_path: Path) -> None:
    from packer_lib.errors import DeployFailed
    from packer_lib.hosts.home import prepare
    from packer_lib.hosts.layout import Layout

    trap = tmp_path / "trap"
    trap.mkdir()
    home = Path(remote.home)
    assert home == sshd.home / ".mlpacker"
    home.symlink_to(trap)
    try:
        with pytest.raises(DeployFailed, match="is not a folder of ours alone"):
            prepare(remote, Layout(remote.home))
        assert list(trap.iterdir()) == []
    finally:
        home.unlink()
    home.mkdir()
    home.chmod(0o777)
    with pytest.raises(DeployFailed, match="mode 777"):
        prepare(remote, Layout(remote.home))
    home.rmdir()
    prepare(remote, Layout(remote.home))
    assert home.stat().st_mode & 0o777 == 0o700
