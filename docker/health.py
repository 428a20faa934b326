"""The health checks of the stack: exit code 0 when the component answers.

Half a second each, where `airflow jobs check` and `celery inspect ping` would load Airflow for five.

    health.py api | scheduler | dag_processor | triggerer | worker
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

API = "http://airflow-apiserver:8080/api/v2/monitor/health"
WITHIN = 8.0


def main(component: str) -> int:
    if component == "api":
        return 0 if _ask("http://127.0.0.1:8080/api/v2/version") else 1
    if component == "scheduler":
        return 0 if _ask("http://127.0.0.1:8974/health") else 1
    if component == "worker":
        return 0 if _worker_answers() else 1
    # These two listen nowhere: their heartbeat in the database, as the api-server tells it.
    return 0 if _ask(API)[component]["status"] == "healthy" else 1


def _ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=WITHIN) as answer:  # noqa: S310  our own http addresses
        return json.loads(answer.read() or b"true") if "json" in answer.headers.get("Content-Type", "") else True


def _worker_answers() -> bool:
    """Whether this container's Celery worker answers over the broker: its main loop runs, and Redis is there."""
    from celery import Celery

    command = os.environ["AIRFLOW__CELERY__BROKER_URL_CMD"].split()
    url = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    name = f"celery@{socket.gethostname()}"
    return bool(Celery(broker=url).control.ping(destination=[name], timeout=WITHIN, limit=1))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).name))
