"""Model files that mean harm: each would create its canary if anything of it ran, or asks for what no model needs."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import joblib
import numpy
import onnx

LAMBDA = {"class_name": "Lambda", "config": {"name": "x", "function": {"class_name": "__lambda__", "config": {}}}}
LAYER = {"class_name": "Dense", "module": "keras.layers", "config": {"name": "d", "units": 1}, "registered_name": None}


class Runs:
    """`call(*args)` for whoever unpickles it."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.args


def touching(canary: Path) -> Runs:
    return Runs(os.system, f"touch {canary}")


def pickled(canary: Path, protocol: int = 4) -> bytes:
    return pickle.dumps(touching(canary), protocol)


def evaluated(canary: Path) -> bytes:
    return pickle.dumps(Runs(eval, f"__import__('os').system('touch {canary}')"))


def written(value: Any, **more: Any) -> bytes:
    """As joblib writes it: behind an array, whose bytes are no instructions."""
    data = io.BytesIO()
    joblib.dump({"weights": numpy.arange(1000.0), "rest": value}, data, **more)
    return data.getvalue()


def objects(canary: Path) -> bytes:
    """In the pickle inside the file that an array of objects is."""
    return written(numpy.array([None, touching(canary)], dtype=object))


def sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "s", "layers": list(layers)},
        "registered_name": None,
    }


def h5(config: str) -> bytes:
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file.attrs["keras_version"] = "3.15.1"
        file.attrs["model_config"] = config
        file["weights"] = numpy.random.default_rng(0).random(10_000)
    return data.getvalue()


def archive(members: dict[str, str | bytes], packed: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", packed) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return data.getvalue()


def keras(config: dict[str, Any], **more: str | bytes) -> bytes:
    return archive({"metadata.json": "{}", "config.json": json.dumps(config), "model.weights.h5": b"", **more})


def keras_naming(module: str, name: str, canary: Path) -> bytes:
    """CVE-2025-1550: any class or function of any module, with any argument."""
    evil = {"class_name": "function", "module": module, "config": name, "registered_name": name}
    return keras(sequential({**LAYER, "config": {"activation": evil, "arguments": [f"touch {canary}"]}}))


def skops(schema: dict[str, Any], **more: str | bytes) -> bytes:
    return archive({"schema.json": json.dumps(schema), **more})


def skops_naming(module: str, name: str) -> bytes:
    node = {"__class__": name, "__module__": module, "__loader__": "TypeNode"}
    return skops({"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode", "content": [["a", node]]})


def external(location: str) -> bytes:
    """An ONNX model whose weights are in another file."""
    tensor = onnx.numpy_helper.from_array(numpy.ones(4, "float32"), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy"]
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    inner = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], initializer=[tensor])
    return bytes(onnx.helper.make_model(inner).SerializeToString())


def saved_model(operation: str) -> bytes:
    """The start of a graph with one node of that operation, as protobuf writes it."""
    return b"\x0a\x04\x0a\x02n0\x12" + bytes([len(operation)]) + operation.encode() + b"\x1a\x00"


BOMB = bytes(100 << 20)


def cases(canary: Path) -> dict[str, tuple[str, Callable[[], bytes]]]:
    """By what is hostile in it: the serializer, and what makes the file."""
    honest = pickle.dumps({"coef_": [1.0] * 100})
    return {
        "reduce": ("pickle", lambda: pickled(canary)),
        "protocol 0": ("pickle", lambda: pickled(canary, 0)),
        "protocol 2": ("pickle", lambda: pickled(canary, 2)),
        "protocol 5": ("pickle", lambda: pickled(canary, 5)),
        "eval": ("pickle", lambda: evaluated(canary)),
        "subprocess": ("pickle", lambda: pickle.dumps(Runs(subprocess.check_call, ["touch", str(canary)]))),
        "getattr": ("pickle", lambda: b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93cos\nenviron\n\x8c\x05clear\x86R."),
        "through a module": (
            "pickle",
            lambda: b"\x80\x04\x8c\x13sklearn.utils.fixes\x8c\x09os.system\x93\x8c\x04true\x85R.",
        ),
        "alias in scikit-learn": ("pickle", lambda: b"\x80\x02csklearn.compose._column_transformer\npartial\n)R."),
        "by number": ("pickle", lambda: b"\x80\x02\x82\x01."),
        "old instance": ("pickle", lambda: f"(S'touch {canary}'\nios\nsystem\n.".encode()),
        "broken behind it": ("pickle", lambda: pickled(canary)[:-1] + b"\xff"),
        "second pickle": ("pickle", lambda: honest + pickled(canary)),
        "truncated pickle": ("pickle", lambda: honest[:-20]),
        "object array": ("joblib", lambda: objects(canary)),
        "behind an array": ("joblib", lambda: written(touching(canary))),
        **{f"in {kind}": ("joblib", partial(written, touching(canary), compress=(kind, 3))) for kind in COMPRESSORS},
        "truncated joblib": ("joblib", lambda: written(1)[:4000]),
        "truncated gzip": ("joblib", lambda: written(1, compress=("gzip", 3))[:-50]),
        "bomb in zlib": ("joblib", lambda: zlib.compress(pickle.dumps(BOMB))),
        "lambda in h5": ("h5", lambda: h5(json.dumps(sequential(LAMBDA)))),
        "escaped lambda in h5": (
            "h5",
            lambda: h5(json.dumps(sequential(LAMBDA)).replace('"Lambda"', '"\\u004cambda"')),
        ),
        "truncated h5": ("h5", lambda: h5(json.dumps(sequential(LAYER)))[:-5000]),
        "lambda in keras": ("keras", lambda: keras(sequential(LAMBDA))),
        "os.system in keras": ("keras", lambda: keras_naming("os", "system", canary)),
        "get_file in keras": ("keras", lambda: keras_naming("keras.utils", "get_file", canary)),
        "vocabulary by path": (
            "keras",
            lambda: keras(sequential({"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}})),
        ),
        "zip slip in keras": ("keras", lambda: keras(sequential(LAYER), **{"../../canary": b"x"})),
        "zip slip in skops": ("skops", lambda: skops({}, **{"/tmp/canary": b"x"})),
        "os.system in skops": ("skops", lambda: skops_naming("os", "system")),
        "bomb in keras": (
            "keras",
            lambda: archive({"config.json": "{}", "metadata.json": "{}", "w": BOMB}, zipfile.ZIP_DEFLATED),
        ),
        "truncated keras": ("keras", lambda: keras(sequential(LAYER))[:-40]),
        "truncated skops": ("skops", lambda: skops({})[:-40]),
        "external data": ("onnx", lambda: external("../../../../etc/passwd")),
        "truncated onnx": ("onnx", lambda: external("w.bin")[:-9]),
        "file written by a graph": ("savedmodel", lambda: saved_model("WriteFile")),
        "no model at all": ("pickle", lambda: b"#!/bin/sh\ntouch canary\n"),
    }


COMPRESSORS = ("zlib", "gzip", "bz2", "lzma", "xz")
FRAMEWORK = {"h5": "tensorflow", "keras": "tensorflow", "savedmodel": "tensorflow", "onnx": "onnx"}


def write(folder: Path, serializer: str, data: bytes) -> str:
    """The file or folder below `folder`; how a PADL file names it."""
    name = f"model.{serializer}"
    if serializer == "savedmodel":
        (folder / name).mkdir()
        (folder / name / "saved_model.pb").write_bytes(data)
    else:
        (folder / name).write_bytes(data)
    return name
