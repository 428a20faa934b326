"""Installs what the tests need and may install, and names what is missing; run by `make test` and `make bench`.

As root on Debian: mosquitto, by apt. With Java and Maven: the jars of a real Kafka, into .lab. Never a container
engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.lab import brokers

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def main() -> None:
    """Prints one line per prerequisite that had to be installed or is missing."""
    if not shutil.which("mosquitto", path=PATH):
        install_mosquitto()
    if not (shutil.which("java") and shutil.which("mvn")):
        say(
            "no Java 17 or Maven: tests that need a real Kafka are skipped (apt-get install default-jre-headless maven)"
        )
    elif not brokers.kafka_fetched():
        say("fetching Kafka through Maven into .lab (43 MB) …")
        brokers.fetch_kafka()


def install_mosquitto() -> None:
    """By apt as root on Debian; otherwise says what is skipped. Stops with apt's own words when apt fails."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        say("no mosquitto: tests that need a real MQTT broker are skipped (apt-get install mosquitto)")
        return
    say("installing mosquitto (apt-get) …")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "mosquitto")
    for command in (("apt-get", "update", "-qq"), install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def say(text: str) -> None:
    print(f"[lab] {text}", flush=True)


if __name__ == "__main__":
    main()
