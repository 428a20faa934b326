"""The content-addressed store: `<home>/store/<sha256>` is one model file, or one folder of a model or of code.

What is in it is never changed; every put is a copy beside it and one rename, so that a reader sees all or nothing, and
two processes that put the same content at once both win.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from packer_lib.artefacts.files import Limits, Readable, file_digest, read_tree, tree_digest

SWEPT_AFTER = 86_400.0


@contextmanager
def scratch(store: Path) -> Iterator[Path]:
    """An empty folder on the store's file system, gone afterwards; what a killed process left is swept after a day."""
    store.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in store.glob(".new-*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > SWEPT_AFTER:
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=store))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_file(store: Path, stream: Readable, limit: int) -> Path:
    """The place of what `stream` holds; its name is the sha256."""
    with scratch(store) as folder:
        copy = folder / "file"
        digest, _ = file_digest(stream, copy, limit)
        copy.chmod(0o444)
        return _settle(copy, store / digest)


def put_tree(store: Path, folder: Path, limits: Limits) -> Path:
    """The place of a copy of `folder`; its name is the tree digest."""
    with scratch(store) as new:
        copy = new / "tree"
        copy.mkdir(mode=0o755)
        files = read_tree(folder, limits, copy)
        for file in files:
            (copy / file.path).chmod(0o555 if file.executable else 0o444)
        return _settle(copy, store / tree_digest(files))


def write_text(path: Path, text: str) -> None:
    """`path` with `text`, all or nothing."""
    with scratch(path.parent) as folder:
        new = folder / "text"
        new.write_text(text, encoding="utf-8")
        new.replace(path)


def _settle(new: Path, target: Path) -> Path:
    """`target`, made from `new` unless it is there already."""
    if target.exists():
        return target
    try:
        new.rename(target)
    except OSError:  # somebody else's folder of the same digest came first
        if not target.exists():
            raise
    return target
