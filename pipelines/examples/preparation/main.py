"""Windows of metrics: the last 30 records of a host, as the autoencoder wants them. Plain Python."""

from collections import deque

WINDOW = 30
FEATURES = ("cpu", "network_in", "disk_read")

_windows = {}


def handler(message):
    """One metrics record in; `{"timestamp", "host", "data"}` out, `data` being 30 rows of three numbers, oldest first.

    None until a host has sent 30 records. The units stay the agent's (percent, bytes per second): the model scales.
    """
    host = message.get("host", "")
    window = _windows.setdefault(host, deque(maxlen=WINDOW))
    window.append([message[feature] for feature in FEATURES])
    if len(window) < WINDOW:
        return None
    return {"timestamp": message["timestamp"], "host": host, "data": list(window)}
