"""R23: a registry that does not take or give, and a machine whose disk is full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.faults.extent import ALL
from tests.faults.failing import fails
from tests.faults.site import Site
from tests.lab import lab
from tests.support import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]
BIG = 60_000_000  # bytes; less than what a code step may weigh
ANSWERS = """
folder=$(mktemp -d); mkdir "$folder/v2"
setsid python3 -m http.server --bind 127.0.0.1 --directory "$folder" "$1" >/dev/null 2>&1 </dev/null & echo $!
"""
ENGINE, HOME = "/srv/engine", "/home/vagrant/.mlpacker"


@contextmanager
def refusing(machine: lab.Machine, status: int, delay: float = 0.0) -> Iterator[str]:
    """A registry on this machine that answers everything with `status`; its name. By that name `machine` finds one too,
    or a release would not begin."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            time.sleep(delay)
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="lab"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = answer

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    there = machine.exec("sh", "-c", ANSWERS, "sh", str(port)).strip()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        machine.exec("kill", there)
        server.shutdown()
        server.server_close()


REFUSALS = [(401, 0.0), (500, 0.0), (503, 3.0)]  # of all but the first the docker client needs a minute


@pytest.mark.parametrize(("status", "delay"), REFUSALS if ALL else REFUSALS[:1])
def test_the_registry_refuses_a_push(place: Callable[..., Site], status: int, delay: float) -> None:
    site = place("edge_node")
    site.live(2)
    site.write(3, registry=True)
    what = f"the registry answers a push with {status}{' after 3 s' if delay else ''}"
    with refusing(lab.machine("edge_node"), status, delay) as name:
        fails(site, what, "container, edge_node", code=6, says=(name,), MLPACKER__REGISTRY__HOST=name)


@pytest.mark.parametrize("when", ["from the start", "once it has begun"])
def test_a_machine_cannot_reach_the_registry(place: Callable[..., Site], when: str) -> None:
    site, machine = place("edge_node", "cloud_1", "cloud_2"), lab.machine("cloud_1")
    site.live(2)
    site.write(3, registry=True)
    what = f"machine 2 of 3 cannot reach the registry, {when}"
    rule = ("OUTPUT", "-d", "10.213.0.21", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")
    during = changed(site if when != "from the start" else None, lambda: machine.exec("iptables", "-I", *rule))
    try:
        fails(site, what, "container, 3 machines", code=7, says=("cloud_1", "registry-1"), during=during)
    finally:
        machine.exec("iptables", "-D", *rule)


@contextmanager
def changed(site: Site | None, change: Callable[[], object]) -> Iterator[None]:
    """`change` is made at once, or as soon as a release of the site holds its locks: it has looked at everything."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if site is None or site.locks():
                change()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    if site is None:
        thread.join()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def own_disk(machine: lab.Machine, path: str, user: str) -> Iterator[None]:
    """`path` there is an empty disk of its own, of the user's, until the block ends."""
    machine.exec("install", "-d", "-o", user, "-m", "700", path)
    machine.exec("mount", "-t", "tmpfs", "-o", "size=4g,mode=700", "tmpfs", path)
    machine.exec("chown", user, path)
    try:
        yield
    finally:
        machine.exec("umount", "-l", path)


def fill(machine: lab.Machine, path: str) -> None:
    """Room for 20 MB more on the disk at `path`."""
    used = int(machine.exec("df", "--output=used", "-k", path).split()[-1])
    machine.exec("mount", "-o", f"remount,size={used + 20_000}k", path)


@pytest.mark.skipif(not ALL, reason="done by make faults")
def test_the_disk_of_an_engine_becomes_full(place: Callable[..., Site]) -> None:
    machine = lab.machine("cloud_2")
    with own_engine(machine):
        site = place("cloud_2", alone=True)
        _does_not_fit(site, machine, ENGINE, "container, cloud_2")
        site.mlpacker("undeploy", site.id)


def test_the_disk_of_a_machine_becomes_full_or_is_full(place: Callable[..., Site]) -> None:
    machine = lab.machine("bare")
    with own_disk(machine, HOME, "vagrant"):
        site = place("bare", containerized=False, alone=True)
        _does_not_fit(site, machine, HOME, "process, bare")
        fails(site, "the disk of a home is full from the start", "process, bare", code=7, says=("0.0 GB free", "bare"))
        site.mlpacker("undeploy", site.id)


def _does_not_fit(site: Site, machine: lab.Machine, disk: str, where: str) -> None:
    """There is room for the release that runs, and while the next one comes no more for that."""
    site.live(2)
    site.write(3, weight=BIG)
    during = changed(site, lambda: fill(machine, disk))
    what = f"the disk of {'an engine' if disk == ENGINE else 'a home'} becomes full"
    fails(site, what, where, code=7, says=("space", machine.hostname), during=during)


@contextmanager
def own_engine(machine: lab.Machine) -> Iterator[None]:
    """The machine's engine keeps everything on a disk of its own until the block ends."""
    with own_disk(machine, ENGINE, "root"):
        _engine(machine, ENGINE)
        try:
            yield
        finally:
            _engine(machine, "/var/lib/docker")


def _engine(machine: lab.Machine, root: str) -> None:
    """Its engine starts anew with `root` as its disk."""
    machine.exec("pkill", "-x", "dockerd")
    wait_for(lambda: not machine.exec("pgrep", "-x", "dockerd", check=False), 60, "the engine's end")
    command = f"dockerd --mtu $LAB_MTU --insecure-registry $LAB_SUBNET --data-root {root} >> /var/log/dockerd.log 2>&1"
    machine.exec("sh", "-c", f"setsid {command} </dev/null &")
    wait_for(lambda: machine.exec("docker", "info", "-f", "{{.ID}}", check=False), 60, "the engine")
