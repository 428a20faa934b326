"""Four users who ask on kept connections, RATE times a second in all, for SECONDS; a process of its own.

usage: asking.py HOST:PORT RATE SECONDS BODY

The first line says that it has begun. Each answer is a line of JSON: when it was asked (`time.monotonic`, the same for
all processes of a machine), how many seconds it took, its prediction, and the header that names its model; of what
failed the reason comes in their place.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

USERS = 4
MODEL = "mlpacker-model"


def ask(place: str, every: float, until: float, body: bytes, found: list[Any]) -> None:
    connection = http.client.HTTPConnection(place, timeout=30)
    due = time.monotonic()
    while due < until:
        time.sleep(max(0.0, due - time.monotonic()))
        asked = time.monotonic()
        try:
            connection.request("POST", "/predict", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
            took = time.monotonic() - asked
            found.append((asked, took, json.loads(data)["predictions"], answer.headers[MODEL]))
        except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
            found.append((asked, time.monotonic() - asked, None, repr(error)))
            connection.close()
        due += every


def main() -> None:
    place, rate, seconds, file = sys.argv[1:]
    found: list[Any] = []
    until, body = time.monotonic() + float(seconds), Path(file).read_bytes()
    users = [Thread(target=ask, args=(place, USERS / float(rate), until, body, found)) for _ in range(USERS)]
    print("begun", flush=True)
    for user in users:
        user.start()
        time.sleep(1 / float(rate))  # not all four at the same moment
    for user in users:
        user.join()
    print("\n".join(map(json.dumps, found)))


if __name__ == "__main__":
    main()
