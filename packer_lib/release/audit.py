"""What was done on a machine, by whom and when: one JSON line each, in `audit.log` below our home there."""

from __future__ import annotations

import getpass
import json
import socket
import time
from collections.abc import Mapping

from packer_lib import commands
from packer_lib.hosts import Host
from packer_lib.hosts.layout import Layout


def note(host: Host, pipeline: str, what: str, units: Mapping[str, str], run: str = "") -> None:
    """`units` says of each what became of it. A machine that cannot write it does not stop a deployment."""
    line = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "who": f"{getpass.getuser()}@{socket.gethostname()}",
        "pipeline": pipeline,
        "what": what,
        "run": run,
        "units": dict(units),
    }
    host.run(commands.append(Layout(host.home).audit), input=json.dumps(line, ensure_ascii=False) + "\n", timeout=10)
