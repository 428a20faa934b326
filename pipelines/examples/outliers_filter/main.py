"""Windows that the autoencoder could not reconstruct: the anomalies. Plain Python, no import of MLPacker.

`threshold.json` beside this file comes from the training: `scale` is the standard deviation of each feature,
`threshold` the largest error that still counts as ordinary.
"""

import json
from pathlib import Path

_trained = json.loads(Path(__file__).with_name("threshold.json").read_text(encoding="utf-8"))
THRESHOLD = _trained["threshold"]
SCALE = _trained["scale"]


def reconstruction_error(window, reconstruction):
    """Mean squared error over all rows and features, each feature in units of its own standard deviation."""
    squares = [
        ((value - guess) / scale) ** 2
        for row, guesses in zip(window, reconstruction, strict=True)
        for value, guess, scale in zip(row, guesses, SCALE, strict=True)
    ]
    return sum(squares) / len(squares)


def handler(message):
    """A window with its `prediction` in; the anomaly out, or None when the window is an ordinary one."""
    error = reconstruction_error(message["data"], message["prediction"])
    if error <= THRESHOLD:
        return None
    cpu, network_in, disk_read = message["data"][-1]
    return {
        "timestamp": message["timestamp"],
        "host": message.get("host", ""),
        "error": round(error, 3),
        "threshold": THRESHOLD,
        "cpu": cpu,
        "network_in": network_in,
        "disk_read": disk_read,
    }
