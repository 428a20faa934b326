"""Only what a unit needs is in its bundle, and all that it needs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest

from packer_lib.bundle import lock, locks
from packer_lib.bundle.write import Bundle
from packer_lib.runtime.catalogue import CHECKS, CONNECTORS, CORE, FORMATS, FRAMEWORKS, PACKAGE_MODES
from tests.bundle import cases
from tests.support import ROOT

RUNTIME = ROOT / "packer_lib/runtime"
FOREIGN = {
    "kafka": {"connectors/kafka.py", "confluent-kafka"},
    "bentoml": {"rest.py", "front.py", "bentoml", "uvicorn", "starlette"},
    "tensorflow": {"frameworks/tensorflow.py", "tensorflow", "tensorflow-cpu", "keras"},
    "mqtt": {"connectors/mqtt.py", "paho-mqtt"},
    "websocket": {"connectors/websocket.py", "websockets"},
    "scikit-learn": {"frameworks/scikit_learn.py", "scikit-learn", "skops"},
    "stream": {"engine.py"},
    "schema": {"json_schema.py", "jsonschema-rs"},
    "npy": {"formats/npy_array.py"},
    "msgpack": {"formats/msgpack_value.py", "msgpack"},
    "json": {"formats/json_value.py"},
    "csv": {"formats/csv_lines.py"},
}
HAS = {
    "stream-sklearn-mqtt": {"mqtt", "scikit-learn", "stream", "json"},
    "stream-tensorflow-kafka": {"kafka", "tensorflow", "stream", "json"},
    "stream-code-websocket": {"websocket", "mqtt", "stream", "json"},
    "stream-schema-npy": {"mqtt", "kafka", "stream", "schema", "npy", "msgpack"},
    "api-sklearn": {"bentoml", "scikit-learn", "json", "csv", "npy"},
    "api-code": {"bentoml", "json", "csv", "npy"},
}


def contents(bundle: Bundle) -> set[str]:
    """Runtime files and names of locked packages."""
    files = {path.removeprefix("mlpacker_runtime/") for path in cases.files(bundle)}
    return files | {pin.name for pin in lock.parse((bundle.path / "requirements.lock").read_text())}


@pytest.mark.parametrize("kind", HAS)
def test_a_bundle_has_what_its_unit_uses_and_nothing_of_the_others(tmp_path: Path, kind: str) -> None:
    found = contents(cases.write(tmp_path, kind))
    present = {name for name, signs in FOREIGN.items() if signs & found}
    assert present == HAS[kind]


def relative_imports(module: str) -> set[str]:
    """Runtime files that `module` names in relative imports, also inside functions; not for type checkers only."""
    found: set[str] = set()
    for node in _executed(ast.parse((RUNTIME / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = PurePosixPath(module).parents[node.level - 1]
            base = package / (node.module or "").replace(".", "/")
            found |= {str(base / alias.name) + ".py" for alias in node.names} | {f"{base}.py"}
    return {file for file in found if (RUNTIME / file).is_file()}


def _executed(tree: ast.AST) -> list[ast.AST]:
    nodes: list[ast.AST] = []
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            nodes += [child, *_executed(child)]
    return nodes


@pytest.mark.parametrize("kind", cases.KINDS)
def test_whatever_a_selected_file_imports_is_selected_too(tmp_path: Path, kind: str) -> None:
    selected = {
        path.removeprefix("mlpacker_runtime/")
        for path in cases.files(cases.write(tmp_path, kind))
        if path.startswith("mlpacker_runtime/")
    }
    missing = {file: relative_imports(file) - selected for file in selected}
    assert {file: names for file, names in missing.items() if names} == {}


def test_every_runtime_file_is_in_some_bundle() -> None:
    tables = [plugin for table in (CONNECTORS, FRAMEWORKS, PACKAGE_MODES, FORMATS, CHECKS) for plugin in table.values()]
    listed = {*CORE, *(module for plugin in tables for module in plugin.modules)}
    there = {path.relative_to(RUNTIME).as_posix() for path in RUNTIME.rglob("*.py") if path.name != "__init__.py"}
    assert {file for file in listed if not file.endswith("__init__.py")} == there


@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_bundle_imports_on_its_own(tmp_path: Path, kind: str) -> None:
    """In an isolated interpreter that has the requirements and cannot see this project."""
    bundle = cases.write(tmp_path, kind)
    modules = [path[:-3].replace("/", ".") for path in cases.files(bundle) if path.startswith("mlpacker_runtime/")]
    code = """
import importlib, json, sys
sys.path[:0] = [sys.argv[1]]
sys.path[:] = [path for path in sys.path if path != sys.argv[2]]
for name in json.loads(sys.argv[3]):
    importlib.import_module(name.removesuffix(".__init__"))
assert "packer_lib" not in sys.modules
"""
    argv = [sys.executable, "-I", "-c", code, str(bundle.path), str(ROOT), json.dumps(modules)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_extras_of_the_project_are_the_requirements_of_the_catalogue() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {need: tuple(extras[need]) for need in locks.needs()} == locks.needs()
