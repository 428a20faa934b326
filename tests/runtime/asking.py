"""Users who go on asking, on connections that are kept or new each time, and note every answer and every loss."""

from __future__ import annotations

import re
import socket
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread

BODY = b'{"data":[1]}'
HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
REQUEST = HEAD % len(BODY) + BODY
SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    status: int
    release: str
    last: bool  # the connection ends with it
    body: bytes


class Line:
    """One connection to `port`."""

    def __init__(self, port: int) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), SECONDS)

    def ask(self) -> Answer:
        """`OSError` or `EOFError` when there is no answer."""
        self.send()
        return self.answer()

    def send(self) -> None:
        self.connection.sendall(REQUEST)

    def answer(self) -> Answer:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(re.findall(rb"content-length: (\d+)", head)[0])
        while len(body) < length:
            body += self._more()
        release = [*re.findall(rb"mlpacker-release: (\S+)", head), b""][0].decode()
        return Answer(int(head[9:12]), release, b"connection: close" in head, body)

    def _more(self) -> bytes:
        data = self.connection.recv(65536)
        if not data:
            raise EOFError("closed without an answer")
        return data

    def close(self) -> None:
        self.connection.close()


class Asking:
    """`kept` and `fresh` users ask `port` from `with` to its end. `answers` counts by (kept, status, release)."""

    def __init__(self, port: int, kept: int = 3, fresh: int = 3) -> None:
        self.answers: Counter[tuple[bool, int, str]] = Counter()
        self.lost: list[str] = []
        self.mixed: list[Answer] = []
        self._port = port
        self._stop = Event()
        self._users = [Thread(target=self._ask, args=(number < kept,)) for number in range(kept + fresh)]

    def __enter__(self) -> Asking:
        for user in self._users:
            user.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for user in self._users:
            user.join()

    def of(self, release: str) -> int:
        return sum(
            count for (_kept, status, name), count in self.answers.copy().items() if (status, name) == (200, release)
        )

    def _ask(self, kept: bool) -> None:
        line: Line | None = None
        while not self._stop.is_set():
            try:
                line = line or Line(self._port)
                answer = line.ask()
            except (OSError, EOFError) as error:
                self.lost.append(f"{'kept' if kept else 'fresh'}: {error!r}")
                line = None
                continue
            self.answers[kept, answer.status, answer.release] += 1
            if f'"{answer.release}"'.encode() not in answer.body:
                self.mixed.append(answer)
            if answer.last or not kept:
                line.close()
                line = None
        with suppress(AttributeError):
            line.close()  # type: ignore[union-attr]
