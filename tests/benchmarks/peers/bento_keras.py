"""What a BentoML user writes by hand for a Keras model: `model.predict`."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import bentoml
import numpy as np
import tensorflow as tf


@bentoml.service
class Autoencoder:
    def __init__(self) -> None:
        self.model = tf.keras.models.load_model("lstm.keras")

    @bentoml.api
    def predict(self, data: np.ndarray) -> np.ndarray:
        return self.model.predict(data, verbose=0)
