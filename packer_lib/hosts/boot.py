"""Native units come back when their machine starts: supervisor is started by systemd for this user, or else by cron.

Nothing of it needs root: a systemd user unit with lingering where systemd runs, an `@reboot` line in the user's crontab
where only cron does. A machine with neither is told so. Containers have restart policies and need nothing of this.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from packer_lib import commands
from packer_lib.hosts import Host
from packer_lib.hosts.home import clean_environment, put_text
from packer_lib.hosts.layout import LONGEST_SOCKET, Layout, short_folder

ASK_WITHIN = 30.0
NOT_FOUND = 127
PLAIN = re.compile(r"[\w./+@-]+")  # a path that neither systemd nor cron reads anything into
UNIT = """[Unit]
Description=What MLPacker deployed for this user

[Service]
Type=forking
PIDFile={home}/supervisord.pid
ExecStart={start}
KillMode=mixed
TimeoutStopSec=60

[Install]
WantedBy=default.target
"""

Progress = Callable[[str], None]


def enable(host: Host, progress: Progress = print) -> str:
    """Supervisor starts with the machine: `systemd` or `cron`, empty when it cannot (said to `progress`) or `host` is
    this machine, whose user starts what he wants. May be done again at any time."""
    if host.machine is None:
        return ""
    start = _script(host)
    if not PLAIN.fullmatch(start):
        progress(f"{host.name}: units will not start with the machine: neither systemd nor cron can read {start!r}")
        return ""
    put_text(host, _start(host), start, 0o700)
    if _by_systemd(host, start):
        return "systemd"
    if _by_cron(host, [_line(start)]):
        return "cron"
    progress(f"{host.name}: units will not start with the machine: it has neither systemd for users nor cron")
    return ""


def disable(host: Host) -> None:
    """Nothing of `enable` is left."""
    if host.machine is None or not host.run(commands.exists(_script(host))).ok:
        return
    if host.run(commands.exists(_unit(host))).ok:
        _systemctl(host, "disable")
        host.run(commands.remove(_unit(host)))
    _by_cron(host, [])
    host.run(commands.remove(_script(host)))


def _script(host: Host) -> str:
    return f"{host.home}/at-boot"


def _unit(host: Host) -> str:
    return f"{host.environ['HOME']}/.config/systemd/user/mlpacker.service"


def _start(host: Host) -> str:
    """As `release.supervisor` starts it: a clean environment, and the folder for sockets, which a restart empties."""
    layout = Layout(host.home)
    clean = ["env", "-i", *(f"{name}={value}" for name, value in sorted(clean_environment(host).items()))]
    lines = ["#!/bin/sh", "# Written by MLPacker: starts what it deployed when this machine starts."]
    if len(f"{host.home}/supervisor.sock.".encode()) + len("4194304") > LONGEST_SOCKET:
        folder = short_folder(host.home, host.uid)
        lines.append(f"{shlex.join(commands.toolbox(host.python, layout.toolbox, 'private', folder))} || exit 1")
    lines.append(f"exec {shlex.join([*clean, *commands.supervisord(host.python, layout.supervisord)])}")
    return "\n".join([*lines, ""])


def _by_systemd(host: Host, start: str) -> bool:
    if not host.run(commands.exists("/run/systemd/system")).ok:
        return False
    put_text(host, UNIT.format(home=host.home, start=start), _unit(host), 0o644)
    wrong = host.run(("systemd-analyze", "verify", "--user", _unit(host)), timeout=ASK_WITHIN)
    verified = wrong.ok or wrong.code == NOT_FOUND
    if verified and _systemctl(host, "enable") and _lingers(host):
        return True
    host.run(commands.remove(_unit(host)))
    return False


def _systemctl(host: Host, word: str) -> bool:
    """Only the links are made or removed: what runs now is not systemd's to end."""
    env = {**clean_environment(host), "XDG_RUNTIME_DIR": f"/run/user/{host.uid}"}
    return host.run(("systemctl", "--user", word, "mlpacker.service"), env=env, timeout=ASK_WITHIN).ok


def _lingers(host: Host) -> bool:
    """Whether this user's units start without a login of his."""
    ask = ("loginctl", "enable-linger")
    if not host.run(ask, timeout=ASK_WITHIN).ok:
        host.run(("sudo", "-n", "--", *ask, host.environ["USER"]), timeout=ASK_WITHIN)
    return host.run(commands.exists(f"/var/lib/systemd/linger/{host.environ['USER']}")).ok


def _line(start: str) -> str:
    return f"@reboot {start}"


def _by_cron(host: Host, lines: list[str]) -> bool:
    """Our lines of the crontab are these, and everybody else's as they were."""
    read = host.run(("crontab", "-l"), timeout=ASK_WITHIN)
    if read.code == NOT_FOUND:
        return False
    there = read.out.splitlines() if read.ok else []
    wanted = [*(line for line in there if line != _line(_script(host))), *lines]
    if wanted == there:
        return True
    if not wanted:
        return host.run(("crontab", "-r"), timeout=ASK_WITHIN).ok
    return host.run(("crontab", "-"), input="\n".join([*wanted, ""]), timeout=ASK_WITHIN).ok
