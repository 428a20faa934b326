"""A bundle is all or nothing, the same bytes for the same input, and holds no secret and no path of this machine."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from packer_lib import artefacts, bundle
from packer_lib.artefacts import Artefact
from packer_lib.bundle import render
from packer_lib.errors import BuildFailed
from packer_lib.padl.model import Golden, PackageMode, Queue
from packer_lib.runtime import manifest as manifests
from tests.artefacts import cases as made
from tests.bundle import cases
from tests.support import ROOT


@pytest.mark.parametrize("kind", cases.KINDS)
def test_the_same_input_gives_the_same_bytes_wherever_and_whenever_it_is_written(tmp_path: Path, kind: str) -> None:
    first = cases.write(tmp_path / "here", kind)
    umask = os.umask(0o077)
    try:
        second = cases.write(tmp_path / "there", kind)
    finally:
        os.umask(umask)
    assert (first.digest, first.lock_digest, first.models) == (second.digest, second.lock_digest, second.models)
    assert cases.files(first) == cases.files(second)
    assert modes(first.path) == modes(second.path)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in folder.rglob("*")}


def test_another_process_with_another_environment_gives_the_same_digest(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from tests.bundle import cases; "
    code += "print(cases.write(Path(sys.argv[1]), 'stream-chain-kafka').digest)"
    digests = set()
    for number, env in enumerate([{"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}, {"PYTHONHASHSEED": "2", "LC_ALL": "C"}]):
        argv = [sys.executable, "-c", code, str(tmp_path / str(number))]
        done = subprocess.run(argv, cwd=ROOT, env={"PATH": os.environ["PATH"], **env}, capture_output=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1


def test_opening_a_bundle_gives_what_writing_it_gave(tmp_path: Path) -> None:
    written = cases.write(tmp_path, "stream-chain-kafka")
    (written.path / "mlpacker_runtime/__pycache__").mkdir()
    (written.path / "mlpacker_runtime/__pycache__/chain.cpython-311.pyc").write_bytes(b"x")
    assert bundle.open_bundle(written.path) == written
    assert written.models == (("classify", hashlib.sha256((tmp_path / "model.pickle").read_bytes()).hexdigest()),)
    assert written.lock_digest == hashlib.sha256((written.path / "requirements.lock").read_bytes()).hexdigest()


@pytest.mark.parametrize("path", ["unit.json", "code/prepare/main.py", "models/classify/model.pickle", "main.py"])
def test_any_changed_file_is_another_digest(tmp_path: Path, path: str) -> None:
    written = cases.write(tmp_path, "stream-chain-kafka")
    with (written.path / path).open("ab") as file:
        file.write(b"\n")
    assert bundle.open_bundle(written.path).digest != written.digest


def test_a_folder_that_is_no_bundle_is_neither_opened_nor_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    with pytest.raises(BuildFailed, match="not a bundle"):
        bundle.open_bundle(mine)
    with pytest.raises(BuildFailed, match="is there and is not a bundle"):
        cases.write(tmp_path / "work", "stream-code-mqtt", mine)
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


def test_a_bundle_that_is_there_is_replaced_as_a_whole(tmp_path: Path) -> None:
    cases.write(tmp_path, "stream-code-mqtt")
    second = cases.write(tmp_path, "stream-sklearn-mqtt")
    assert bundle.open_bundle(second.path) == second
    assert not (second.path / "code").exists()


def test_a_damaged_store_is_noticed_and_leaves_the_former_bundle(tmp_path: Path) -> None:
    written = cases.write(tmp_path, "stream-sklearn-mqtt")
    (kept,) = (tmp_path / "home/store").iterdir()
    kept.chmod(0o644)
    kept.write_bytes(b"\x80\x04other")
    plan = made.plan(tmp_path, made.model())
    artefact = Artefact("classify", "model", kept, kept.name)
    with pytest.raises(BuildFailed, match="was changed in the store"):
        bundle.write(plan, plan.units[0], [artefact], written.path, made.settings(tmp_path))
    assert bundle.open_bundle(written.path) == written
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_the_manifest_says_what_the_padl_says(tmp_path: Path) -> None:
    first = replace(made.code(inputs=("k1",), outputs=("classify",)), on_error="dead_letter", dead_letter="q1")
    last = replace(made.model(inputs=("prepare",), outputs=("k2",)), test=Golden([1.0], 2.0))
    made.write_code(tmp_path)
    made.write_model(tmp_path)
    plan = made.plan(tmp_path, first, last)
    found = artefacts.fetch(plan, plan.units[0], made.settings(tmp_path))
    written = bundle.write(plan, plan.units[0], found, tmp_path / "bundle", made.settings(tmp_path))
    told = manifests.load(written.path)
    assert list(told.queues) == ["k1", "k2", "q1"]
    assert [(step.name, step.path) for step in told.steps] == [
        ("prepare", "code/prepare"),
        ("classify", "models/classify/model.pickle"),
    ]
    assert told.steps[0].dead_letter == "q1"
    assert told.steps[1].test == {"input": [1.0], "output": 2.0}
    assert all((written.path / step.path).exists() for step in told.steps)
    assert (written.path / "mlpacker_runtime/connectors/mqtt.py").exists()


def test_environments_and_paths_of_this_machine_are_not_in_a_bundle(tmp_path: Path) -> None:
    secret = "hunter2-" + "x" * 20
    made.write_code(tmp_path)
    step = made.code(env={"TOKEN": secret})
    plan = replace(made.plan(tmp_path, step), env=(("PASSWORD", secret),))
    found = artefacts.fetch(plan, plan.units[0], made.settings(tmp_path))
    written = bundle.write(plan, plan.units[0], found, tmp_path / "bundle", made.settings(tmp_path))
    everything = b"".join(cases.files(written).values())
    assert secret.encode() not in everything
    assert str(tmp_path).encode() not in everything


def test_the_requirements_of_a_code_step_are_beside_ours(tmp_path: Path) -> None:
    made.write_code(tmp_path, requirements__txt="orjson>=3  # fast\n")
    plan = made.plan(tmp_path, made.code())
    found = artefacts.fetch(plan, plan.units[0], made.settings(tmp_path))
    written = bundle.write(plan, plan.units[0], found, tmp_path / "bundle", made.settings(tmp_path))
    lines = (written.path / "requirements.txt").read_text().splitlines()
    assert "orjson>=3" in lines
    assert "paho-mqtt==2.2.0" in lines


TEXT = st.text(min_size=1, max_size=30)
NASTY = [
    "\nRUN touch /x",
    "`id`",
    "$(id)",
    "${PATH}",
    "\\",
    "\0",
    "\u2028RUN x",
    "{{ 7*7 }}",
    "{% raw %}",
    '"""',
    "'; import os",
]
HOSTILE = TEXT | st.sampled_from(NASTY)


