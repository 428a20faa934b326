"""scikit-learn models written by joblib, pickle or skops. The one module here that unpickles, and only a model file.

joblib and pickle run code of the file's author while they load, skops does not: it refuses types that it does not know.
Source: scikit-learn's user guide, "Model persistence".
"""

from __future__ import annotations

import logging
import pickle
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import joblib
import numpy
import sklearn
from sklearn.base import BaseEstimator, is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from ..contract import BadInput, Framework, ModelUnusable, Tensor

log = logging.getLogger("mlpacker.scikit-learn")

ZIP = b"PK\x03\x04"
OF_ANY_TYPE = (ColumnTransformer, FeatureUnion, OneHotEncoder, OrdinalEncoder, TargetEncoder)
KINDS = {"b": "BOOL", "i": "INT64", "u": "INT64", "f": "FP64", "U": "BYTES", "O": "BYTES"}  # of labels
WIDE = frozenset(map(numpy.dtype, ("?", "i8", "u8", "f8")))  # as JSON has them, whatever else is in the batch


class ScikitLearn(Framework):
    """An estimator with `predict`. Labels, numbers or rows of them come back, as `predict` gives them."""

    def load_model(self, path: str) -> None:
        file = Path(path)
        check_kind(file, self.serializer)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InconsistentVersionWarning)
            self._model = _read(file, self.serializer)
        for one in {str(warning.message) for warning in caught if warning.category is InconsistentVersionWarning}:
            log.warning("%s", one)
        if not callable(getattr(self._model, "predict", None)):
            raise ModelUnusable(f"holds {type(self._model).__name__}, which has no predict method")
        self._predict = predictor(self._model)
        self._features: int | None = getattr(self._model, "n_features_in_", None)
        self.columns = tuple(map(str, getattr(self._model, "feature_names_in_", ())))
        self.takes, self.gives = takes(self._model), gives(self._model)
        # A model trained on a data frame says so at every call; a request never has column names.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")

    def get_model_result(self, batch: Sequence[Any]) -> list[Any]:
        """`batch`: rows of `n_features_in_` numbers, plain numbers for a model of one feature, text for one of text."""
        rows = self._rows(batch)
        try:
            answers: list[Any] = numpy.asarray(self._predict(rows)).tolist()
        except (ValueError, TypeError) as error:
            raise BadInput(str(error)) from error
        return answers

    def _rows(self, batch: Sequence[Any]) -> Any:
        rows = as_array(batch)
        if self._features is None:
            return rows
        if rows.ndim == 1 and self._features == 1:
            rows = rows.reshape(-1, 1)
        if rows.shape[1:] != (self._features,):
            raise BadInput(f"expected {(self._features,)}, got {rows.shape[1:]}")
        return rows


def predictor(model: Any) -> Callable[[Any], Any]:
    """`model.predict`. A plain pipeline's is its steps', one after the other: each asks by itself whether it is fitted,
    and for the pipeline to ask them all beforehand takes as long as one of them."""
    if type(model) is not Pipeline:
        return cast("Callable[[Any], Any]", model.predict)
    transforms = [step.transform for _, step in model.steps[:-1] if step is not None and step != "passthrough"]
    last = model.steps[-1][1]

    def predict(rows: Any) -> Any:
        for transform in transforms:
            rows = transform(rows)
        return last.predict(rows)

    return predict


def know_arrays() -> None:
    """scikit-learn asks of its input, several times a call, whether it is a data frame of any library; for narwhals to
    find that an array is none takes longer than a small model's answer. Here that is known beforehand."""
    try:
        from narwhals.stable.v2 import dependencies
    except ImportError:  # a scikit-learn that does not ask
        return
    for name in ("is_into_dataframe", "is_into_series"):
        setattr(dependencies, name, _but_arrays(getattr(dependencies, name)))


