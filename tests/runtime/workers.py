"""Stream units as they run: a folder with a manifest, and the engine in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from packer_lib.runtime.manifest import Manifest, QueueSpec, StepSpec
from tests.runtime.handmade import write_bundle
from tests.support import free_port, wait_for


def write_unit(folder: Path, *steps: StepSpec, queues: tuple[QueueSpec, ...] = (), pipeline: str = "plant") -> Path:
    """Makes `folder`, where the steps' files already are, a bundle of these steps."""
    write_bundle(folder, *steps, entry="main.py", mode="stream")
    manifest = Manifest(pipeline, steps[0].name, "stream", steps, {queue.id: queue for queue in queues})
    (folder / "unit.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


@dataclass
class Worker:
    """A unit's process; `stop` it in order, or kill it."""

    folder: Path
    port: int = field(default_factory=free_port)
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        environment = {**os.environ, "MLPACKER_PORT": str(self.port), **self.environment}
        with self.log_file.open("ab") as output:
            command = (sys.executable, "main.py", *arguments)
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stderr=output, stdout=output)

    @property
    def log_file(self) -> Path:
        return self.folder / f"log{self.environment.get('MLPACKER_REPLICA', '')}.txt"

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def where(self) -> str:
        """The end of its log, with where each of its threads stands if its code told faulthandler to say it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR2)
            time.sleep(0.5)
        return self.log[-6000:]

    def ask(self, path: str) -> tuple[int, Any]:
        """Status and body; status 0 while nothing listens."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                status, body = answer.status, answer.read()
        except HTTPError as error:
            status, body = error.code, error.read()
        except (URLError, ConnectionError):
            return 0, None
        return status, body.decode() if path == "/metrics" else json.loads(body)

    def wait_ready(self, seconds: float = 30) -> None:
        wait_for(lambda: self.ask("/readyz")[0] == 200, seconds, f"ready: {self.log}")

    def signal(self, how: signal.Signals) -> int:
        """Sends it and waits for the end; the exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.wait()

    def wait(self, seconds: float = 30) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def metric(self, line: str) -> float:
        """The value of the series that is written `line` in the metrics; 0 when it is not there, or nobody answers."""
        found = [text for text in (self.ask("/metrics")[1] or "").splitlines() if text.startswith(f"{line} ")]
        return float(found[0].split()[-1]) if found else 0.0


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[Worker]:
    """A started worker, killed at the end if it still runs."""
    worker = Worker(folder, environment=environment)
    worker.start()
    try:
        yield worker
    finally:
        if worker.process is not None and worker.process.poll() is None:
            worker.signal(signal.SIGKILL)
