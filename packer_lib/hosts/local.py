"""This machine as a host."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO

from packer_lib.hosts import Result
from packer_lib.settings import Settings

TIMED_OUT, NOT_FOUND = 124, 127
KEPT = ("PATH", "HOME", "USER", "LOGNAME", "TZ")


class LocalHost:
    """Commands run as the user who deploys, each in a process group of its own."""

    name = "this machine"
    machine: str | None = None
    python = sys.executable

    def __init__(self, settings: Settings) -> None:
        self.address = settings.bind
        self.home = str(settings.home)
        self.docker = settings.docker
        self.uid = os.getuid()
        self.environ = {"LANG": "C.UTF-8", **{name: os.environ[name] for name in KEPT if name in os.environ}}

    @cached_property
    def uv(self) -> str:
        """The uv that came with this installation."""
        from uv import find_uv_bin

        return find_uv_bin()

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float | None = None,
    ) -> Result:
        try:
            process = _start(argv, env, subprocess.DEVNULL if input is None else subprocess.PIPE)
        except OSError as error:
            return Result(NOT_FOUND, err=f"{argv[0]}: {error.strerror}")
        return _finish(process, None if input is None else input.encode(), timeout)

    def pour(self, argv: Sequence[str], chunks: Iterable[bytes], *, timeout: float | None = None) -> Result:
        """`chunks` are asked for on a thread of their own; what they raise ends the command and is raised again."""
        try:
            process = _start(argv, None, subprocess.PIPE)
        except OSError as error:
            return Result(NOT_FOUND, err=f"{argv[0]}: {error.strerror}")
        failed: list[BaseException] = []
        stdin, process.stdin = process.stdin, None  # `communicate` would close it under the thread
        thread = threading.Thread(target=_feed, args=(process, stdin, chunks, failed), daemon=True)
        thread.start()
        result = _finish(process, None, timeout)
        thread.join()
        if failed:
            raise failed[0]
        return result

    def listen(self, argv: Sequence[str]) -> Generator[str, None, None]:
        process = _start(argv, None, subprocess.DEVNULL, subprocess.STDOUT)
        try:
            for line in process.stdout or ():
                yield _text(line).rstrip("\n")
        finally:
            _kill_group(process)
            process.communicate()

    def put(self, source: Path, target: str, mode: int | None = None) -> None:
        place = Path(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            _put_folder(source, place)
        else:
            _put_file(source, place, mode)

    def close(self) -> None:
        """Nothing is held."""


def _start(
    argv: Sequence[str], env: Mapping[str, str] | None, stdin: int, stderr: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    process = None
    late: list[int] = []
    try:
        with _kept(late):
            process = subprocess.Popen(
                list(argv),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=None if env is None else dict(env),
                start_new_session=True,
            )
    finally:
        _deliver(late, process)
    return process


@contextlib.contextmanager
def _kept(late: list[int]) -> Iterator[None]:
    """Ctrl-C and TERM are noted in `late` while a process is being started: an exception between `fork` and the end of
    `Popen` would leave one that nobody knows of. A signal that is ignored, or not ours to handle, stays as it is."""
    handled = {}
    if threading.current_thread() is threading.main_thread():
        numbers = (signal.SIGINT, signal.SIGTERM)
        handled = {number: former for number in numbers if callable(former := signal.getsignal(number))}
    for number in handled:
        signal.signal(number, lambda number, _: late.append(number))
    try:
        yield
    finally:
        for number, former in handled.items():
            signal.signal(number, former)


def _deliver(late: list[int], process: subprocess.Popen[bytes] | None) -> None:
    try:
        for number in late:
            signal.raise_signal(number)
    except BaseException:
        if process:
            _kill_group(process)
            process.communicate()
        raise


def _feed(
    process: subprocess.Popen[bytes], stdin: IO[bytes], chunks: Iterable[bytes], failed: list[BaseException]
) -> None:
    try:
        with stdin:
            for chunk in chunks:
                stdin.write(chunk)
    except BrokenPipeError:
        pass  # it ended before: its code says why
    except BaseException as error:
        failed.append(error)
        _kill_group(process)


def _finish(process: subprocess.Popen[bytes], given: bytes | None, timeout: float | None) -> Result:
    try:
        out, err = process.communicate(given, timeout)
    except subprocess.TimeoutExpired:
        _kill_group(process)
        out, err = process.communicate()
        return Result(TIMED_OUT, _text(out), f"{_text(err)}\nstopped after {timeout:g} s")
    except BaseException:
        _kill_group(process)
        process.wait()
        raise
    return Result(process.returncode, _text(out), _text(err))


def _text(said: bytes) -> str:
    return said.decode("utf-8", "replace")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _put_file(source: Path, place: Path, mode: int | None) -> None:
    # mkstemp makes it 0600, so that a secret is never readable by others, not even for a moment.
    handle, temporary = tempfile.mkstemp(prefix=".put-", dir=place.parent)
    os.close(handle)
    try:
        shutil.copyfile(source, temporary)
        Path(temporary).chmod(mode if mode is not None else source.stat().st_mode & 0o777)
        Path(temporary).replace(place)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _put_folder(source: Path, place: Path) -> None:
    if place.exists():
        return
    temporary = Path(tempfile.mkdtemp(prefix=".put-", dir=place.parent))
    try:
        shutil.copytree(source, temporary, symlinks=True, dirs_exist_ok=True)
        temporary.rename(place)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        if not place.exists():  # else another process put the same content first
            raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