def _but_arrays(asked: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: type(value) is not numpy.ndarray and asked(value)


know_arrays()


def takes(model: Any) -> Tensor | None:
    """None where it is not known, or columns of text are among it."""
    features = getattr(model, "n_features_in_", None)
    first = model.steps[0][1] if isinstance(model, Pipeline) else model
    if features is None or isinstance(first, OF_ANY_TYPE):
        return None
    return Tensor("FP64", (-1, int(features)))


def gives(model: Any) -> Tensor | None:
    """One label or number a row; None for what has several outputs, or says nothing of them."""
    last = model.steps[-1][1] if isinstance(model, Pipeline) else model
    if not isinstance(last, BaseEstimator):
        return None
    labels = getattr(last, "classes_", None)
    if is_classifier(last) and isinstance(labels, numpy.ndarray) and labels.ndim == 1:
        return Tensor(KINDS[labels.dtype.kind], (-1,)) if labels.dtype.kind in KINDS else None
    if is_outlier_detector(last) or is_clusterer(last):
        return Tensor("INT64", (-1,))
    one = getattr(last, "n_outputs_", 1) == 1 and getattr(getattr(last, "coef_", None), "ndim", 1) == 1
    return Tensor("FP64", (-1,)) if is_regressor(last) and one and hasattr(last, "n_features_in_") else None


def as_array(batch: Sequence[Any]) -> Any:
    """Numbers as numbers of 64 bits; anything with text as objects, so that one text makes none of its neighbours."""
    try:
        array = numpy.asarray(batch)
    except ValueError:
        raise BadInput("expected nested lists of one length, got rows of different lengths") from None
    if array.dtype.kind not in "biuf":
        return numpy.asarray(batch, dtype=object)
    return array if array.dtype in WIDE else array.astype(numpy.float64 if array.dtype.kind == "f" else numpy.int64)


def check_kind(file: Path, serializer: str) -> None:
    """The first bytes fit the serializer, or `ModelUnusable` says which they fit."""
    with file.open("rb") as opened:
        start = opened.read(4)
    if not start:
        raise ModelUnusable("the file is empty")
    if start == b"\x89HDF":
        raise ModelUnusable("is an HDF5 file (framework tensorflow, serializer h5), not one of scikit-learn")
    if (start == ZIP) != (serializer == "skops"):
        found = (
            "a zip archive, as skops (or Keras) writes it" if start == ZIP else "not a zip archive, as skops writes it"
        )
        raise ModelUnusable(f"serializer is {serializer}, the file is {found}")


def _read(file: Path, serializer: str) -> Any:
    readers: dict[str, Callable[[Path], Any]] = {"joblib": joblib.load, "pickle": _unpickle, "skops": _read_skops}
    try:
        return readers[serializer](file)
    except ModelUnusable:
        raise
    except Exception as error:
        raise ModelUnusable(
            f"cannot be read by {serializer}: {type(error).__name__}: {error}{_remedy(error, file)}"
        ) from error


def _unpickle(file: Path) -> Any:
    with file.open("rb") as opened:
        return pickle.load(opened)  # noqa: S301 a model file that PADL names, never anything that was received


def _read_skops(file: Path) -> Any:
    import skops.io

    unknown = skops.io.get_untrusted_types(file=file)
    if unknown:
        raise ModelUnusable(
            f"skops does not know whether these types are safe, and they are refused: {', '.join(unknown)}"
        )
    return skops.io.load(file)


def _remedy(error: Exception, file: Path) -> str:
    """The usual reasons: a package that is not there, another version of scikit-learn, a class of the author's own."""
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("sklearn"):
        return f"; the model needs the package {error.name!r}, which is not in this unit"
    version = written_by(file)
    if version and version != sklearn.__version__:
        return (
            f"; it was written by scikit-learn {version}, this unit has {sklearn.__version__}: train it again with that"
        )
    if isinstance(error, AttributeError):
        return "; a class of your own cannot be found here: keep to scikit-learn's classes, or use a code step"
    return f"; this unit has scikit-learn {sklearn.__version__}"


def written_by(file: Path) -> str:
    """The scikit-learn version noted in an uncompressed pickle or joblib file, or ""."""
    found = re.search(rb"_sklearn_version.{1,12}?(\d+\.\d+(?:\.\w+)*)", file.read_bytes(), re.DOTALL)
    return found[1].decode() if found else ""
