"""The keys by which we know machines: pinned in the PADL file, or in a `known_hosts` file; never taken on trust."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from packer_lib.errors import PolicyRefused
from packer_lib.settings import Settings

if TYPE_CHECKING:
    import paramiko


def files(settings: Settings) -> tuple[Path, Path]:
    """Where keys are looked for, ours first; `mlpacker trust` writes to ours only."""
    return (settings.home / "known_hosts", Path("~/.ssh/known_hosts").expanduser())


def label(hostname: str, port: int) -> str:
    """How known_hosts files name a machine, see sshd(8)."""
    return hostname if port == 22 else f"[{hostname}]:{port}"


def fingerprint(key: paramiko.PKey) -> str:
    """As `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


def load(settings: Settings) -> paramiko.HostKeys:
    """Every key of both files."""
    import paramiko

    keys = paramiko.HostKeys()
    for file in files(settings):
        with contextlib.suppress(OSError):
            keys.load(str(file))
    return keys


def require(
    pinned: str, known: Sequence[paramiko.PKey], shown: paramiko.PKey, hostname: str, port: int, machine: str = ""
) -> None:
    """`PolicyRefused` unless `shown` is the key that we know the machine by; nothing was sent to it yet."""
    what = f"{shown.get_name()} {fingerprint(shown)}"
    place = hostname if port == 22 else f"{hostname}:{port}"
    where = f"{machine} ({place})" if machine not in ("", hostname) else place
    if pinned:
        if not _is(shown, pinned):
            raise PolicyRefused(
                f"{where} shows another host key than the PADL file pins: {what}, not {pinned}",
                "somebody may be in between; when the machine was set up anew, put its new key into `host_key`",
            )
    elif not known:
        raise PolicyRefused(f"{where} is not known yet; it shows the host key {what}", _remedy(hostname, port, shown))
    elif shown not in known:
        old = ", ".join(fingerprint(key) for key in known)
        raise PolicyRefused(
            f"{where} shows another host key than before: {what}, not {old}",
            f"somebody may be in between; when the machine was set up anew: {_remedy(hostname, port, shown)}",
        )


def _remedy(hostname: str, port: int, key: paramiko.PKey) -> str:
    place = hostname if port == 22 else f"{hostname}:{port}"
    return (
        "compare it with what the machine itself says (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then run: "
        f"mlpacker trust {place} --fingerprint {fingerprint(key)}"
    )


def _is(key: paramiko.PKey, pinned: str) -> bool:
    if pinned.startswith("SHA256:"):
        return fingerprint(key) == pinned.rstrip("=")
    return [key.get_name(), key.get_base64()] == pinned.split()[:2]


def remember(settings: Settings, hostname: str, port: int, key: paramiko.PKey) -> Path:
    """Writes the key to our file, in place of every key that the machine had there; the file."""
    import paramiko

    file = files(settings)[0]
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = label(hostname, port)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    kept = [line for line in lines if not _names(line, name)]
    entry = paramiko.hostkeys.HostKeyEntry([name], key).to_line()
    aside = file.with_name(f".known_hosts.{os.getpid()}")
    aside.write_text("\n".join([*kept, entry or ""]).rstrip("\n") + "\n", encoding="utf-8")
    aside.chmod(0o600)
    return aside.replace(file)


def _names(line: str, name: str) -> bool:
    return name in line.split(" ", 1)[0].split(",")
