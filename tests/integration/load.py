"""A steady load on an endpoint: half of it on connections that are kept, half on new ones; who lost what."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit

WITHIN = 20.0


@dataclass
class Load:
    """`rate` requests a second on `endpoint` while the block runs; `expected` is the right answer to `value`.

    `lost` says of each request that was not answered rightly why. A client of a kept connection does what every client
    does (RFC 9112, 9.3.1): it asks again, once and on a new one, when the old one was closed before any answer.
    """

    endpoint: str
    value: object
    expected: object
    rate: float = 60.0
    answered: int = 0
    releases: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._count = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number % 2 == 0,)) for number in range(6)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WITHIN + 5)

    def _ask(self, kept: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        pause = len(self._threads) / self.rate
        due = time.monotonic()
        while not self._stop.is_set():
            connection = connection if kept and connection is not None and connection.sock is not None else self._new()
            self._one(connection)
            if not kept:
                connection.close()
            due = max(due + pause, time.monotonic() - pause)
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _new(self) -> http.client.HTTPConnection:
        place = urlsplit(self.endpoint)
        return http.client.HTTPConnection(place.hostname or "", place.port, timeout=WITHIN)

    def _one(self, connection: http.client.HTTPConnection, again: bool = True) -> None:
        fresh = connection.sock is None
        body, headers = json.dumps({"data": [self.value]}), {"Content-Type": "application/json"}
        try:
            connection.request("POST", "/predict", body, headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            wrong = "" if said == {"predictions": [self.expected]} else f"{answer.status} {said}"
            by = answer.headers.get("mlpacker-release", "")
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            connection.close()
            if again and not fresh:
                self._one(connection, again=False)
                return
            wrong, by = f"{type(error).__name__}: {error}", ""
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            wrong, by = f"{type(error).__name__}: {error}", ""
        with self._count:
            self.answered += not wrong
            self.releases[by] = self.releases.get(by, 0) + 1
            if wrong:
                self.lost.append(wrong)
