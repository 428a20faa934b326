"""Streaming units of one step as PADL has them, and what goes through them while something is done to them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from packer_lib.runtime.contract import Message
from packer_lib.runtime.manifest import QueueSpec
from tests.integration.here import Here
from tests.runtime.test_streams import reading, writing
from tests.support import wait_for

LONG = bool(os.environ.get("MLPACKER_LONG"))  # `make replicas`
HANDLER = "import time\ndef handler(value):\n    time.sleep(0.001)\n    return value\n"
CODE = {"type": "code", "language": "python", "props": {"path": "./code"}, "batch": {"max_size": 20}}
MODEL = {
    "type": "model",
    "framework": "scikit-learn",
    "props": {"path": "./model.joblib", "serializer": "joblib"},
}


def document(
    pipeline: str,
    step: Mapping[str, Any],
    queues: Sequence[QueueSpec],
    *,
    boxed: bool = False,
    infra: Mapping[str, Any] | None = None,
) -> str:
    """A PADL file of one step, called `step`, from the first of `queues` to the second; on the only machine of `infra`
    if there is one."""
    ends = {"input": queues[0].id, "output": queues[1].id}
    where = {"infra": next(iter(infra))} if infra else {}
    padl = {
        "version": "1.1",
        "id": pipeline,
        "containerized": boxed,
        "package-mode": "stream",
        "deploy-mode": "remote" if infra else "local",
        "pipeline": {"step": {**step, "queues": ends, **where}},
        "queues": {
            one.id: {"connector": one.connector, "props": {"server": one.server, "port": one.port, "topic": one.topic}}
            for one in queues
        },
        **({"infra": dict(infra)} if infra else {}),
    }
    return json.dumps(padl)


def unit(place: Here, pipeline: str = "shared") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.mlpacker("status", pipeline, "--json").stdout)["units"][0]
    return found


@dataclass
class Flow:
    """Numbers that are put into `source` at a steady rate while the block runs, and all that comes out of `sink`;
    `say` writes one, `hear` is which one an answer is."""

    source: QueueSpec
    sink: QueueSpec
    say: Callable[[int], bytes] = b'{"n": %d}'.__mod__
    hear: Callable[[Any], int] = itemgetter("n")
    rate: float = 150.0
    sent: int = 0
    got: list[int] = field(default_factory=list)

    def __enter__(self) -> Flow:
        self._stop, self._end = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._write)]
        self._listens = threading.Event()
        self._threads[0].start()
        assert self._listens.wait(30)
        self._threads[1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._end.set()
        for thread in self._threads:
            thread.join(60)

    def stop(self) -> None:
        """No more is put in, and all of it has come out; what comes twice has had its time."""
        self._stop.set()
        self._threads[1].join(60)
        wait_for(lambda: len(set(self.got)) == self.sent, 40, f"all of {self.sent}: {len(set(self.got))} came")
        time.sleep(2)

    def _write(self) -> None:
        with writing(self.source) as sink:
            begun = time.monotonic()
            while not self._stop.wait(0.02):
                due = int((time.monotonic() - begun) * self.rate)
                sink.produce([Message(self.say(number), b"%d" % number) for number in range(self.sent, due)])
                sink.flush(30)
                self.sent = due

    def _read(self) -> None:
        with reading(self.sink) as source:
            self._listens.set()
            while not self._end.is_set():
                batch = source.consume(1000, 0.2)
                source.ack(batch)
                self.got.extend(self.hear(json.loads(message.value)) for message in batch)
