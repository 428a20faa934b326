"""The paper's LSTM autoencoder, trained on recorded metrics. A script of its own: numpy and Keras, nothing of ours.

    python train.py metrics.csv OUTPUT

writes `OUTPUT/lstm.h5` (windows of 30 × 3 in and out, both in the agent's units: the scaling is inside the model) and
`OUTPUT/threshold.json` (`{"threshold", "scale", "windows", "loss"}`) for the outliers filter.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

WINDOW = 30
FEATURES = ("cpu", "network_in", "disk_read")
CELLS = 16
EPOCHS = 12
#: A window counts as an outlier above so many times the largest error but one in a thousand of the training.
MARGIN = 2.0

Array = Any


def windows(rows: Array) -> Array:
    """(records, features) → (windows, 30, features), one window per record from the 30th on."""
    return np.lib.stride_tricks.sliding_window_view(rows, WINDOW, axis=0).transpose(0, 2, 1)


def read(source: Path) -> Array:
    """The three features of every record, (records, 3) float32."""
    with source.open(newline="", encoding="utf-8") as file:
        return np.array([[float(row[name]) for name in FEATURES] for row in csv.DictReader(file)], dtype="float32")


def autoencoder() -> Any:
    """Scaled windows to scaled windows: LSTM to one code, the code repeated, LSTM back to rows."""
    return keras.Sequential(
        [
            keras.Input((WINDOW, len(FEATURES))),
            keras.layers.LSTM(CELLS),
            keras.layers.RepeatVector(WINDOW),
            keras.layers.LSTM(CELLS, return_sequences=True),
            keras.layers.Dense(len(FEATURES)),
        ]
    )


def in_own_units(core: Any, mean: Array, scale: Array) -> Any:
    """`core` with its scaling inside, so that whoever serves it needs to know nothing but windows."""
    statistics = {"mean": mean.tolist(), "variance": (scale**2).tolist()}
    inputs = keras.Input((WINDOW, len(FEATURES)), name="window")
    scaled = keras.layers.Normalization(**statistics, name="scale")(inputs)
    outputs = keras.layers.Normalization(**statistics, invert=True, name="unscale")(core(scaled))
    return keras.Model(inputs, outputs, name="lstm_autoencoder")


def train(rows: Array, epochs: int = EPOCHS) -> tuple[Any, dict[str, Any]]:
    """The model and what the filter needs to judge its errors. A feature that never moves gets the scale 1."""
    keras.utils.set_random_seed(7)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    data = windows((rows - mean) / scale)
    core = autoencoder()
    core.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    history = core.fit(data, data, epochs=epochs, batch_size=64, verbose=0)
    errors = np.square(core.predict(data, batch_size=512, verbose=0) - data).mean(axis=(1, 2))
    found = {
        "threshold": round(float(np.quantile(errors, 0.999)) * MARGIN, 4),
        "scale": [round(float(value), 4) for value in scale],
        "windows": len(data),
        "loss": round(float(history.history["loss"][-1]), 4),
    }
    return in_own_units(core, mean, scale), found


def main(source: Path, output: Path) -> None:
    """Writes the threshold last, so that its presence says that the training is complete."""
    model, found = train(read(source))
    output.mkdir(parents=True, exist_ok=True)
    model.save(output / "lstm.h5")
    (output / "threshold.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
