"""What a BentoML user writes by hand, in the two usual forms."""

import bentoml
import joblib
import numpy as np


@bentoml.service
class Plain:
    def __init__(self) -> None:
        self.model = joblib.load("model.joblib")

    @bentoml.api
    def predict(self, data: np.ndarray) -> np.ndarray:
        return self.model.predict(data)


@bentoml.service
class Batchable:
    def __init__(self) -> None:
        self.model = joblib.load("model.joblib")

    @bentoml.api(batchable=True)
    def predict(self, data: np.ndarray) -> np.ndarray:
        return self.model.predict(data)
