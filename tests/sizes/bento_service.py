"""The iris model as a BentoML user serves it (BentoML 1.4's own form); built by tests/sizes/bento.py."""

import os

import bentoml
import joblib
import numpy as np

image = bentoml.images.Image(python_version="3.11", base_image=os.environ["SIZES_BASE"]).python_packages(
    *os.environ["SIZES_PACKAGES"].split()
)


@bentoml.service(image=image, name="iris")
class Iris:
    kept = bentoml.models.BentoModel("iris:latest")

    def __init__(self) -> None:
        self.model = joblib.load(self.kept.path_of("model.joblib"))

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, data: np.ndarray) -> np.ndarray:
        return np.asarray(self.model.predict(data))
