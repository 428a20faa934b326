"""`python -m packer_lib.bundle.locks`, behind `make lock`: resolve every need again, under the versions of `uv.lock`.

Needs the package index. Wheels only, for every platform and Python we support, with the hashes of all files; the same
uv.lock and index give the same files.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from uv import find_uv_bin

from packer_lib.bundle.lock import COMPILE
from packer_lib.bundle.locks import FOLDER, needs

PROJECT = FOLDER.parents[2]
EXPORT: tuple[str, ...] = (
    "export",
    "--quiet",
    "--frozen",
    "--no-dev",
    "--all-extras",
    "--no-hashes",
    "--no-emit-project",
)
EXPORT += ("--no-annotate", "--no-header")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        constraints, requirements = Path(folder, "constraints.txt"), Path(folder, "requirements.in")
        exported = subprocess.run([find_uv_bin(), *EXPORT], cwd=PROJECT, check=True, stdout=subprocess.PIPE)
        constraints.write_bytes(exported.stdout)
        for need, direct in needs().items():
            requirements.write_text("\n".join(direct) + "\n", encoding="utf-8")
            target = Path(folder, f"{need}.txt")
            argv = [find_uv_bin(), *COMPILE, "--constraints", str(constraints), "--output-file", str(target)]
            subprocess.run([*argv, str(requirements)], check=True, stdout=subprocess.DEVNULL)
            (FOLDER / target.name).write_bytes(target.read_bytes())
            print(f"{need}: {target.read_text(encoding='utf-8').count('==')} pins")
    return 0


if __name__ == "__main__":
    sys.exit(main())
