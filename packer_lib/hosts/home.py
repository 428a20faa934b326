"""Our home on a machine: its folders and toolbox, and the small things every stage does there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from packer_lib import commands
from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host, Result
from packer_lib.hosts.layout import Layout


def prepare(host: Host, layout: Layout) -> None:
    """Folders and toolbox as this version wants them; may be done again at any time.

    `DeployFailed` when another machine's home is not a folder of ours alone: someone may have been there first.
    """
    must(host, commands.make_folders(layout.home))
    if host.machine is not None:
        _refuse_what_is_not_ours(host, layout.home)
    must(host, commands.make_folders(*layout.folders()))
    host.put(Path(__file__).with_name("toolbox.py"), layout.toolbox, 0o600)


def _refuse_what_is_not_ours(host: Host, home: str) -> None:
    kind, uid, mode = must(host, commands.owner(home)).out.strip().split(":")
    if kind != "directory" or int(uid) != host.uid or int(mode, 8) & 0o022:
        raise DeployFailed(
            f"on {host.name}: {home} is not a folder of ours alone ({kind} of user {uid}, mode {mode})",
            f"look who made it (ls -ld {home}), then move it away",
        )


def put_text(host: Host, text: str, target: str, mode: int = 0o600) -> None:
    """`text` as a file on the machine, complete or absent, readable by its owner only."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", prefix="mlpacker-") as file:
        file.write(text)
        file.flush()
        host.put(Path(file.name), target, mode)


def must(host: Host, argv: commands.Argv, timeout: float = 60.0) -> Result:
    """A small command that has to work; `DeployFailed` with what it said otherwise."""
    result = host.run(argv, timeout=timeout)
    if not result.ok:
        raise DeployFailed(f"on {host.name}: {argv[0]}: {result.tail(3)}", "look at that machine's disk and rights")
    return result


def clean_environment(host: Host) -> dict[str, str]:
    """What every process of ours begins with: enough to run programs, nothing else the deployer happens to have set."""
    return dict(host.environ)
