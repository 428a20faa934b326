"""`examine` in a process of its own, bounded in time and memory: a file that hangs or fills it costs only that."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

from .examine import Report, examine

SECONDS = 120
MEMORY = 1 << 30
ROOT, PACKAGE = Path(__file__).parents[__name__.count(".")], __name__


def look(path: Path, serializer: str, seconds: float = SECONDS) -> Report:
    """As `examine`; a file that cannot be looked at within the bounds is refused."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from {PACKAGE} import main; main()"
    argv = [sys.executable, "-I", "-S", "-B", "-c", code, str(path), serializer]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
        refused, unknown = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return Report(f"cannot be looked through within {seconds:.0f} s")
    except ValueError:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        return Report(f"cannot be looked through: {last or f'the process ended with {done.returncode}'}")
    return Report(str(refused), tuple(map(str, unknown)))


def main() -> None:
    """In the process of its own: prints what `examine` says of the file that the arguments name."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it writes nothing
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        report = examine(Path(sys.argv[1]), sys.argv[2])
    except MemoryError:
        report = Report(f"needs more than {MEMORY >> 20} MiB to be looked through")
    print(json.dumps([report.refused, report.unknown]))
