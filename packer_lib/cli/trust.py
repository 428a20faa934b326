"""`mlpacker trust`: the one way in which a machine's host key comes to be known, and only by somebody's word."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from packer_lib.errors import PolicyRefused

PORTS = range(1, 65536)


def trust(
    host: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="A machine's host name.", show_default=False)],
    fingerprint: Annotated[
        str, typer.Option("--fingerprint", metavar="SHA256:...", help="Trust it if it shows this one.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; only where nobody can be in between.")] = False,
) -> None:
    """Trust the SSH host key that a machine shows, after you compared its fingerprint."""
    from packer_lib import settings
    from packer_lib.hosts import known
    from packer_lib.hosts.connect import shown_key

    here = settings.read()
    hostname, port = place(host)
    key = shown_key(hostname, port, here)
    shown = known.fingerprint(key)
    print(f"{known.label(hostname, port)} shows {key.get_name()} {shown}", file=sys.stderr)
    if fingerprint and fingerprint.rstrip("=") != shown:
        raise PolicyRefused(f"that is not {fingerprint}", "somebody may be in between: nothing was written")
    if not fingerprint and not yes and not _agreed():
        raise PolicyRefused("nothing was written", f"mlpacker trust {host} --fingerprint {shown}")
    print(f"written to {known.remember(here, hostname, port, key)}", file=sys.stderr)


def place(text: str) -> tuple[str, int]:
    """Host name and port of `m1`, `m1:2222`, `[::1]:2222` or `::1`."""
    name, colon, port = text.rpartition(":")
    if not colon or (":" in name and not name.startswith("[")):
        name, port = text, "22"
    if not port.isdigit() or int(port) not in PORTS or not name.strip("[]"):
        raise typer.BadParameter("expected HOST or HOST:PORT", param_hint="HOST[:PORT]")
    return name.strip("[]"), int(port)


def _agreed() -> bool:
    if not sys.stdin.isatty():
        return False
    print("Is that what the machine itself says? (ssh-keygen -lf /etc/ssh/ssh_host_…_key.pub there)", file=sys.stderr)
    return typer.confirm("Trust it?", err=True)
