"""The demo's source: what this machine does (CPU, network, disk), five times a second, to the stack's MQTT broker."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from packer_lib.demo.agent import RATE, publish, records
from packer_lib.runtime.catalogue import CONNECTORS
from packer_lib.runtime.manifest import QueueSpec

TOPIC = "metrics"
PASSWORD = Path("/run/secrets/mqtt_password")


def main() -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    os.environ["MQTT_PASSWORD"] = PASSWORD.read_text(encoding="utf-8")
    options = {"username": "mlpacker", "pass_env": "MQTT_PASSWORD"}
    spec = QueueSpec(id=TOPIC, connector="mqtt", server="mosquitto", port=1883, topic=TOPIC, options=options)
    sink = CONNECTORS["mqtt"].load().sink(spec, "mlpacker.stack.feed")
    sink.connect()
    try:
        publish(records(RATE, stop), [sink])
    finally:
        sink.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
