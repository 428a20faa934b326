"""The smallest bundle that is one: standard library only, no model, answers what every unit answers. It really runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from packer_lib import build, release, status
from packer_lib.bundle import Bundle
from packer_lib.hosts import Host
from packer_lib.hosts.layout import Layout
from packer_lib.padl.model import Golden, Step
from packer_lib.plan import Plan, Unit
from packer_lib.release.native import DOOR_FILES
from packer_lib.settings import Settings

MAIN = """
import json, os, sys, threading, time
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

class Server(ThreadingHTTPServer):
    def __init__(self, where, lent=None):
        super().__init__(where, Handler, bind_and_activate=lent is None)
        if lent is not None:
            self.socket.close()
            self.socket = lent
            self.server_name, self.server_port = lent.getsockname()[:2]

def serve(server):
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server

def live_behind_the_door(folder, own):
    sys.path.insert(0, os.getcwd())
    import door
    release, public = os.environ["MLPACKER_RELEASE"], None
    while True:
        try:
            line = door.connect(folder)
        except OSError:
            time.sleep(0.05)
            continue
        line.connection.setblocking(True)
        line.send({"unit": release, "port": own.server_port, "reason": told.get("waits", "")}, public and public.socket)
        try:
            while True:
                for message in line.receive():
                    if public:
                        public.shutdown()
                        public.server_close()
                    lent = line.lent() if message["do"] == "take" else None
                    public = lent and serve(Server(lent.getsockname(), lent))
                    line.send({"did": "took" if public else "left", "reason": ""})
        except (EOFError, OSError):
            line.close()

print("serving", told.get("factor", 1), flush=True)
own = serve(Server((os.environ["MLPACKER_HOST"], int(os.environ["MLPACKER_PORT"]))))
if told.get("dies"):
    threading.Timer(told["dies"], os._exit, (3,)).start()
if "MLPACKER_DOOR" in os.environ:
    live_behind_the_door(os.environ["MLPACKER_DOOR"], own)
threading.Event().wait()
"""


def bundle(folder: Path, told: dict[str, object] | None = None, entry: str = "service.py") -> Bundle:
    """A bundle in `folder` that behaves as `told`: check (exit code), crash, waits (reason), factor, models."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / entry).write_text(MAIN)
    shutil.copytree(DOOR_FILES[0].parent, folder / "door", dirs_exist_ok=True)
    (folder / "unit.json").write_text(json.dumps(told or {}))
    (folder / "requirements.lock").write_text("# nothing\n")
    digest = hashlib.sha256(f"{folder.name}{entry}{told}".encode()).hexdigest()
    return Bundle(folder, digest, hashlib.sha256(b"# nothing\n").hexdigest(), (("double", "ab" * 32),))


class Tiny:
    """A home of its own, and plans whose bundles need no fetching: `told[unit]` is how the unit's next bundle
    behaves.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(home=folder / "home", model_roots=(folder,), ready_timeout=20.0, watch_seconds=0.0)
        self.layout = Layout(str(self.settings.home))
        self.told: dict[str, dict[str, object]] = {}
        self.said: list[str] = []
        (folder / "code").mkdir(parents=True)
        (folder / "code" / "main.py").write_text("def handler(value):\n    return 2 * value\n")

    def plan(self, *names: str, port: int | None = None, env: dict[str, str] | None = None) -> Plan:
        """A REST pipeline of one-step units; the golden request of each expects twice its input."""
        step = Step("double", "code", str(self.folder / "code"), test=Golden(21, 42))
        units = tuple(Unit(name, (replace(step, name=name),), port=port) for name in names or ("double",))
        return Plan("tiny", "api", "local", False, units, env=tuple((env or {}).items()), file="tiny.yaml")

    @contextmanager
    def bundled(self, plan: Plan, unit: Unit, settings: Settings) -> Iterator[Bundle]:
        folder = self.folder / "bundles" / plan.package_mode / unit.name
        yield bundle(folder, self.told.get(unit.name, {"factor": 2}), build.entry(plan.package_mode))

    def deploy(self, plan: Plan, host: Host | None = None, **kwargs: Any) -> dict[str, str]:
        """Unit → action."""
        fleet = {None: host} if host else None
        done = release.deploy(plan, self.settings, progress=self.said.append, **{"fleet": fleet, **kwargs})
        return {unit.unit: unit.action for unit in done}

    def undeploy(self) -> None:
        release.undeploy("tiny", self.settings, progress=self.said.append)

    def unit(self, name: str = "double") -> dict[str, Any]:
        """What `status` says of the unit."""
        units = status.status(self.settings, "tiny")[0]["units"]
        return next(unit for unit in units if unit["name"] == name)

    def ask(self, value: float, name: str = "double") -> Any:
        """The unit's answer over HTTP."""
        body = json.dumps({"data": [value]}).encode()
        with urlopen(f"{self.unit(name)['endpoint']}/predict", body, timeout=10) as response:
            return json.load(response)["predictions"][0]

    def left(self) -> list[str]:
        """Files and folders of the home that belong to some pipeline."""
        kinds = ("bundles", "conf.d", "doors", "envs", "releases", "state", "locks", "logs", "pipelines")
        found = [path for kind in kinds for path in (self.settings.home / kind).rglob("*")]
        return sorted(str(path.relative_to(self.settings.home)) for path in found if path.name != "supervisord.log")


def tiny(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A `Tiny` in `folder` whose bundles take the place of the real ones."""
    made = Tiny(folder)
    monkeypatch.setattr(sys.modules["packer_lib.release.deploy"], "bundled", made.bundled)
    return made


def is_gone(pid: int) -> bool:
    """A zombie that nobody has fetched yet runs no more either."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
