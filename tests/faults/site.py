"""A pipeline on the lab's machines (or on this one), released again and again by `mlpacker` as a person runs it.

Every version multiplies by another number, so that an answer says which version gave it. `trouble` is what is wrong
with a version: what a check of the image alone does not find.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.here import Here
from tests.lab import lab
from tests.support import ROOT

LIVE = 'import sys\nlive = "--check" not in sys.argv\n'
TROUBLE = {
    "": "",
    "crashes": "if live:\n    sys.exit('out of luck')\n",
    "never healthy": "import time\nif live:\n    time.sleep(3600)\n",
    "dies after 10 s": (
        "import os, threading\n"
        "def die():\n    print('out of luck', flush=True)\n    os._exit(1)\n"
        "if live:\n    threading.Timer(10, die).start()\n"
    ),
}
HANDLER = "\n\ndef handler(value):\n    return value * {factor}\n"
# Processes that run in a bundle of the pipeline: number, start (ticks since boot), folder.
OF_A_BUNDLE = """\
for process in /proc/[0-9]*; do
  folder=$(readlink $process/cwd) || continue
  case $folder in "$1"*) grep -q "\\"$2\\"" $folder/unit.json && echo ${process#/proc/} \
    $(sed 's/.*) //' $process/stat | cut -d' ' -f20) $folder;; esac
done 2>/dev/null; true
"""
ENGINE = (
    "docker ps -a --format 'container {{.Names}}'; docker volume ls --format 'volume {{.Name}}'; "
    "docker images --format 'image {{.Repository}}:{{.Tag}}';"
)
Ask = Callable[..., str]
STEPS = ("one", "two", "three")


@dataclass(frozen=True)
class Site:
    """`machines` are the lab's names, one step on each; none: one step on this machine."""

    id: str
    here: Here
    machines: tuple[str, ...] = ()
    containerized: bool = True

    @property
    def steps(self) -> tuple[str, ...]:
        return STEPS[: max(1, len(self.machines))]

    def write(self, factor: int, trouble: str = "", weight: int = 0, registry: bool = False) -> None:
        """The next version; `trouble` is in the last step, and `weight` bytes that no compression makes smaller."""
        for step in self.steps:
            bad = TROUBLE[trouble] if step == self.steps[-1] else ""
            self.here.write(f"{step}/main.py", LIVE + bad + HANDLER.format(factor=factor))
        self.here.write(f"{self.steps[-1]}/weight.bin", _noise(factor, weight))
        self.here.write("p.json", json.dumps(self.document(registry), indent=2))

    def document(self, registry: bool) -> dict[str, Any]:
        infra = {"infra": lab.padl_infra(**{f"m{i}": name for i, name in enumerate(self.machines, 1)})}
        return {
            "version": "1.1",
            "id": self.id,
            "containerized": self.containerized,
            "package-mode": "api",
            "deploy-mode": "remote" if self.machines else "local",
            **({} if registry else {"registry": "none"}),
            "pipeline": {step: self._step(number, step) for number, step in enumerate(self.steps)},
            **(infra if self.machines else {}),
        }

    def _step(self, number: int, name: str) -> dict[str, Any]:
        around = {"input": self.steps[number - 1]} if number else {}
        if number + 1 < len(self.steps):
            around["output"] = self.steps[number + 1]
        return {
            "type": "code",
            "language": "python",
            "props": {"path": f"./{name}"},
            "idempotent": True,
            **({"queues": around} if around else {}),
            **({"infra": f"m{number + 1}"} if self.machines else {}),
        }

    def answer(self, factor: int, value: int = 7) -> list[int]:
        """What a version predicts for `value`."""
        return [value * factor ** len(self.steps)]

    def env(self, changes: dict[str, str]) -> dict[str, str]:
        # a release that is not ready in 60 s will not be; nobody's death is waited for, where a test does not need it
        quick = {"MLPACKER__DEPLOY__READY_TIMEOUT": "60", "MLPACKER__DEPLOY__WATCH_SECONDS": "1"}
        return {**lab.settings_env(), **lab.registry_env(), **quick, **changes}

    def mlpacker(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.here.mlpacker(*words, **self.env(env))

    def deploy(self, **env: str) -> subprocess.CompletedProcess[str]:
        return self.mlpacker("deploy", "p.json", **env)

    def start(self, **env: str) -> subprocess.Popen[str]:
        """A deploy that goes on while the test does something to it."""
        return self.here.start("deploy", "p.json", **self.env(env))

    def live(self, factor: int, **env: str) -> str:
        """Deploys a good version; the endpoint of its first unit."""
        self.write(factor)
        done = self.deploy(**env)
        assert done.returncode == 0, done.stderr
        return self.endpoint

    @property
    def endpoint(self) -> str:
        return str(self.units()[0]["endpoint"])

    def units(self) -> list[dict[str, Any]]:
        """What `mlpacker status` says, in the order of the steps."""
        done = self.mlpacker("status", self.id, "--json")
        assert done.returncode == 0, done.stderr
        units = json.loads(done.stdout)["units"]
        return sorted(units, key=lambda unit: self.steps.index(unit["name"]))

    def killed(self, number: int, when: str, log: Path, **env: str) -> int:
        """A deploy that is killed at its call `number` of a machine; its exit code. 0: it had fewer calls."""
        argv = (sys.executable, "-m", "tests.faults.killed", str(number), when, str(log), "deploy", "p.json")
        told = {**_outside(), "PYTHONPATH": str(ROOT), "MLPACKER__PATHS__HOME": str(self.here.home), **self.env(env)}
        done = subprocess.run(argv, env=told, cwd=self.here.folder, capture_output=True, text=True, check=False)
        return done.returncode

    # What is there, asked of the machines, not of us

    def processes(self) -> dict[str, list[str]]:
        """By machine: what runs of this pipeline, one line each with its identity (container id and start, or pid)."""
        if not self.machines:
            return {"this machine": self._ours(here, str(self.here.home))}
        return {name: self._ours(lab.machine(name).exec, "/home/vagrant/.mlpacker") for name in self.machines}

    def _ours(self, ask: Ask, home: str) -> list[str]:
        if self.containerized:
            form = "{{.Name}} {{.Id}} {{.State.StartedAt}} {{.RestartCount}}"
            names = ask("docker", "ps", "-a", "--format", "{{.Names}}", "--filter", f"name=^mlpacker.{self.id}[.]")
            return sorted(ask("docker", "inspect", "-f", form, name).strip().lstrip("/") for name in names.split())
        found = ask("sh", "-c", OF_A_BUNDLE, "sh", f"{home}/bundles/", self.id)
        return sorted(found.splitlines())

    def left(self) -> dict[str, list[str]]:
        """By machine: whatever has the pipeline's name there, in our folder and in the engine. For comparisons."""
        if not self.machines:
            return {"this machine": self._named(here, str(self.here.home))}
        return {name: self._named(lab.machine(name).exec, "/home/vagrant/.mlpacker") for name in self.machines}

    def _named(self, ask: Ask, home: str) -> list[str]:
        engine = ENGINE if self.containerized else ""
        found = ask("sh", "-c", f"find {home} -path {home}/envs -prune -o -print; {engine}true").splitlines()
        return sorted(line for line in found if self.id in line)

    def locks(self) -> list[str]:
        return [line for lines in self.left().values() for line in lines if "/locks/" in line]


@contextmanager
def site(folder: Path, name: str, machines: Sequence[str] = (), *, containerized: bool = True) -> Iterator[Site]:
    """A pipeline with a home of its own, which is undeployed in the end."""
    made = Site(name, Here(folder, folder / "home"), tuple(machines), containerized)
    try:
        yield made
    finally:
        made.mlpacker("undeploy", name)


def here(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _outside() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MLPACKER")}
