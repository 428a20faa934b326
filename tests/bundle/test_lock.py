"""The committed locks, their merge, and what a step's own requirements make of them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

from packer_lib.artefacts.requirements import Wanted
from packer_lib.bundle import lock, locks
from packer_lib.bundle.lock import TARGETS, Pin
from packer_lib.errors import BuildFailed
from tests.support import ROOT

UV_LOCK: dict[str, list[dict[str, Any]]] = {}
for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
    UV_LOCK.setdefault(package["name"], []).append(package)
SIX = "six==1.17.0 --hash=sha256:" + "0" * 64


def wish(text: str, line: int = 1) -> Wanted:
    return Wanted(Requirement(text), "code/requirements.txt", line)


def locked(pin: Pin) -> dict[str, Any]:
    """The package of `pin` in uv.lock."""
    return next(package for package in UV_LOCK[pin.name] if package["version"] == pin.version)


@pytest.mark.parametrize("need", locks.needs())
def test_every_pin_is_a_version_of_uv_lock_with_the_hashes_of_its_wheels(need: str) -> None:
    for pin in lock.parse(locks.read(need)):
        assert set(pin.hashes) == {wheel["hash"] for wheel in locked(pin)["wheels"]}, pin.name


@pytest.mark.parametrize("need", locks.needs())
def test_every_pin_has_a_wheel_for_every_machine_we_support(need: str) -> None:
    for pin in lock.parse(locks.read(need)):
        tags = [tag for wheel in locked(pin)["wheels"] for tag in parse_wheel_filename(wheel["url"].split("/")[-1])[3]]
        for target in TARGETS:
            if pin.holds(target):
                assert any(runs(tag, target) for tag in tags), f"{pin.name} {pin.version} on {target}"


def runs(tag: Tag, target: dict[str, str]) -> bool:
    """Whether a wheel with `tag` installs on glibc Linux with that Python and machine."""
    minor = int(target["python_version"].split(".")[1])
    pure = tag.interpreter in {"py3", "py2.py3"} or tag.interpreter == f"py3{minor}"
    older = tag.abi == "abi3" and tag.interpreter.startswith("cp3") and int(tag.interpreter[3:]) <= minor
    machine = tag.platform == "any" or (
        tag.platform.startswith(("manylinux", "linux")) and tag.platform.endswith(target["platform_machine"])
    )
    return machine and (pure or older or tag.interpreter == f"cp3{minor}")


@pytest.mark.parametrize("need", locks.needs())
def test_a_lock_holds_the_whole_closure_of_its_need_on_every_machine(need: str) -> None:
    """Walks the dependencies in uv.lock from the direct requirements and finds each pinned where it applies."""
    pins = lock.parse(locks.read(need))
    for target in TARGETS:
        waiting = [Requirement(line) for line in locks.needs()[need]]
        names = {item.name.lower() for item in waiting if not item.marker or item.marker.evaluate(target)}
        seen: set[str] = set()
        while names - seen:
            name = sorted(names - seen)[0]
            seen.add(name)
            (pin,) = [pin for pin in pins if pin.name == name and pin.holds(target)]
            needed = locked(pin).get("dependencies", [])
            names |= {item["name"] for item in needed if Pin("", "", item.get("marker", ""), ()).holds(target)}


def test_no_lock_names_an_index() -> None:
    for need in locks.needs():
        assert not any(word in locks.read(need) for word in ("://", "--index", "--find-links"))
        assert "://" not in locks.read(need)


@pytest.mark.parametrize("count", [1, 2, 3, len(locks.needs())])
def test_locks_merge_into_one_version_a_package_on_every_machine_in_any_order(count: int) -> None:
    for needs in combinations(sorted(locks.needs()), count):
        texts = [locks.read(need) for need in needs]
        merged = lock.merge(texts)
        assert lock.render(merged) == lock.render(lock.merge(reversed(texts)))
        assert lock.parse(lock.render(merged)) == merged
        for target in TARGETS:
            names = [pin.name for pin in merged if pin.holds(target)]
            assert len(names) == len(set(names)), needs


def test_there_is_a_lock_for_every_need_and_no_other() -> None:
    assert {path.stem for path in locks.FOLDER.glob("*.txt")} == set(locks.needs())


def test_one_version_under_two_markers_holds_under_either() -> None:
    windows = SIX.replace("0 --", "0 ; sys_platform == 'win32' --")
    old = SIX.replace("0 --", "0 ; python_version < '3.12' --")
    (both,) = lock.merge([windows, old])
    assert both.marker == "(python_version < '3.12') or (sys_platform == 'win32')"
    (everywhere,) = lock.merge([windows, SIX])
    assert everywhere.marker == ""


def test_a_line_that_is_no_pin_is_not_ignored() -> None:
    with pytest.raises(ValueError, match="not a pin"):
        lock.parse("six>=1\n")


@pytest.mark.parametrize(
    "text", ["numpy", "numpy>=2", "NumPy", "scikit_learn==1.9.1", "colorama ; sys_platform == 'win32'"]
)
def test_what_the_locks_answer_already_needs_no_index(tmp_path: Path, text: str) -> None:
    pins = lock.merge([locks.read("scikit-learn")])
    assert lock.resolve((), [wish(text)], pins, tmp_path / "cache") == lock.render(pins)
    assert not (tmp_path / "cache").exists()


@pytest.mark.native
def test_new_requirements_are_added_and_our_versions_stay_where_they_can(tmp_path: Path) -> None:
    direct, pins = locks.needs()["scikit-learn"], lock.merge([locks.read("scikit-learn")])
    text = lock.resolve(direct, [wish("idna==3.10"), wish("narwhals<2.28")], pins, tmp_path)
    found = {pin.name: pin for pin in lock.parse(text)}
    assert found["idna"].version == "3.10"
    assert found["narwhals"].version.startswith("2.27")
    kept = {(pin.name, pin.version) for pin in pins if pin.name != "narwhals"}
    assert kept <= {(pin.name, pin.version) for pin in lock.parse(text)}
    assert all(pin.hashes for pin in found.values())
    assert "://" not in text


@pytest.mark.native
def test_the_same_requirements_are_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = lock.merge([locks.read("mqtt")])
    first = lock.resolve(locks.needs()["mqtt"], [wish("idna==3.10")], pins, tmp_path)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    assert lock.resolve(locks.needs()["mqtt"], [wish("idna==3.10", line=7)], pins, tmp_path) == first
    with pytest.raises(BuildFailed):
        lock.resolve(locks.needs()["mqtt"], [wish("idna==3.9")], pins, tmp_path)


@pytest.mark.native
def test_what_cannot_be_resolved_is_named_with_its_line(tmp_path: Path) -> None:
    direct, pins = locks.needs()["scikit-learn"], lock.merge([locks.read("scikit-learn")])
    wanted = [wish("idna"), wish("scikit-learn==1.5.0", 4)]
    with pytest.raises(BuildFailed) as failed:
        lock.resolve(direct, wanted, pins, tmp_path)
    assert "code/requirements.txt:4: scikit-learn==1.5.0" in failed.value.message
    assert "idna" not in failed.value.message.split("uv:")[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.native
def test_a_package_without_wheels_is_not_built_here(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="wheel"):
        lock.resolve((), [wish("docopt==0.6.2")], (), tmp_path)


@pytest.mark.native
@pytest.mark.slow
@pytest.mark.parametrize(
    ("needs", "modules"),
    [
        (("api", "scikit-learn"), "bentoml, uvicorn, sklearn, skops.io, prometheus_client, orjson"),
        (("stream", "mqtt", "scikit-learn"), "paho.mqtt.client, sklearn, skops.io, prometheus_client, orjson"),
        (("stream", "kafka", "tensorflow"), "confluent_kafka, tensorflow, prometheus_client, orjson"),
        (("stream", "websocket"), "websockets, prometheus_client, orjson"),
    ],
)
def test_a_merged_lock_installs_by_hash_and_imports(tmp_path: Path, needs: tuple[str, ...], modules: str) -> None:
    (tmp_path / "requirements.lock").write_text(lock.render(lock.merge(locks.read(need) for need in needs)))
    python = tmp_path / "venv/bin/python"
    uv = [str(lock.find_uv_bin()), "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, tmp_path / "venv"], check=True)
    sync = ["pip", "sync", "--python", str(python), "--require-hashes", "--only-binary", ":all:"]
    subprocess.run([*uv, *sync, tmp_path / "requirements.lock"], check=True)
    subprocess.run([*uv, "pip", "check", "--python", str(python)], check=True)
    subprocess.run([python, "-I", "-c", f"import {modules}"], check=True, cwd=tmp_path)
