"""This machine as a host."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from packer_lib.hosts import Result

TIMED_OUT, NOT_FOUND = 124, 127


class LocalHost:
    """Commands run as the user who deploys, each in a process group of its own."""

    name = "this machine"
    python = sys.executable

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
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=None if env is None else dict(env),
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            return Result(NOT_FOUND, err=f"{argv[0]}: {error.strerror}")
        return _finish(process, input, timeout)

    def put(self, source: Path, target: str, mode: int | None = None) -> None:
        place = Path(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            _put_folder(source, place)
        else:
            _put_file(source, place, mode)

    def close(self) -> None:
        """Nothing is held."""


def _finish(process: subprocess.Popen[str], given: str | None, timeout: float | None) -> Result:
    try:
        out, err = process.communicate(given, timeout)
    except subprocess.TimeoutExpired:
        _kill_group(process)
        out, err = process.communicate()
        return Result(TIMED_OUT, out, f"{err}\nstopped after {timeout:g} s")
    except BaseException:
        _kill_group(process)
        process.wait()
        raise
    return Result(process.returncode, out, err)


def _kill_group(process: subprocess.Popen[str]) -> None:
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
