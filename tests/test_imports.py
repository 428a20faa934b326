"""Who may import whom (docs/architecture.md), read from the source of every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

SOURCES = sorted((ROOT / "packer_lib").rglob("*.py"))

# part → the parts of packer_lib it may import; `errors` and `settings` are open to all but the runtime
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "settings": set(),
    "padl": set(),
    "plan": {"padl"},
    "artefacts": {"padl", "plan", "runtime"},
    "commands": set(),
    "hosts": {"commands", "padl", "secrets"},
    "secrets": {"padl"},
    "bundle": {"padl", "plan", "artefacts", "commands", "runtime"},
    "build": {"bundle", "hosts", "commands"},
    "images": {"plan", "bundle", "build", "hosts", "commands"},
    "kept": {"padl", "plan", "hosts", "release"},
    "release": {
        "padl",
        "plan",
        "artefacts",
        "bundle",
        "build",
        "images",
        "hosts",
        "commands",
        "kept",
        "runtime",
        "secrets",
    },
    "status": {"hosts", "commands", "release", "kept"},
    "standalone": set(),
    "demo": {"padl", "plan", "artefacts", "bundle", "build", "hosts", "commands", "release", "status", "standalone"},
    "cli": {"padl", "plan", "artefacts", "bundle", "build", "hosts", "commands", "release", "status", "standalone"},
}
# what of the runtime the orchestrator may see: standard-library modules that hold data, or look at model files
OPEN_RUNTIME = {f"packer_lib.runtime.{name}" for name in ("catalogue", "manifest", "model_files", "wanted")}
# third-party packages a runtime module may import; every other runtime module is standard library only
LEAVES = {
    "chain.py": {"numpy"},
    "formats/json_value.py": {"orjson"},
    "formats/csv_lines.py": {"orjson"},
    "formats/npy_array.py": {"numpy"},
    "formats/msgpack_value.py": {"msgpack"},
    "events.py": {"orjson"},
    "json_schema.py": {"jsonschema_rs"},
    "metrics.py": {"prometheus_client"},
    "probes.py": {"prometheus_client"},
    "predict.py": {"orjson"},
    "links.py": {"orjson"},
    "oip.py": {"orjson"},
    "oip_bodies.py": {"orjson"},
    "oip_tensors.py": {"numpy", "orjson"},
    "invocations.py": {"orjson"},
    "caller.py": {"httptools"},
    "serving.py": {"uvicorn"},
    "admin/asked.py": {"orjson"},
    "admin/repository.py": {"orjson"},
    "patience.py": {"uvicorn"},
    "wire.py": {"uvicorn"},
    "modelrunner/answers.py": {"google"},
    "modelrunner/csv_rows.py": {"google"},
    "modelrunner/forms.py": {"google"},
    "modelrunner/instances.py": {"google"},
    "modelrunner/multipart.py": {"python_multipart"},
    "modelrunner/names.py": {"google"},
    "modelrunner/predictions.py": {"google", "orjson"},
    "modelrunner/schema.py": {"google"},
    "modelrunner/syntax.py": {"google"},
    "connectors/mqtt.py": {"paho"},
    "connectors/mqtt_session.py": {"paho"},
    "connectors/kafka.py": {"confluent_kafka"},
    "connectors/kafka_client.py": {"confluent_kafka"},
    "connectors/kafka_group.py": {"confluent_kafka"},
    "connectors/kafka_once.py": {"confluent_kafka"},
    "connectors/websocket.py": {"websockets"},
    "connectors/websocket_link.py": {"websockets"},
    "frameworks/scikit_learn.py": {"narwhals", "sklearn", "skops", "joblib", "numpy"},
    "frameworks/tensorflow.py": {"tensorflow", "keras", "numpy"},
    "frameworks/onnx.py": {"onnxruntime", "numpy"},
}


def imports(source: Path) -> set[str]:
    """Absolute names of all that `source` imports, also inside functions; `from a import b` counts as `a` and `a.b`."""
    package = source.parent.relative_to(ROOT).parts
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def part_of(source: Path) -> str:
    return source.relative_to(ROOT / "packer_lib").parts[0].removesuffix(".py")


@pytest.mark.parametrize("source", [path for path in SOURCES if part_of(path) not in {"runtime", "__init__"}], ids=str)
def test_orchestrator_modules_import_only_what_lies_below_them(source: Path) -> None:
    part = part_of(source)
    allowed = ALLOWED[part] | {part, "errors", "settings", "__version__"}
    for name in imports(source):
        assert name.split(".")[0] != "airflow", f"{source}: airflow is imported in dags/ and plugins/ only"
        if not name.startswith("packer_lib."):
            continue
        if name.startswith("packer_lib.runtime"):
            assert any(name == open_ or name.startswith(f"{open_}.") for open_ in OPEN_RUNTIME | {"packer_lib.runtime"})
            continue
        assert name.split(".")[1] in allowed, f"{source} imports {name}"


@pytest.mark.parametrize("source", [path for path in SOURCES if part_of(path) == "runtime"], ids=str)
def test_runtime_modules_import_the_standard_library_and_each_other(source: Path) -> None:
    leaf = LEAVES.get(source.relative_to(ROOT / "packer_lib/runtime").as_posix(), set())
    for name in imports(source):
        top = name.split(".")[0]
        if top == "packer_lib":
            assert name.startswith("packer_lib.runtime"), f"{source} imports {name}, which no bundle holds"
        else:
            assert top in sys.stdlib_module_names | leaf, f"{source} imports {name}"


def test_the_command_line_starts_without_airflow_or_any_framework() -> None:
    heavy = ("airflow", "bentoml", "tensorflow", "sklearn", "numpy", "docker", "paramiko", "confluent_kafka")
    code = f"import sys, packer_lib.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
