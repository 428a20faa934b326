"""A stream unit's small HTTP port, answered beside the work by threads of its own.

GET /livez    200, or 503 {"live": false, "reason": "no progress for …"} when it stands still while messages wait
GET /readyz   200 {"ready": true}, or 503 {"ready": false, "reason": "cannot reach mqtt broker …"}
GET /metrics  Prometheus text
GET /info     pipeline, unit, mode, release, steps, models, started
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from . import metrics

JSON = "application/json"


@dataclass(slots=True)
class State:
    """What the data thread says of itself, and is told: `reason` is why the unit is not ready, empty when it is.

    `moved` is when it last finished a batch (monotonic seconds), `stalled` what the watchdog says; `leaving`: this
    replica stops for good, see `Source.retire`.
    """

    info: Mapping[str, Any] = field(default_factory=dict)
    reason: str = "starting"
    loading: bool = False
    leaving: bool = False
    moved: float = 0.0
    stalled: str = ""
    stop: Event = field(default_factory=Event)

    def show(self, described: Mapping[str, Any]) -> None:
        """`/info` says these models and versions from now on."""
        self.info = {**self.info, **described}


class PortTaken(Exception):
    """Something else listens there; the text says where and what to set."""


class Probes:
    """Serves `state` on `host:port` (0: any free one, then in `port`) from construction until `close`."""

    def __init__(self, host: str, port: int, state: State) -> None:
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(state))
        except OSError as error:
            raise PortTaken(
                f"cannot listen on {host}:{port}: {error.strerror} (set MLPACKER_PORT to a free port)"
            ) from None
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), name="probes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(state: State) -> type[BaseHTTPRequestHandler]:
    routes = _routes(state)

    class Handler(BaseHTTPRequestHandler):
        timeout = 5  # seconds for a request to arrive whole, so that nobody holds a thread
        server_version = "mlpacker"
        sys_version = ""

        def do_GET(self) -> None:
            answer = routes.get(self.path.partition("?")[0])
            status, kind, body = answer() if answer else (404, JSON, _json({"error": f"there is {', '.join(routes)}"}))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Probes come every second; they are not events."""

    return Handler


def _routes(state: State) -> dict[str, Callable[[], tuple[int, str, bytes]]]:
    def live() -> tuple[int, str, bytes]:
        reason = state.stalled
        return (503, JSON, _json({"live": False, "reason": reason})) if reason else (200, JSON, _json({"live": True}))

    def ready() -> tuple[int, str, bytes]:
        reason = state.reason or state.stalled
        return (503, JSON, _json({"ready": False, "reason": reason})) if reason else (200, JSON, _json({"ready": True}))

    return {
        "/livez": live,
        "/readyz": ready,
        "/metrics": lambda: (200, metrics.CONTENT_TYPE, metrics.exposition()),
        "/info": lambda: (200, JSON, _json(state.info)),
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
