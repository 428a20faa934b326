"""Keras and TensorFlow models: `.h5`, `.keras` and SavedModel folders.

`model.predict` builds a data pipeline per call; a function traced once for any batch size answers the same batch in a
fraction of the time (a small LSTM autoencoder, one window: 35 ms against 1.2 ms), and is never traced again.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow reads all of these when it is imported
# The same numbers on every processor, and silence at start; a large convolutional model may want it on.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# A unit is one of several processes on a machine; small models gain nothing from more threads.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy
import tensorflow

from ..contract import BadInput, Framework, ModelUnusable, Tensor

HDF5 = b"\x89HDF"
ZIP = b"PK\x03\x04"
_WHOLE = [f"{kind}{width}" for kind in ("int", "uint") for width in (8, 16, 32, 64)]
TAKEN = {**{name: name.upper() for name in _WHOLE}, "float16": "FP16", "float32": "FP32", "float64": "FP64"}
TAKEN |= {"bool": "BOOL", "string": "BYTES"}
GIVEN = {**dict.fromkeys(_WHOLE, "INT64"), **dict.fromkeys(("float16", "float32", "float64"), "FP64"), "bool": "BOOL"}


class TensorFlow(Framework):
    """A model of one input. One output comes back as nested lists, several as an object by output name."""

    def load_model(self, path: str) -> None:
        check_kind(Path(path), self.serializer)
        load = _load_saved_model if self.serializer == "savedmodel" else _load_keras
        try:
            self._call, spec, outputs = load(path)
        except ModelUnusable:
            raise
        except Exception as error:
            raise ModelUnusable(_explain(error, self.serializer)) from error
        self._shape: tuple[int | None, ...] = tuple(spec.shape[1:])
        self._type = spec.dtype.as_numpy_dtype
        self.takes, self.gives = described(spec, TAKEN), described(outputs, GIVEN)
        self._warm_up()

    def get_model_result(self, batch: Sequence[Any]) -> list[Any]:
        outputs = self._call(tensorflow.constant(self._rows(batch)))
        if not isinstance(outputs, dict):
            answers: list[Any] = outputs.numpy().tolist()
            return answers
        columns = {name: output.numpy().tolist() for name, output in outputs.items()}
        return [{name: column[row] for name, column in columns.items()} for row in range(len(batch))]

    def _rows(self, batch: Sequence[Any]) -> Any:
        try:
            rows = numpy.asarray(batch, dtype=self._type)
        except (ValueError, TypeError) as error:
            raise BadInput(f"expected {_show(self._shape)} of {numpy.dtype(self._type).name}: {error}") from None
        if not _fits(self._shape, rows.shape[1:]):
            raise BadInput(f"expected {_show(self._shape)}, got {rows.shape[1:]}")
        return rows

    def _warm_up(self) -> None:
        """The first call costs more than all later ones; it is made here, with zeros, where no one waits for it."""
        if None not in self._shape:
            self._call(tensorflow.zeros((1, *self._shape), dtype=self._type))


def described(spec: Any, datatypes: Mapping[str, str]) -> Tensor | None:
    """A `TensorSpec`; anything else, such as several outputs, is none, as is a tensor without dimensions."""
    kind = getattr(getattr(spec, "dtype", None), "name", "")
    if kind not in datatypes or not spec.shape.rank:
        return None
    return Tensor(datatypes[kind], (-1, *(-1 if size is None else size for size in spec.shape[1:])))


def _load_keras(path: str) -> tuple[Callable[[Any], Any], Any, Any]:
    """The call, what it takes and what it gives. Without optimizer and loss, which answers do not need. `safe_mode`: a
    lambda layer would run the file's code."""
    known = {name: _Keras2(getattr(tensorflow.keras.layers, name)) for name in ("LSTM", "GRU", "SimpleRNN")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # advice on how to write the layers, to those who trained them
        model = tensorflow.keras.models.load_model(path, custom_objects=known, compile=False, safe_mode=True)
    if not getattr(model, "inputs", None):
        raise ModelUnusable(
            "was saved without the shape of its input; call it once on data, or use serializer savedmodel"
        )
    if len(model.inputs) != 1:
        raise ModelUnusable(f"has {len(model.inputs)} inputs, and a step gives one; join them in the model")
    first = model.inputs[0]
    spec = tensorflow.TensorSpec((None, *first.shape[1:]), first.dtype)
    names = list(getattr(model, "output_names", ()))  # a Sequential has one output, and no name for it

    def call(rows: Any) -> Any:
        outputs = model(rows, training=False)
        return dict(zip(names, outputs, strict=True)) if isinstance(outputs, (list, tuple)) else outputs

    traced = tensorflow.function(call, input_signature=[spec]).get_concrete_function()
    return traced, spec, traced.structured_outputs


class _Keras2:
    """A recurrent layer as Keras 2 wrote it: Keras 3 no longer knows `time_major`, and does what `False` meant."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def from_config(self, config: dict[str, Any]) -> Any:
        if config.pop("time_major", False):
            raise ModelUnusable("has a recurrent layer with time_major=True, which Keras 3 cannot do; save it without")
        return self._layer.from_config(config)


def _load_saved_model(path: str) -> tuple[Callable[[Any], Any], Any, Any]:
    loaded = tensorflow.saved_model.load(path)
    signature = loaded.signatures.get("serving_default")
    if signature is None:
        raise ModelUnusable(f"has no signature serving_default; there is {', '.join(loaded.signatures) or 'none'}")
    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1:
        raise ModelUnusable(f"has {len(inputs)} inputs ({', '.join(inputs)}), and a step gives one")
    [(name, spec)] = inputs.items()

    def call(rows: Any) -> Any:
        outputs = signature(**{name: rows})
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    call.model = loaded  # type: ignore[attr-defined] # the signature holds its variables weakly
    outputs = list(signature.structured_outputs.values())
    return call, spec, outputs[0] if len(outputs) == 1 else None


def check_kind(path: Path, serializer: str) -> None:
    """The first bytes fit the serializer, or `ModelUnusable` says what the file is."""
    if path.is_dir() != (serializer == "savedmodel"):
        raise ModelUnusable(f"serializer is {serializer}, the path is a {'folder' if path.is_dir() else 'file'}")
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise ModelUnusable("the folder has no saved_model.pb")
        return
    with path.open("rb") as opened:
        start = opened.read(4)
    found = {HDF5: "h5", ZIP: "keras"}.get(start, "neither HDF5 nor a Keras archive" if start else "empty")
    if found != serializer:
        raise ModelUnusable(f"serializer is {serializer}, the file is {found}")


def _explain(error: Exception, serializer: str) -> str:
    text = " ".join(str(error).split())
    here = f"this unit has Keras {tensorflow.keras.__version__} on TensorFlow {tensorflow.__version__}"
    if "lambda" in text.lower():
        return f"has a lambda layer, which is code of the file's author and refused: {text[:300]}"
    old = "; it looks like a file of Keras 2: save it again with Keras 3" if "Unrecognized keyword" in text else ""
    return f"cannot be read by {serializer}: {text[:300]}; {here}{old}"


def _fits(expected: tuple[int | None, ...], got: tuple[int, ...]) -> bool:
    return len(expected) == len(got) and all(one in (None, other) for one, other in zip(expected, got, strict=True))


def _show(shape: tuple[int | None, ...]) -> str:
    """As Python writes a shape, with `any` for a length that is free."""
    inner = ", ".join("any" if length is None else str(length) for length in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"
