"""Units with an admin port, and what is sent there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import skops.io
from sklearn.linear_model import LinearRegression

from tests.runtime.handmade import Reply, Service, model_step, running, write_bundle
from tests.runtime.swapping import digest, line
from tests.support import free_port

TOKEN = "a-token-of-the-tests-own"
BINARY = "application/octet-stream"
VERSIONS = "/v2/repository/models/model/versions"


@dataclass(frozen=True)
class Unit:
    """`service` is the public port, `port` the admin port of the same unit."""

    service: Service
    port: int
    state: Path
    token: str = TOKEN

    def admin(self, path: str, body: bytes | None = None, method: str = "", **headers: str) -> Reply:
        given = {"authorization": f"Bearer {self.token}", **headers}
        there = replace(self.service, url=f"http://127.0.0.1:{self.port}")
        return there.ask(path, body, method, **given)

    def put(self, data: bytes, query: str = "", path: str = VERSIONS) -> Reply:
        return self.admin(path + query, data, "PUT", content_type=BINARY)

    def post(self, path: str, value: Any = None) -> Reply:
        return self.admin(path, b"" if value is None else json.dumps(value).encode(), "POST")

    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.admin("/admin/models").json["models"]
        return found

    def said(self) -> float:
        """What the live model answers to `[1]`."""
        reply = self.service.predict([[1]])
        assert reply.status == 200, reply.body
        return float(reply.json["predictions"][0])

    def files(self) -> list[str]:
        """Of models, and what is on its way to be one."""
        found = [*self.state.glob("models/*/*/*"), *self.state.glob("arriving/*")]
        return sorted(path.relative_to(self.state).as_posix() for path in found)


def safe(model: Any) -> bytes:
    data: bytes = skops.io.dumps(model)
    return data


def bundle(folder: Path, model: LinearRegression | None = None) -> str:
    """A unit of one model, number 0; its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = model_step(folder, model or line(0))
    spec = replace(spec, sha256=digest(folder / spec.path))
    write_bundle(folder, spec)
    return spec.sha256


@contextmanager
def administered(folder: Path, **environment: str) -> Iterator[Unit]:
    """The unit of the bundle in `folder`, ready."""
    port = free_port()
    with running(folder, MLPACKER_ADMIN_PORT=str(port), MLPACKER_TOKEN=TOKEN, **environment) as service:
        yield Unit(service, port, folder / ".mlpacker-state")


SLOWLY = """
_load = ScikitLearn.load_model


def _slowly(self, path):
    if Path("slow").exists():
        __import__("time").sleep(float(Path("slow").read_text()))
    _load(self, path)


ScikitLearn.load_model = _slowly
"""


def load_slowly(folder: Path) -> None:
    """The bundle in `folder` takes its time to load a model while it is told to be `slow`."""
    with (folder / "mlpacker_runtime/frameworks/scikit_learn.py").open("a") as file:
        file.write(SLOWLY)


@contextmanager
def slow(folder: Path, seconds: float) -> Iterator[None]:
    (folder / "slow").write_text(str(seconds))
    yield
    (folder / "slow").unlink()
