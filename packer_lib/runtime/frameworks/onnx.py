"""ONNX models in onnxruntime: a graph of known operators, so that loading one never runs code of its author.

scikit-learn's user guide ("Model persistence") names it the safest of the formats; most training libraries write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import onnxruntime

from ..contract import BadInput, Framework, ModelUnusable

TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}


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
        self._output = self._session.get_outputs()[0].name

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
