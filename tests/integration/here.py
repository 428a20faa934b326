"""A folder with PADL files, a home, and what can be seen of them from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen


@dataclass(frozen=True)
class Here:
    """A folder with PADL files and what they name, and a home; `mlpacker` runs there as a person would run it."""

    folder: Path
    home: Path

    def start(self, *words: str | Path, **env: str) -> subprocess.Popen[str]:
        program = Path(sys.executable).with_name("mlpacker")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLPACKER")}
        return subprocess.Popen(
            (program, *words),
            env={**inherited, "MLPACKER__PATHS__HOME": str(self.home), **env},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def mlpacker(self, *words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, **env)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def write(self, name: str, content: str | bytes) -> str:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    def state(self) -> dict[str, object]:
        """All that belongs to a pipeline; environments, the store and supervisor's own log are shared and stay."""
        kinds = ("bundles", "conf.d", "releases", "state", "locks", "logs")
        files = [path for kind in kinds for path in (self.home / kind).rglob("*") if "supervisord" not in path.name]
        return {
            "files": sorted(str(path.relative_to(self.home)) for path in files if "/" not in path.suffix),
            "unfinished": [path.name for path in [*self.home.glob(".*"), *self.home.glob("envs/*.*")]],
            "processes": processes(self.home),
        }


def processes(home: Path) -> dict[int, str]:
    """Processes that have something below `home` in their command line."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_text(errors="replace").split("\0")
        except OSError:
            continue  # it has just ended
        if any(str(home) in word for word in words):
            found[int(file.parent.name)] = " ".join(words)
    return found


def ask(endpoint: str, *values: Any) -> tuple[int, Any]:
    """Status and body of a prediction."""
    body = json.dumps({"data": values}).encode()
    try:
        with urlopen(Request(f"{endpoint}/predict", body, {"Content-Type": "application/json"}), timeout=30) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)
