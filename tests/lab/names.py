"""The lab's names in /etc/hosts of this box: one marked block, written when it differs, taken out by `down`."""

from __future__ import annotations

import os
from pathlib import Path

from tests.lab.keys import hosts_lines
from tests.lab.place import LabError, say

HOSTS = Path("/etc/hosts")
BEGIN, END = "# mlpacker-lab", "# end of mlpacker-lab"


def up() -> None:
    block = "\n".join((BEGIN, *hosts_lines(on_box=True), END)) + "\n"
    text = HOSTS.read_text()
    if block in text:
        return
    rest = without(text)
    if not os.access(HOSTS, os.W_OK):
        raise LabError(f"add these lines to /etc/hosts (as root), then again:\n\n{block}")
    say("adding the lab's names to /etc/hosts")
    HOSTS.write_text(rest + ("" if rest.endswith("\n") or not rest else "\n") + block)


def down() -> None:
    text = HOSTS.read_text()
    if BEGIN not in text:
        return
    if os.access(HOSTS, os.W_OK):
        HOSTS.write_text(without(text))
    else:
        say(f"the lines from '{BEGIN}' to '{END}' in /etc/hosts are yours to remove (needs root)")


def without(text: str) -> str:
    """`text` without our block."""
    before, begin, after = text.partition(BEGIN + "\n")
    return before + after.partition(END + "\n")[2] if begin else text
