"""A model step: a framework around a model file; standard library only (the framework's own library is imported by it).

An input is an instance (a number or nested lists, or a row as an object of the names that the model was trained with),
or an object that carries one and travels on with the answer in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .catalogue import FRAMEWORKS, find
from .code_step import one_line
from .contract import BadInput, Framework, ModelUnusable, StepFailed, Tensor
from .manifest import StepSpec
from .trial import Recent

EXPECTED = 'expected a number, a list, or an object with "data"'


class ModelStep:
    """The model step `spec`, whose path is below `bundle`. `mark` says which model it is, `recent` what it was asked
    last."""

    def __init__(self, spec: StepSpec, bundle: Path) -> None:
        self.spec = spec
        self.bundle = bundle
        self.framework = spec.framework
        self.mark = f"{spec.name}={spec.sha256[:12]}".encode()
        self.recent = Recent()
        self._path = bundle / spec.path
        self._model: Framework | None = None

    def load(self) -> None:
        """`ModelUnusable` names the file and says what is wrong with it: missing, another one, not readable."""
        try:
            check_file(self._path, self.spec.sha256)
            model: Framework = find("framework", self.spec.framework, FRAMEWORKS).load()(self.spec.serializer)
            model.load_model(str(self._path))
        except ModelUnusable as error:
            raise ModelUnusable(f"{self.spec.path}: {error}") from error
        self._model = model

    def run(self, values: Sequence[Any]) -> list[list[Any] | StepFailed]:
        """Per value its prediction (for an object: the object with `prediction` set)."""
        results: list[list[Any] | StepFailed] = [[]] * len(values)
        instances: list[Any] = []
        places: list[int] = []
        columns = self.columns()
        for place, value in enumerate(values):
            try:
                instances.append(instance(value, columns))
                places.append(place)
            except BadInput as error:
                results[place] = StepFailed(self.spec.name, "input", str(error))
        answers = self._predict_all(instances)
        self.recent.keep(instances, answers)
        for place, answer in zip(places, answers, strict=True):
            results[place] = answer if isinstance(answer, StepFailed) else [_answer(values[place], answer)]
        return results

    def tensors(self) -> tuple[Tensor | None, Tensor | None]:
        """What the model takes and gives, as far as it is loaded and that is known."""
        return (self._model.takes, self._model.gives) if self._model else (None, None)

    def columns(self) -> tuple[str, ...]:
        """The names that the model knows its inputs by, in their order; none when it is not loaded."""
        return self._model.columns if self._model else ()

    def close(self) -> None:
        self._model = None

    def _predict_all(self, instances: list[Any]) -> list[Any]:
        size = max(1, self.spec.max_batch)
        return [
            answer
            for start in range(0, len(instances), size)
            for answer in self._predict(instances[start : start + size])
        ]

    def _predict(self, batch: list[Any]) -> list[Any]:
        """The framework's answers; when it refuses the batch, each half by itself, until what is refused is alone."""
        if self._model is None:
            raise RuntimeError(f"step {self.spec.name!r} is not loaded")
        try:
            answers = self._model.get_model_result(batch)
            if len(answers) == len(batch):
                return answers
            error: Exception = ValueError(f"the model gave {len(answers)} answers for {len(batch)} instances")
        except Exception as raised:
            error = raised
        if len(batch) == 1:
            return [self._failed(error)]
        middle = len(batch) // 2
        return self._predict(batch[:middle]) + self._predict(batch[middle:])

    def _failed(self, error: Exception) -> StepFailed:
        if isinstance(error, BadInput):
            return StepFailed(self.spec.name, "input", one_line(error))
        failed = StepFailed(self.spec.name, "predict", f"{type(error).__name__}: {one_line(error)}")
        failed.__cause__ = error
        return failed


def instance(value: Any, columns: Sequence[str] = ()) -> Any:
    """What the model is asked about `value`: a former model's `prediction`, else `data`, else what the object has under
    the names of the model's `columns`, else the value itself."""
    if isinstance(value, dict):
        if "prediction" in value:
            return value["prediction"]
        if "data" in value:
            return value["data"]
        if columns:
            return _row(value, columns)
        raise BadInput(f"{EXPECTED}; the object has {', '.join(map(repr, value)) or 'no keys'}")
    if value is None:
        raise BadInput(f"{EXPECTED}; got null")
    return value


def _row(value: Mapping[str, Any], columns: Sequence[str]) -> list[Any]:
    """The values of the `columns`, in their order; `BadInput` when they are not the keys. What is alone in a list, as
    in a tensor that is a column, is itself."""
    if value.keys() != set(columns):
        lacking = [name for name in columns if name not in value]
        wrong = f"there is no {lacking[0]!r}" if lacking else f"{next(iter(value.keys() - set(columns)))!r} is none"
        raise BadInput(f"{wrong} of the names that the model was trained with: {', '.join(columns)[:500]}")
    row = (value[name] for name in columns)
    return [one[0] if isinstance(one, list) and len(one) == 1 else one for one in row]


def _answer(value: Any, prediction: Any) -> Any:
    """An object that carries an instance travels on with the answer in it; a row by its names is the instance."""
    carries = isinstance(value, dict) and ("prediction" in value or "data" in value)
    return {**value, "prediction": prediction} if carries else prediction


def check_file(path: Path, sha256: str) -> None:
    """There, and the one that PADL names. A folder (SavedModel) is compared when it is fetched, not here."""
    if not path.exists():
        there = sorted(item.name for item in path.parent.iterdir()) if path.parent.is_dir() else []
        near = get_close_matches(path.name, there, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ModelUnusable(f"no such file; there is {', '.join(there) or 'nothing'} in its folder{hint}")
    if sha256 and path.is_file():
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256.removeprefix("sha256:").lower():
            raise ModelUnusable(
                f"sha256 is {found}, expected {sha256}; the file was changed, or PADL names another one"
            )
