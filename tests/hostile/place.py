"""A user of a lab machine's own for one test, with a password that nobody else has, and a folder that deploys there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import lab

MLPACKER = str(Path(sys.executable).with_name("mlpacker"))
VARIABLE = "MLPACKER_SECRET_SENTINEL"  # a name that tasks of Airflow may use


@dataclass(frozen=True, slots=True)
class Place:
    """`broker` is what `VARIABLE` holds where it deploys."""

    machine: lab.Machine
    user: str
    password: str
    broker: str
    folder: Path

    @property
    def secrets(self) -> tuple[str, str]:
        return self.password, self.broker

    def padl(self, document: dict[str, Any]) -> Path:
        """The document as a file, completed: the user's name is its id, and `m` the machine with its literal pass."""
        login = self.machine.ssh_config(user=self.user, **{"pass": self.password})
        head = {"version": "1.1", "id": self.user, "deploy-mode": "remote"}
        infra = {"m": {"hostname": self.machine.hostname, "sshConfig": login}}
        file = self.folder / "pipeline.json"
        file.touch(0o600)
        file.write_text(json.dumps({**head, **document, "infra": infra}, indent=1))
        return file

    def code(self, text: str) -> dict[str, Any]:
        """A step of that code, on the machine."""
        (self.folder / "code").mkdir(exist_ok=True)
        (self.folder / "code/main.py").write_text(text)
        return {"type": "code", "language": "python", "props": {"path": "./code"}, "infra": "m"}

    def mlpacker(self, *words: str) -> str:
        """What it prints, on either stream."""
        done = subprocess.run((MLPACKER, *words), env=self.environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def environment(self) -> dict[str, str]:
        """Of who deploys."""
        home = str(self.folder / "home")
        return {**os.environ, **lab.settings_env(), "MLPACKER__PATHS__HOME": home, VARIABLE: self.broker}

    def held_there(self, secret: str) -> list[str]:
        """Files of that machine that hold `secret`; what its engine keeps is looked at by asking the engine."""
        found = self.machine.exec("grep", "-rlIaF", secret, "/home", "/tmp", "/var", "/root", "/run", check=False)
        return [line for line in found.splitlines() if not line.startswith("/var/lib/docker/")]

    def held_here(self, secret: str) -> list[str]:
        files = (path for path in (self.folder / "home").rglob("*") if path.is_file() and not path.is_symlink())
        return [str(path.relative_to(self.folder)) for path in files if secret.encode() in path.read_bytes()]


@contextmanager
def made(name: str, folder: Path) -> Iterator[Place]:
    user = f"s{uuid.uuid4().hex[:8]}"
    place = Place(lab.machine(name), user, f"hunter2-{uuid.uuid4().hex}", f"hunter3-{uuid.uuid4().hex}", folder)
    place.machine.exec("useradd", "-m", "-G", "docker", "-s", "/bin/bash", user)
    place.machine.exec("sh", "-c", 'echo "$0:$1" | chpasswd', user, place.password)
    try:
        yield place
    finally:
        place.machine.exec("pkill", "-KILL", "-u", user, check=False)
        place.machine.exec("userdel", "-rf", user, check=False)
