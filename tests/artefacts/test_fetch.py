"""What `fetch` leaves in the store: content by digest, once, all or nothing."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from packer_lib import artefacts
from packer_lib.artefacts import store
from packer_lib.artefacts.files import CODE, read_tree, tree_digest
from packer_lib.errors import BuildFailed, PolicyRefused
from tests.artefacts import cases


def test_a_model_file_is_kept_under_its_sha256(tmp_path: Path) -> None:
    data = cases.write_model(tmp_path).read_bytes()
    plan = cases.plan(tmp_path, cases.model())
    (found,) = artefacts.fetch(plan, plan.units[0], cases.settings(tmp_path))
    assert found.digest == hashlib.sha256(data).hexdigest()
    assert found.path == tmp_path / "home/store" / found.digest
    assert found.path.read_bytes() == data


def test_a_saved_model_is_kept_as_a_folder_under_its_tree_digest(tmp_path: Path) -> None:
    (tmp_path / "lstm/variables").mkdir(parents=True)
    (tmp_path / "lstm/saved_model.pb").write_bytes(b"\x08\x01")
    (tmp_path / "lstm/variables/variables.index").write_bytes(b"x")
    plan = cases.plan(tmp_path, cases.model("lstm", "savedmodel", framework="tensorflow"))
    (found,) = artefacts.fetch(plan, plan.units[0], cases.settings(tmp_path))
    assert found.digest == tree_digest(read_tree(found.path, CODE))
    assert sorted(path.name for path in found.path.rglob("*")) == ["saved_model.pb", "variables", "variables.index"]


def test_code_is_kept_without_caches_and_environments(tmp_path: Path) -> None:
    folder = cases.write_code(tmp_path)
    for left_out in (".git/HEAD", "__pycache__/main.cpython-311.pyc", ".venv/bin/python", "old.pyc"):
        (folder / left_out).parent.mkdir(parents=True, exist_ok=True)
        (folder / left_out).write_text("x")
    plan = cases.plan(tmp_path, cases.code())
    (found,) = artefacts.fetch(plan, plan.units[0], cases.settings(tmp_path))
    assert [path.name for path in found.path.rglob("*")] == ["main.py"]


def test_steps_come_in_the_order_of_the_unit(tmp_path: Path) -> None:
    cases.write_model(tmp_path), cases.write_code(tmp_path)
    plan = cases.plan(tmp_path, cases.code(), cases.model())
    found = artefacts.fetch(plan, plan.units[0], cases.settings(tmp_path))
    assert [(one.step, one.kind) for one in found] == [("prepare", "code"), ("classify", "model")]


def test_what_is_wrong_is_an_error_with_the_step_and_leaves_nothing_behind(tmp_path: Path) -> None:
    cases.write_model(tmp_path)
    for step in (cases.model("no.pickle"), cases.code("./nothing"), cases.model(sha256="0" * 64)):
        plan = cases.plan(tmp_path, step)
        with pytest.raises(BuildFailed, match=f"step '{step.name}': "):
            artefacts.fetch(plan, plan.units[0], cases.settings(tmp_path))
    plan = cases.plan(tmp_path, cases.model("/etc/passwd"))
    with pytest.raises(PolicyRefused):
        artefacts.fetch(plan, plan.units[0], cases.settings(tmp_path))
    assert list((tmp_path / "home/store").glob(".new-*")) == []


def test_a_home_behind_a_link_works(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "real")
    cases.write_model(tmp_path), cases.write_code(tmp_path)
    plan = cases.plan(tmp_path, cases.code(), cases.model())
    assert len(artefacts.fetch(plan, plan.units[0], cases.settings(tmp_path))) == 2


def test_many_who_put_the_same_at_once_all_get_it(tmp_path: Path) -> None:
    folder = cases.write_code(tmp_path, **{f"module{number}__py": "x = 1\n" for number in range(20)})
    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(lambda _: store.put_tree(tmp_path / "store", folder, CODE), range(32)))
    assert len(set(places)) == 1
    assert [path.name for path in (tmp_path / "store").iterdir()] == [places[0].name]
    assert tree_digest(read_tree(places[0], CODE)) == places[0].name


def test_a_put_that_is_killed_leaves_nothing_under_a_digest(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from packer_lib.artefacts import store
class Dying:
    def __init__(self): self.left = 3
    def read(self, size):
        self.left -= 1
        if not self.left: os.kill(os.getpid(), signal.SIGKILL)
        return b"x" * 1000
store.put_file(Path(sys.argv[1]), Dying(), 1 << 30)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "store")], env={**os.environ}, check=False)
    assert done.returncode == -9
    (left,) = (tmp_path / "store").iterdir()
    assert left.name.startswith(".new-")
    os.utime(left, (0, 0))
    store.put_file(tmp_path / "store", io.BytesIO(b"x"), 1)
    assert [path.name for path in (tmp_path / "store").iterdir()] == [hashlib.sha256(b"x").hexdigest()]
