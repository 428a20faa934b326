"""The exact requirements of a bundle: committed locks merged offline, or resolved by uv when a step brings its own.

A lock is text in pip's format, `name==version [; marker] --hash=…`. It holds for every platform and Python we support,
so the marker stays beside the pin; two locks that pin the same version differ in the marker at most.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from uv import find_uv_bin

from packer_lib.artefacts import store
from packer_lib.artefacts.requirements import Wanted
from packer_lib.errors import BuildFailed

TIMEOUT = 600.0
# wheels only: resolving must not run the build script of a package on the machine that packages
COMPILE: tuple[str, ...] = ("pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes")
COMPILE += ("--only-binary", ":all:", "--no-annotate", "--no-header")
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?: ; (?P<marker>[^\\]+?))?(?P<hashes>( --hash=\S+)*)")
# where units run: the merged locks must be complete for each of these
TARGETS = tuple(
    {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }
    for python in ("3.11", "3.12")
    for machine in ("x86_64", "aarch64")
)


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """One version of one package where `marker` holds ("" is everywhere), with the hashes of its files."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def holds(self, target: dict[str, str]) -> bool:
        return not self.marker or Marker(self.marker).evaluate(target)


def parse(text: str) -> tuple[Pin, ...]:
    """The pins of a lock; `ValueError` for a line that is not one."""
    pins = []
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        found = PIN.fullmatch(line.strip())
        if found:
            hashes = tuple(sorted(found["hashes"].replace("--hash=", "").split()))
            pins.append(Pin(canonicalize_name(found["name"]), found["version"], found["marker"] or "", hashes))
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"not a pin: {line!r}")
    return tuple(pins)


def render(pins: Iterable[Pin]) -> str:
    """The same text for the same pins, in whatever order they come."""
    return "".join(
        f"{pin.name}=={pin.version}{' ; ' if pin.marker else ''}{pin.marker}"
        + "".join(f" \\\n    --hash={digest}" for digest in pin.hashes)
        + "\n"
        for pin in sorted(pins)
    )


def merge(locks: Iterable[str]) -> tuple[Pin, ...]:
    """All pins of `locks`, each once: where two want the same version under different markers, under either of them."""
    markers: dict[tuple[str, str], set[str]] = {}
    hashes: dict[tuple[str, str], set[str]] = {}
    for pin in (pin for lock in locks for pin in parse(lock)):
        markers.setdefault((pin.name, pin.version), set()).add(pin.marker)
        hashes.setdefault((pin.name, pin.version), set()).update(pin.hashes)
    return tuple(Pin(*key, _either(found), tuple(sorted(hashes[key]))) for key, found in sorted(markers.items()))


def _either(markers: set[str]) -> str:
    if "" in markers or len(markers) == 1:
        return "" if "" in markers else next(iter(markers))
    return " or ".join(f"({marker})" for marker in sorted(markers))


def together(direct: Iterable[str], wanted: Iterable[Wanted]) -> list[str]:
    """Our requirements, then those of the code steps; each once, sorted."""
    return [*direct, *sorted({str(wish.requirement) for wish in wanted} - set(direct))]


def resolve(direct: Sequence[str], wanted: Sequence[Wanted], locked: Sequence[Pin], cache: Path) -> str:
    """The lock for our `direct` requirements and what the code steps want; `locked` are the pins of `direct`.

    Offline when `locked` answers every wish already. Otherwise uv resolves both together, keeps every version of
    `locked` that a wish does not rule out, and the answer is kept in `cache`: the same wishes, the same lock.
    """
    if all(_answered(wish.requirement, locked) for wish in wanted):
        return render(locked)
    lines = together(direct, wanted)
    key = hashlib.sha256("\n".join([*COMPILE, *lines, render(locked)]).encode()).hexdigest()
    kept = cache / f"{key}.txt"
    if not kept.exists():
        store.write_text(kept, _compile(lines, wanted, render(locked)))
    return kept.read_text(encoding="utf-8")


def _answered(wish: Requirement, locked: Sequence[Pin]) -> bool:
    """Whether `locked` has a version that satisfies `wish` on every machine where it applies."""
    pins = [pin for pin in locked if pin.name == canonicalize_name(wish.name)]
    fits = all(wish.specifier.contains(pin.version, prereleases=True) for pin in pins)
    applies = [target for target in TARGETS if wish.marker is None or wish.marker.evaluate(target)]
    return fits and not wish.extras and all(any(pin.holds(target) for pin in pins) for target in applies)


def _compile(lines: Sequence[str], wanted: Sequence[Wanted], preferred: str) -> str:
    with tempfile.TemporaryDirectory(prefix="mlpacker-lock-") as folder:
        source, lock = Path(folder, "requirements.in"), Path(folder, "requirements.lock")
        source.write_text("\n".join(lines) + "\n", encoding="utf-8")
        lock.write_text(preferred, encoding="utf-8")  # uv keeps what an existing output file pins where it can
        argv = [find_uv_bin(), *COMPILE, "--output-file", str(lock), str(source)]
        try:
            done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise BuildFailed(f"uv found no lock within {TIMEOUT:.0f} s", "is the package index reachable?") from None
        if done.returncode:
            raise _unresolvable(wanted, done.stderr)
        return render(parse(lock.read_text(encoding="utf-8")))


def _unresolvable(wanted: Sequence[Wanted], complaint: str) -> BuildFailed:
    """Names the lines of requirements.txt that uv's complaint speaks of, all of them when it speaks of none."""
    words = {canonicalize_name(word.strip("._-")) for word in re.findall(r"[A-Za-z0-9._-]+", complaint)}
    named = [wish for wish in wanted if canonicalize_name(wish.requirement.name) in words] or wanted
    places = ", ".join(f"{wish.file}:{wish.line}: {wish.requirement}" for wish in named)
    hint = "loosen or remove the requirement; only wheels are installed, and the versions of the runtime are fixed"
    reason = " ".join(complaint.split())
    return BuildFailed(f"the requirements cannot be resolved together: {places}\n  uv: {reason}", hint)
