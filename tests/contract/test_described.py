"""What scikit-learn's estimators take and give, as far as they say it themselves."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import IsolationForest, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from packer_lib.runtime.contract import Tensor
from packer_lib.runtime.frameworks.scikit_learn import gives, takes

ROWS, LABELS = load_iris(return_X_y=True)
FOUR = Tensor("FP64", (-1, 4))


@pytest.mark.parametrize(
    ("model", "target", "taken", "given"),
    [
        (LogisticRegression(max_iter=500), LABELS, FOUR, Tensor("INT64", (-1,))),
        (LogisticRegression(max_iter=500), LABELS.astype(str), FOUR, Tensor("BYTES", (-1,))),
        (LogisticRegression(max_iter=500), LABELS > 0, FOUR, Tensor("BOOL", (-1,))),
        (KNeighborsClassifier(), numpy.stack([LABELS, LABELS], 1), FOUR, None),
        (LinearRegression(), ROWS[:, 0], FOUR, Tensor("FP64", (-1,))),
        (LinearRegression(), ROWS[:, :2], FOUR, None),
        (RandomForestRegressor(2), ROWS[:, :2], FOUR, None),
        (make_pipeline(StandardScaler(), RandomForestRegressor(2)), ROWS[:, 0], FOUR, Tensor("FP64", (-1,))),
        (KMeans(2, n_init=1), None, FOUR, Tensor("INT64", (-1,))),
        (IsolationForest(n_estimators=2), None, FOUR, Tensor("INT64", (-1,))),
        (
            make_pipeline(make_column_transformer(("passthrough", [0])), LinearRegression()),
            ROWS[:, 0],
            None,
            Tensor("FP64", (-1,)),
        ),
    ],
)
def test_is_what_predict_does(model: Any, target: Any, taken: Tensor | None, given: Tensor | None) -> None:
    model.fit(ROWS, target)
    assert (takes(model), gives(model)) == (taken, given)
    if given is not None:
        answers = numpy.asarray(model.predict(ROWS))
        assert answers.ndim == len(given.shape)
        assert given.datatype == {"i": "INT64", "f": "FP64", "U": "BYTES", "b": "BOOL"}[answers.dtype.kind]


def test_what_says_nothing_is_not_known() -> None:
    assert (takes(object()), gives(object())) == (None, None)
