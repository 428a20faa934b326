"""Environments and checks, with tiny bundles; what uv says is uv's."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from packer_lib import build
from packer_lib.bundle import Bundle
from packer_lib.errors import BuildFailed
from packer_lib.hosts.local import LocalHost
from packer_lib.settings import Settings
from tests import tiny

pytestmark = pytest.mark.native


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def _locked(bundle: Bundle, lock: str) -> Bundle:
    (bundle.path / "requirements.lock").write_text(lock)
    digest = hashlib.sha256(lock.encode()).hexdigest()
    return replace(bundle, lock_digest=digest, digest=hashlib.sha256(digest.encode()).hexdigest())


def test_an_environment_is_made_once_and_shared(settings: Settings, tmp_path: Path) -> None:
    said: list[str] = []
    first = build.environment(LocalHost(settings), tiny.bundle(tmp_path / "a"), settings, said.append)
    assert said[0].startswith("installing what the unit needs")
    before = Path(first.python).lstat().st_mtime_ns
    second = build.environment(LocalHost(settings), tiny.bundle(tmp_path / "b", {"other": 1}), settings, said.append)
    assert len(said) == 2
    assert second.python == first.python
    assert second.folder != first.folder
    assert Path(first.python).lstat().st_mtime_ns == before


def test_scripts_of_an_environment_run_where_it_ended_up(settings: Settings, tmp_path: Path) -> None:
    environment = build.environment(LocalHost(settings), tiny.bundle(tmp_path / "a"), settings)
    said = LocalHost(settings).run((environment.python, "-c", "import sys; print(sys.prefix)")).out.strip()
    assert said == str(Path(environment.python).parent.parent)


def test_two_builders_of_one_environment_make_one(settings: Settings, tmp_path: Path) -> None:
    said: list[str] = []
    bundles = [tiny.bundle(tmp_path / name) for name in ("a", "b", "c")]
    work = [Thread(target=build.environment, args=(LocalHost(settings), one, settings, said.append)) for one in bundles]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert sum(line.startswith("installing") for line in said) == 1
    (lock,) = {one.lock_digest for one in bundles}
    assert {path.name for path in (settings.home / "envs").iterdir()} == {lock, f"{lock}.for"}
    assert {path.name for path in (settings.home / "envs" / f"{lock}.for").iterdir()} == {one.digest for one in bundles}


def test_a_half_built_environment_is_built_again(settings: Settings, tmp_path: Path) -> None:
    bundle = tiny.bundle(tmp_path / "a")
    half = settings.home / "envs" / f"{bundle.lock_digest}.building"
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").write_text("not a python")
    environment = build.environment(LocalHost(settings), bundle, settings)
    assert LocalHost(settings).run((environment.python, "-c", "")).ok
    assert not half.exists()


def test_an_environment_whose_python_is_gone_is_built_again(settings: Settings, tmp_path: Path) -> None:
    bundle = tiny.bundle(tmp_path / "a")
    python = Path(build.environment(LocalHost(settings), bundle, settings).python)
    python.unlink()
    python.symlink_to("/no/such/python")
    assert LocalHost(settings).run((build.environment(LocalHost(settings), bundle, settings).python, "-c", "")).ok


@pytest.mark.parametrize(
    ("lock", "says"),
    [
        ("six==1.17.0\n", "hash"),
        ("six==1.17.0 --hash=sha256:" + "0" * 64 + "\n", "six"),
    ],
)
def test_requirements_that_cannot_be_installed_fail_with_the_words_of_uv(
    settings: Settings, tmp_path: Path, lock: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    bundle = _locked(tiny.bundle(tmp_path / "a"), lock)
    with pytest.raises(BuildFailed, match="the requirements cannot be installed") as failed:
        build.environment(LocalHost(settings), bundle, settings)
    assert says in failed.value.message
    assert failed.value.hint
    assert not (settings.home / "envs" / bundle.lock_digest).exists()


def test_a_check_that_passed_is_not_run_again(settings: Settings, tmp_path: Path) -> None:
    bundle = tiny.bundle(tmp_path / "a")
    environment = build.environment(LocalHost(settings), bundle, settings)
    build.check(LocalHost(settings), bundle, environment)
    (Path(environment.folder) / "service.py").write_text("raise SystemExit('again')")
    build.check(LocalHost(settings), bundle, environment)


def test_a_check_that_fails_shows_what_was_said_and_is_run_again(settings: Settings, tmp_path: Path) -> None:
    bundle = tiny.bundle(tmp_path / "a", {"check": 1})
    environment = build.environment(LocalHost(settings), bundle, settings)
    for _ in range(2):
        with pytest.raises(BuildFailed, match="the unit does not start: looking at the model"):
            build.check(LocalHost(settings), bundle, environment)


def test_a_check_has_the_plans_variables_and_nothing_of_the_deployer(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTINEL", "hunter2")
    bundle = tiny.bundle(tmp_path / "a", entry="main.py")
    (bundle.path / "main.py").write_text("import os, sys\nprint(dict(os.environ))\nsys.exit(1)\n")
    environment = build.environment(LocalHost(settings), bundle, settings)
    with pytest.raises(BuildFailed) as failed:
        build.check(LocalHost(settings), bundle, environment, {"LIMIT": "a\n'b'"})
    assert repr("a\n'b'") in failed.value.message
    assert "hunter2" not in failed.value.message


def test_a_check_that_hangs_is_ended(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "CHECK_WITHIN", 1.0)
    bundle = tiny.bundle(tmp_path / "a", entry="main.py")
    (bundle.path / "main.py").write_text("import time\ntime.sleep(60)\n")
    environment = build.environment(LocalHost(settings), bundle, settings)
    begun = time.monotonic()
    with pytest.raises(BuildFailed, match="stopped after 1 s"):
        build.check(LocalHost(settings), bundle, environment)
    assert time.monotonic() - begun < 20


def test_long_work_says_that_it_goes_on(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "TELL_EVERY", 0.01)
    said: list[str] = []
    with build.telling(said.append, "installing"):
        end = time.monotonic() + 10
        while len(said) < 3 and time.monotonic() < end:
            os.sched_yield()
    assert said[0] == "installing"
    assert said[1].startswith("  still at it after")
    assert said[-1].startswith("  done in")
