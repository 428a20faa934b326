"""`mlpacker secure`: the literal passwords of a PADL file become Airflow connections."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def secure(file: Annotated[Path, typer.Argument(help="A PADL file, .json or .yaml.", show_default=False)]) -> None:
    """Move the literal passwords of a PADL file into Airflow connections, and rewrite the file."""
    from packer_lib import padl, settings
    from packer_lib.padl.secure import secured

    pipeline = padl.read(file)
    text, moved = secured(file.read_text(encoding="utf-8"), str(file))
    if not moved:
        print(f"{file}: there is no password in it", file=sys.stderr)
        return
    place = settings.read().home / "connections" / f"{pipeline.id}.json"
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(place, json.dumps({one.conn_id: one.connection for one in moved}, indent=1) + "\n", 0o600)
    _write(file, text, file.stat().st_mode & 0o777)
    for one in moved:
        print(f"{file}: the password of {one.machine} is the connection {one.conn_id} now", file=sys.stderr)
    print("once, then remove the file; and change the passwords, which were readable:", file=sys.stderr)
    print(f"  airflow connections import {place}", file=sys.stderr)


def _write(place: Path, text: str, mode: int) -> None:
    """The whole text or the former one, never readable by more than `mode` says."""
    beside = place.with_name(f".{place.name}.new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as new:
        new.write(text)
    beside.chmod(mode)
    beside.replace(place)
