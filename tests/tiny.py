"""The smallest bundle that is one: standard library only, no model, answers what every unit answers. It really runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from packer_lib.bundle import Bundle
from packer_lib.padl.model import Golden, Step
from packer_lib.plan import Plan, Unit
from packer_lib.release import deploy as deploying
from packer_lib.settings import Settings

MAIN = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

told = json.load(open("unit.json"))
if "--check" in sys.argv:
    print("looking at the model", flush=True)
    sys.exit(told.get("check", 0))
if told.get("crash"):
    sys.exit("no such topic: out of luck")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        waits = told.get("waits", "")
        routes = {"/livez": (200, {}), "/readyz": (503 if waits else 200, {"ready": not waits, "reason": waits}),
                  "/info": (200, {"release": os.environ["MLPACKER_RELEASE"], "models": told.get("models", [])}),
                  "/env": (200, dict(os.environ))}
        self.answer(*routes.get(self.path, (404, {})))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(200, {"predictions": [told.get("factor", 1) * value for value in body["data"]]})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

print("serving", told.get("factor", 1), flush=True)
ThreadingHTTPServer((os.environ["MLPACKER_HOST"], int(os.environ["MLPACKER_PORT"])), Handler).serve_forever()
"""


def bundle(folder: Path, told: dict[str, object] | None = None, entry: str = "service.py") -> Bundle:
    """A bundle in `folder` that behaves as `told`: check (exit code), crash, waits (reason), factor, models."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / entry).write_text(MAIN)
    (folder / "unit.json").write_text(json.dumps(told or {}))
    (folder / "requirements.lock").write_text("# nothing\n")
    digest = hashlib.sha256(f"{folder.name}{entry}{told}".encode()).hexdigest()
    return Bundle(folder, digest, hashlib.sha256(b"# nothing\n").hexdigest(), (("double", "ab" * 32),))


def plan(*names: str, pipeline: str = "tiny", port: int | None = None, env: dict[str, str] | None = None) -> Plan:
    """A REST pipeline of one-step units; the golden request of each expects twice its input."""
    golden = Golden(21, 42)
    units = tuple(Unit(name, (Step(name, "code", "x", test=golden),), port=port) for name in names or ("double",))
    return Plan(pipeline, "api", "local", False, units, env=tuple((env or {}).items()))


class Maker:
    """Takes the place of fetching and bundling: `told[unit]` is how the next bundle of that unit behaves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: dict[str, dict[str, object]] = {}

    @contextmanager
    def bundled(self, plan: Plan, unit: Unit, settings: Settings) -> Iterator[Bundle]:
        yield bundle(self.folder / unit.name, self.told.get(unit.name, {"factor": 2}))


def maker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    made = Maker(folder)
    monkeypatch.setattr(deploying, "bundled", made.bundled)
    return made
