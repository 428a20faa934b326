"""What there is to plug in, one explicit table per kind; standard library only, read by orchestrator and runtime.

`target` is `module:Class` inside this package, imported only when used. `requires` are pip requirements, installed in a
bundle only when a unit uses the entry; pyproject's extras are the same lists (held by a test).
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Plugin:
    """`modules` are the runtime files (below this package) that the entry needs in a bundle beside the core."""

    name: str
    target: str
    modules: tuple[str, ...]
    requires: tuple[str, ...]
    serializers: tuple[str, ...] = ()

    def load(self) -> type[Any]:
        """The class behind `target`."""
        module, _, name = self.target.partition(":")
        loaded: type[Any] = getattr(import_module(f".{module}", __package__), name)
        return loaded


# In every bundle, whatever it does: the contracts, and the chain of steps under REST and stream alike.
CORE = (
    "__init__.py",
    "catalogue.py",
    "chain.py",
    "code_step.py",
    "contract.py",
    "golden.py",
    "logs.py",
    "manifest.py",
    "memory.py",
    "metrics.py",
    "model_step.py",
    "namespace.py",
    "trial.py",
)


def _table(*plugins: Plugin) -> dict[str, Plugin]:
    return {plugin.name: plugin for plugin in plugins}


CONNECTORS = _table(
    Plugin("memory", "connectors.memory:Memory", ("connectors/memory.py",), ()),
    Plugin("mqtt", "connectors.mqtt:Mqtt", ("connectors/mqtt.py", "connectors/mqtt_session.py"), ("paho-mqtt==2.2.0",)),
    Plugin(
        "kafka",
        "connectors.kafka:Kafka",
        (
            *("connectors/kafka.py", "connectors/kafka_client.py"),
            *("connectors/kafka_group.py", "connectors/kafka_once.py"),
        ),
        ("confluent-kafka==2.16.1",),
    ),
    Plugin(
        "websocket",
        "connectors.websocket:WebSocket",
        ("connectors/websocket.py", "connectors/websocket_link.py"),
        ("websockets>=17",),
    ),
)

FRAMEWORKS = _table(
    Plugin(
        "scikit-learn",
        "frameworks.scikit_learn:ScikitLearn",
        ("frameworks/scikit_learn.py",),
        ("scikit-learn==1.9.1", "skops==0.16.0", "joblib>=1.4"),
        ("joblib", "skops", "pickle"),
    ),
    Plugin(
        "tensorflow",
        "frameworks.tensorflow:TensorFlow",
        ("frameworks/tensorflow.py",),
        (
            "tensorflow-cpu==2.21.0; platform_machine == 'x86_64'",
            "tensorflow==2.21.0; platform_machine != 'x86_64'",
        ),
        ("h5", "keras", "savedmodel"),
    ),
    Plugin("onnx", "frameworks.onnx:Onnx", ("frameworks/onnx.py",), ("onnxruntime==1.31.1",), ("onnx",)),
)

PACKAGE_MODES = _table(
    Plugin(
        "api",
        "rest:Unit",
        (
            *("rest.py", "serving.py", "wire.py", "short.py", "tally.py", "heads.py", "ports.py", "front.py"),
            *("predict.py", "worker.py"),
            *("workers.py", "posts.py", "given.py"),
            *("arrival.py", "keys.py", "patience.py", "room.py", "documented.py", "openapi.py", "openapi_schemas.py"),
            *("door/__main__.py", "door/callers.py", "door/cli.py", "door/keeper.py", "door/line.py"),
            *("door/passage.py", "door/place.py"),
            *("bodies.py", "oip.py", "oip_infer.py", "oip_bodies.py", "oip_tensors.py", "invocations.py"),
            *("formats/csv_lines.py", "formats/npy_array.py"),
            *("links.py", "caller.py", "tracing.py", "formats/__init__.py", "formats/json_value.py", "metrics.py"),
            *("swap.py", "loading.py", "shadow.py", "versions.py", "wanted.py"),
            "uploads.py",
            *("model_files/apart.py", "model_files/compressed.py", "model_files/examine.py", "model_files/hdf5.py"),
            *("model_files/keras_config.py", "model_files/kinds.py", "model_files/names.py", "model_files/pickles.py"),
            *("model_files/onnx_file.py", "model_files/saved_model.py", "model_files/zips.py"),
            *("modelrunner/routes.py", "modelrunner/answers.py", "modelrunner/control.py", "modelrunner/forms.py"),
            *("modelrunner/multipart.py", "modelrunner/csv_rows.py", "modelrunner/instances.py"),
            *("modelrunner/predictions.py", "modelrunner/schema.py", "modelrunner/syntax.py"),
            *("modelrunner/names.py", "modelrunner/tokens.py", "modelrunner/unfit.py", "modelrunner/kept.py"),
            *("admin/port.py", "admin/unit.py", "admin/app.py", "admin/asked.py", "admin/arriving.py"),
            *("admin/changes.py", "admin/models.py", "admin/repository.py", "admin/versions.py", "admin/acumos.py"),
        ),
        (
            *("bentoml==1.4.39", "uvloop>=0.21", "httptools>=0.6", "prometheus-client>=0.22", "orjson>=3.11"),
            *("protobuf>=6.31", "python-multipart>=0.0.27"),
        ),
    ),
    Plugin(
        "stream",
        "stream:run",
        (
            *("stream.py", "engine.py", "batch.py", "values.py", "events.py", "formats/__init__.py"),
            *("deliveries.py", "ends.py", "probes.py", "watchdog.py", "metrics.py"),
            *("swap.py", "loading.py", "shadow.py", "versions.py", "wanted.py"),
        ),
        ("prometheus-client>=0.22", "orjson>=3.11"),
    ),
)

# orjson is not named here: either package mode brings it.
FORMATS = _table(
    Plugin("json", "formats.json_value:Json", ("formats/json_value.py",), ()),
    Plugin("csv", "formats.csv_lines:Csv", ("formats/csv_lines.py",), ()),
    Plugin("npy", "formats.npy_array:Npy", ("formats/npy_array.py",), ("numpy>=2",)),
    Plugin("msgpack", "formats.msgpack_value:MessagePack", ("formats/msgpack_value.py",), ("msgpack>=1.1",)),
    Plugin("raw", "formats.raw_bytes:Raw", ("formats/raw_bytes.py",), ()),
)

CHECKS = _table(
    Plugin("json-schema", "json_schema:JsonSchema", ("json_schema.py",), ("jsonschema-rs==0.60.3",)),
)


class UnknownPlugin(KeyError):
    """`name` is not in the table; the text lists what is and suggests the nearest."""

    def __init__(self, kind: str, name: str, table: dict[str, Plugin]) -> None:
        near = get_close_matches(name, table, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        self.text = f"unknown {kind} {name!r}: there is {', '.join(sorted(table))}{hint}"
        super().__init__(self.text)

    def __str__(self) -> str:
        return self.text


def find(kind: str, name: str, table: dict[str, Plugin]) -> Plugin:
    """`table[name]`, or `UnknownPlugin`. `kind` is the word people use: connector, framework."""
    if name not in table:
        raise UnknownPlugin(kind, name, table)
    return table[name]
