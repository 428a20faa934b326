"""What native units need on another machine: our uv, the CA bundle, and an environment with supervisor.

A bare Debian has `python3` and nothing else; nothing is installed there by root. All of it is below `home/tools`, each
thing once and named by its content, and `tools/uv` and `tools/env` lead to what is used now.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path

from packer_lib import commands
from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host, environments
from packer_lib.hosts.home import clean_environment, must, prepare
from packer_lib.hosts.layout import Layout
from packer_lib.hosts.lock import hold
from packer_lib.settings import Settings

LOCK = Path(__file__).with_name("tools.lock")
WAIT_FOR_OTHER = 900.0

Progress = Callable[[str], None]


def equip(host: Host, settings: Settings, progress: Progress = print) -> None:
    """uv and supervisor on `host`, as this version wants them; this machine has its own. May be done again at any time.

    `DeployFailed` with uv's last lines when they cannot be installed there.
    """
    if host.machine is None:
        return
    prepare(host, Layout(host.home))
    must(host, commands.make_folders(_tools(host)))
    _send_certificates(host, settings)
    _send_uv(host, progress)
    _make_environment(host, settings, progress)


def uv_environment(host: Host, settings: Settings) -> dict[str, str]:
    """The whole environment in which uv runs on `host`: it trusts the CA bundle and asks the index of the settings.

    On another machine uv keeps its cache below our home there, and never fetches a Python of its own.
    """
    base = dict(os.environ) if host.machine is None else clean_environment(host)
    if host.machine is not None:
        base |= {"UV_CACHE_DIR": f"{_tools(host)}/cache", "UV_PYTHON_DOWNLOADS": "never"}
    if settings.ca_bundle is not None:
        here = str(settings.ca_bundle)
        base["SSL_CERT_FILE"] = here if host.machine is None else _certificates(host, settings.ca_bundle)
    if settings.index_url:
        base["UV_DEFAULT_INDEX"] = settings.index_url
    return base


def fits(arch: str, libc: str) -> bool:
    """Whether our own uv runs on such a machine."""
    return arch == platform.machine() and libc.startswith("glibc")


def _tools(host: Host) -> str:
    return f"{host.home}/tools"


@cache
def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def _certificates(host: Host, bundle: Path) -> str:
    return f"{_tools(host)}/ca-{hashlib.sha256(bundle.read_bytes()).hexdigest()[:16]}.pem"


def _send_certificates(host: Host, settings: Settings) -> None:
    if settings.ca_bundle is None:
        return
    target = _certificates(host, settings.ca_bundle)
    if not host.run(commands.exists(target)).ok:
        host.put(settings.ca_bundle, target, 0o644)


def _send_uv(host: Host, progress: Progress) -> None:
    """Our own program where it runs, else the machine's."""
    from uv import find_uv_bin

    ours = Path(find_uv_bin()).resolve()
    target = f"{_tools(host)}/uv-{_digest(ours)}"
    if host.run(commands.leads_to(host.uv)).out.strip() == target:
        return
    if not host.run(commands.runnable(target)).ok:
        progress(f"sending uv to {host.name}")
        host.put(ours, target, 0o755)
    if not host.run((target, "--version"), timeout=60).ok:
        host.run(commands.remove(target))
        target = _found(host)
    _point(host, host.uv, target)


def _found(host: Host) -> str:
    places = (f"{host.environ['HOME']}/.local/bin/uv", "/usr/local/bin/uv", "/usr/bin/uv")
    for place in places:
        if host.run((place, "--version"), timeout=60).ok:
            return place
    raise DeployFailed(f"our uv does not run on {host.name}, and it has none", f"install uv there: {places[0]}")


def _point(host: Host, link: str, target: str) -> None:
    """`link` leads to `target`, from one moment to the next."""
    aside = f"{link}.new"
    must(host, commands.link(target, aside))
    must(host, commands.rename(aside, link))


def _make_environment(host: Host, settings: Settings, progress: Progress) -> None:
    place, link = f"{_tools(host)}/env-{_digest(LOCK)}", f"{_tools(host)}/env"
    layout = Layout(host.home)
    if _is_there(host, place, link):
        return
    with hold(host, layout, "TOOLS", "installing supervisor", wait=WAIT_FOR_OTHER, progress=progress):
        if not host.run((f"{place}/bin/python", "-c", "import supervisor")).ok:
            progress(f"installing supervisor on {host.name}")
            _install(host, place, settings)
        _point(host, link, place)


def _is_there(host: Host, place: str, link: str) -> bool:
    leads = host.run(commands.leads_to(link)).out.strip() == place
    return leads and host.run((f"{place}/bin/python", "-c", "import supervisor")).ok


def _install(host: Host, place: str, settings: Settings) -> None:
    lock = f"{place}.lock"
    host.put(LOCK, lock, 0o600)
    failed, result = environments.make(host, place, "python3", lock, uv_environment(host, settings))
    if failed:
        raise DeployFailed(
            f"supervisor on {host.name}: {failed}: {result.tail(6)}",
            "can it reach the package index? MLPACKER__BUILD__INDEX_URL and __CA_BUNDLE are honoured there",
        )
