"""`python -m packer_lib.bundle.locks`, behind `make lock`: resolve every need again, under the versions of `uv.lock`.

Needs the package index. The versions and the hashes are those of uv.lock (its wheels: every platform, the Pythons we
support), so the same uv.lock gives the same files.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from dataclasses import replace
from pathlib import Path

from uv import find_uv_bin

from packer_lib.bundle.lock import COMPILE, parse, render
from packer_lib.bundle.locks import FOLDER, needs

PROJECT = FOLDER.parents[2]
EXPORT: tuple[str, ...] = ("export", "--quiet", "--frozen", "--no-dev", "--all-extras", "--no-hashes")
EXPORT += ("--no-emit-project", "--no-annotate", "--no-header")


def main() -> int:
    wheels = _wheels()
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_bytes(_uv(*EXPORT))
        for need, direct in needs().items():
            requirements = Path(folder, f"{need}.in")
            requirements.write_text("\n".join(direct) + "\n", encoding="utf-8")
            found = _uv(*COMPILE, "--constraints", str(constraints), str(requirements)).decode()
            pins = [replace(pin, hashes=wheels[pin.name, pin.version]) for pin in parse(found)]
            (FOLDER / f"{need}.txt").write_text(render(pins), encoding="utf-8")
            print(f"{need}: {len(pins)} pins")
    return 0


def _wheels() -> dict[tuple[str, str], tuple[str, ...]]:
    """The hashes of the wheels of every package and version in uv.lock."""
    packages = tomllib.loads((PROJECT / "uv.lock").read_text(encoding="utf-8"))["package"]
    return {
        (package["name"], package.get("version", "")): tuple(
            sorted(wheel["hash"] for wheel in package.get("wheels", ()))
        )
        for package in packages
    }


def _uv(*argv: str) -> bytes:
    return subprocess.run([find_uv_bin(), *argv], cwd=PROJECT, check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    sys.exit(main())
