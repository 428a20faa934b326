"""The watched folder as a versioned DAG bundle: one small DAG file per PADL file.

A version is the state of the whole folder, named by its content and kept as a folder of its own; unchanged files of two
versions are one file on disk. A run is pinned to the version it was started from, so an edit never changes a running
deployment, and clearing an old run deploys the old state again. Workers on other machines need the same
`[dag_processor] dag_bundle_storage_path`, on a shared volume.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow.dag_processing.bundles.base import BaseDagBundle, BundleVersion

from mlpacker_airflow import folder, gone, pools, retire
from mlpacker_airflow.folder import Entry, Found
from mlpacker_airflow.pinned import Pinned, dag_file, pin, write
from mlpacker_airflow.retire import Lost
from packer_lib import settings

# Airflow's DAG processor parses a file again while its date is later than the end of its last parse. A parse of the
# former version may be under way while a file changes, and end after it; so a changed file is dated ahead, and anew
# some seconds later: on a busy machine a parse takes that long. Without this the change could stay unnoticed for
# `min_file_process_interval`.
AHEAD = 2.0
AGAIN = (5.0, 20.0, 60.0)
# How often pools that somebody has deleted are made again: without its pool a task waits for ever.
POOLS_EVERY = 30.0


class PadlDagBundle(BaseDagBundle):
    """`source` is the watched folder."""

    supports_versioning = True

    def __init__(self, *, source: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = Path(source).absolute()
        self._current = self.version
        self._pinned: dict[str, Pinned] = {}
        self._files: dict[str, str] = {}
        self._seen: list[Found] | None = None
        self._entries: dict[Found, Entry] = {}
        self._due: list[tuple[float, str]] = []
        self._disk: tuple[int, int] | None = None
        self._pools_due = 0.0
        self._retire_at = math.inf
        self.clock = time.time

    @property
    def path(self) -> Path:
        return self.versions_dir / (self._current or "none")

    def get_current_version(self) -> BundleVersion | None:
        return BundleVersion(version=self._current) if self._current else None

    def initialize(self) -> None:
        """In a task process `version` is given and nothing is read but that version."""
        if not self.version:
            self.refresh()
        elif not self.path.is_dir():
            raise FileNotFoundError(
                f"the PADL files of this run (version {self.version}) are not in {self.versions_dir}: "
                "cleaned up, or on another machine"
            )
        super().initialize()

    def refresh(self) -> None:
        """Takes the folder as it is now. Costs one `stat` per file while nothing changes."""
        if self.version:
            raise RuntimeError("a bundle of a given version is not refreshed")
        self._date_what_is_due()
        self._keep_pools()
        found = folder.scan(self.source, self.clock(), self._seen or ())
        if found == self._seen and self.path.is_dir() and self.clock() < self._retire_at:
            return
        with self.lock():
            self._entries = {item: self._entries.get(item) or folder.read(self.source, item) for item in found}
            entries = folder.together(list(self._entries.values()))
            self._publish({f"{entry.found.name}.py": entry for entry in entries}, self._lost(found))
        self._seen = found

    def _lost(self, found: list[Found]) -> Lost | None:
        """The pipelines whose file has been gone for the time of grace; None where retiring is switched off, and until
        there was one.

        Not sooner: Airflow may create a run for a version that came after the one it has parsed, and a task that is
        not in it any more, because the file is back, is waited for.
        """
        path, ours = self.base_dir / "pipelines.json", settings.read()
        former = gone.read(path)
        unseen = gone.unseen(self.source, former, found, self._is_trusted(found))
        known = gone.follow(former, list(self._entries.values()), unseen, self.clock())
        kept = {name: item for name, item in known.items() if ours.retire or not item.since}
        gone.write(path, kept)
        gone_at = {name: item.since + ours.retire_after for name, item in kept.items() if item.since}
        self._retire_at = min((moment for moment in gone_at.values() if moment > self.clock()), default=math.inf)
        lost = {name: kept[name] for name, moment in gone_at.items() if moment <= self.clock()}
        known_dag = retire.FILE in self._files
        return Lost(str(self.source), lost, ours.retire_after) if lost or (ours.retire and known_dag) else None

    def _is_trusted(self, found: list[Found]) -> bool:
        """An empty folder means something only when it is the one in which this process saw files before."""
        info = self.source.stat()
        disk = (info.st_dev, info.st_ino)
        trusted = bool(found) or disk == self._disk
        self._disk = disk if found else self._disk
        return trusted

    def _keep_pools(self) -> None:
        if self._pools_due <= self.clock():
            pools.ensure({name for item in self._pinned.values() for name in item.pools})
            self._pools_due = self.clock() + POOLS_EVERY

    def _publish(self, entries: dict[str, Entry], lost: Lost | None) -> None:
        there = pools.ensure({name for entry in entries.values() for name in pools.of(entry.pipeline)})
        pinned = {name: pin(entry, there, self._pinned.get(name)) for name, entry in entries.items()}
        files = {name: self._dag_file(name, item) for name, item in pinned.items()}
        files |= {retire.FILE: retire.dag_file(lost)} if lost else {}
        version = _digest(files)
        target = self.versions_dir / version
        former = self._files if self.path.is_dir() else {}
        changed = {name for name, text in files.items() if former.get(name) != text}
        if not target.is_dir():
            self._write(target, pinned, changed, lost)
        self._current, self._files, self._pinned = version, files, pinned
        now = self.clock()
        self._due += [(now + later, name) for name in changed for later in AGAIN]
        for name in changed:
            self._date(name, now + AHEAD)

    def _dag_file(self, name: str, item: Pinned) -> str:
        return self._files[name] if self._pinned.get(name) == item else dag_file(item)

    def _date_what_is_due(self) -> None:
        now = self.clock()
        for name in {name for when, name in self._due if when <= now}:
            self._date(name, now)
        self._due = [(when, name) for when, name in self._due if when > now]

    def _date(self, name: str, when: float) -> None:
        with suppress(FileNotFoundError):  # removed in the meantime
            os.utime(self.path / name, (when, when))

    def _write(self, target: Path, pinned: dict[str, Pinned], changed: set[str], lost: Lost | None) -> None:
        """The version aside first, then renamed: a version that exists is whole."""
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for name, item in pinned.items():
            if name in changed:
                write(item, aside / name)
            else:
                _link(self.path / name, aside / name)
        if lost:
            retire.write(lost, aside / retire.FILE)
        aside.rename(target)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".py", ".pinned"):
        os.link(source.with_suffix(suffix), target.with_suffix(suffix))


def _digest(files: dict[str, str]) -> str:
    """A name for this state of the folder: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{hashlib.sha256(files[name].encode()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