def instructions(dockerfile: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", "", dockerfile)
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    made.write_code(folder)
    made.write_model(folder)
    return folder


@given(values=st.lists(HOSTILE, min_size=8, max_size=8), named=st.booleans(), mode=st.sampled_from(["stream", "api"]))
@hypothesis_settings(max_examples=200, deadline=None)
def test_no_value_of_a_padl_changes_a_dockerfile_or_a_program(
    hostile: Path, values: list[str], named: bool, mode: PackageMode
) -> None:
    pipeline, name, function, ref, queue, topic, env, server = values
    step = name if named else "prepare"
    code = replace(made.code(), name=step, inputs=(queue,), outputs=("classify",), function=function, ref=ref)
    code = replace(code, env={env: env}, description=topic)
    model = replace(made.model(), inputs=(step,), outputs=(queue,), description=topic)
    plan = replace(made.plan(hostile, code, model, mode=mode), pipeline=pipeline, env=((env, env),))
    plan = replace(plan, queues=(Queue(queue, "mqtt", server, 1883, topic, {"config": {topic: env}}),))
    unit = replace(plan.units[0], sources=(queue,), sinks=(queue,))
    found = artefacts.fetch(plan, unit, made.settings(hostile))
    before = {path for path in hostile.rglob("*") if "bundle" not in path.parts and "store" not in path.parts}
    try:
        written = bundle.write(plan, unit, found, hostile / "bundle", made.settings(hostile))
    except BuildFailed:
        assert not render.FOLDER_NAME.fullmatch(step)
        return
    finally:
        assert before == {path for path in hostile.rglob("*") if {"bundle", "store"}.isdisjoint(path.parts)}
    assert {path: (written.path / path).read_text() for path in GOLDEN[mode]} == GOLDEN[mode]
    told = manifests.load(written.path)
    assert (told.pipeline, told.steps[0].name, told.queues[queue].topic) == (pipeline, step, topic)


GOLDEN = {mode: render.texts(mode, frozenset({"code", "model"})) for mode in render.ENTRY}


@pytest.mark.parametrize("kinds", [{"code"}, {"model"}, {"code", "model"}], ids=lambda kinds: "+".join(sorted(kinds)))
@pytest.mark.parametrize("mode", ["stream", "api"])
def test_a_dockerfile_puts_requirements_before_code_before_models_and_is_not_root(
    mode: PackageMode, kinds: set[str]
) -> None:
    lines = instructions(render.texts(mode, frozenset(kinds))["Dockerfile"])
    copied = [line.split()[-2] for line in lines if line.startswith("COPY") and not line.startswith("COPY req")]
    wanted = ["/run/mlpacker", "/app/.venv", "mlpacker_runtime", "code", "unit.json", "models"]
    assert copied == [
        name for name in wanted if name not in {"code", "models"} - {f"{kind}s" for kind in kinds} - kinds
    ]
    assert [line.split()[0] for line in lines[-6:]][1:] == ["USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT"]
    assert "USER 10001:10001" in lines
    assert json.loads(lines[-1].removeprefix("ENTRYPOINT ")) == ["/app/.venv/bin/python", render.ENTRY[mode]]
    ast.parse(json.loads(lines[-2].partition("CMD ")[2])[2])


def test_the_dockerfile_installs_the_uv_of_this_project() -> None:
    pinned = re.search(r'"(uv==[^"]+)"', (ROOT / "pyproject.toml").read_text())
    assert pinned
    assert pinned[1] in GOLDEN["api"]["Dockerfile"]
