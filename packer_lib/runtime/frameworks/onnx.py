"""ONNX models in onnxruntime: a graph of known operators, so that loading one never runs code of its author.

scikit-learn's user guide ("Model persistence") names it the safest of the formats; most training libraries write it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import onnxruntime

from ..contract import BadInput, Framework, ModelUnusable, Tensor

TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}
TAKEN = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(float16)": "FP16",
    "tensor(int64)": "INT64",
    "tensor(int32)": "INT32",
    "tensor(bool)": "BOOL",
}
GIVEN = {**dict.fromkeys(("tensor(float)", "tensor(double)", "tensor(float16)"), "FP64"), "tensor(string)": "BYTES"}
GIVEN |= {**dict.fromkeys(("tensor(int64)", "tensor(int32)"), "INT64"), "tensor(bool)": "BOOL"}


class Onnx(Framework):
    """A model of one input of numbers. Its first output is the answer, as `predict` gives it for an estimator."""

    def load_model(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2  # a unit is one of several processes on a machine
        options.log_severity_level = 3  # what matters is raised as well
        try:
            self._session = onnxruntime.InferenceSession(Path(path).read_bytes(), options, ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own have no common class
            reason = " ".join(str(error).split())[:300]
            raise ModelUnusable(f"cannot be read by onnxruntime {onnxruntime.__version__}: {reason}") from None
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in TYPES:
            found = ", ".join(f"{one.name}: {one.type}" for one in inputs)
            raise ModelUnusable(f"takes ({found}), and a step gives one array of numbers; join the inputs in the model")
        self._name, self._type = inputs[0].name, numpy.dtype(TYPES[inputs[0].type])
        self._shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape[1:])
        output = self._session.get_outputs()[0]
        self._output = output.name
        self.takes, self.gives = described(inputs[0], TAKEN), described(output, GIVEN)

    def get_model_result(self, batch: Sequence[Any]) -> list[Any]:
        [answer] = self._session.run([self._output], {self._name: self._rows(batch)})
        answers: list[Any] = answer.tolist() if isinstance(answer, numpy.ndarray) else list(answer)
        return answers

    def _rows(self, batch: Sequence[Any]) -> Any:
        try:
            rows = numpy.asarray(batch)
        except ValueError:
            raise BadInput("expected nested lists of one length, got rows of different lengths") from None
        if rows.dtype.kind not in "biuf":
            raise BadInput(f"expected numbers ({self._type.name}), got something else among them")
        fits = len(rows.shape) == len(self._shape) + 1
        if not fits or any(want not in (None, got) for want, got in zip(self._shape, rows.shape[1:], strict=True)):
            wanted = ", ".join("any" if size is None else str(size) for size in self._shape)
            raise BadInput(f"expected ({wanted}{',' if len(self._shape) == 1 else ''}), got {rows.shape[1:]}")
        return rows.astype(self._type)


def described(value: Any, datatypes: Mapping[str, str]) -> Tensor | None:
    """An input or output of the graph. A list (`seq`) or a table (`map`) is none; nor is what has no dimensions."""
    if value.type not in datatypes or not value.shape:
        return None
    return Tensor(datatypes[value.type], (-1, *(size if isinstance(size, int) else -1 for size in value.shape[1:])))
