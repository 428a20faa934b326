"""What the runtime leaves out of scikit-learn's way to an answer, and that the answer is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy
import pytest
from narwhals.stable.v2 import dependencies
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from packer_lib.runtime.contract import BadInput
from packer_lib.runtime.frameworks.scikit_learn import ScikitLearn, predictor

FEATURES, LABELS = load_breast_cancer(return_X_y=True)


def fitted(*steps: Any) -> Any:
    return make_pipeline(*steps).fit(FEATURES, LABELS)


def nested() -> Any:
    return fitted(make_pipeline(StandardScaler(), "passthrough"), None, LogisticRegression(max_iter=500))


@pytest.mark.parametrize(
    "model",
    [
        fitted(StandardScaler(), LogisticRegression(max_iter=500)),
        fitted(FunctionTransformer(numpy.log1p), RandomForestClassifier(5)),
        fitted(RandomForestClassifier(5)),
        nested(),
    ],
    ids=str,
)
def test_a_pipeline_answers_as_scikit_learn_says(model: Any) -> None:
    expected = model.predict(FEATURES)
    assert (predictor(model)(FEATURES) == expected).all()


def test_a_pipeline_of_ones_own_class_is_asked_itself() -> None:
    class Own(Pipeline):
        def predict(self, X: Any, **params: Any) -> Any:
            return super().predict(X, **params) + 10

    model = Own([("scale", StandardScaler()), ("tell", LogisticRegression(max_iter=500))]).fit(FEATURES, LABELS)
    assert set(predictor(model)(FEATURES)) == {10, 11}


def test_what_is_not_fitted_or_not_finite_is_refused_as_ever(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        predictor(make_pipeline(StandardScaler(), LogisticRegression()))(FEATURES)
    joblib.dump(fitted(StandardScaler(), LogisticRegression(max_iter=500)), tmp_path / "model.joblib")
    framework = ScikitLearn("joblib")
    framework.load_model(str(tmp_path / "model.joblib"))
    assert framework.get_model_result(FEATURES[:2].tolist()) == [0, 0]
    with pytest.raises(BadInput, match="NaN"):
        framework.get_model_result([[float("nan")] * FEATURES.shape[1]])


def test_data_frames_are_still_known_as_such() -> None:
    class Frame:
        def __narwhals_dataframe__(self) -> None: ...

    assert dependencies.is_into_dataframe(Frame())
    assert not dependencies.is_into_dataframe(FEATURES)
    assert not dependencies.is_into_series(LABELS)
