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
BIG = 200_000_000
ENGINE, HOME = "/srv/engine", "/home/vagrant/.mlpacker"


@contextmanager
def refusing(status: int, delay: float = 0.0) -> Iterator[str]:
    """A registry on this machine that answers everything with `status`; its name."""

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
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "delay"), [(500, 0.0), (401, 0.0), (503, 3.0)], ids=["500", "401", "slow 503"])
def test_the_registry_refuses_a_push(place: Callable[..., Site], status: int, delay: float) -> None:
    site = place("edge_node")
    site.live(2)
    site.write(3, registry=True)
    what = f"the registry answers a push with {status}{' after 3 s' if delay else ''}"
    with refusing(status, delay) as name:
        fails(site, what, "container, edge_node", code=6, says=(name,), MLPACKER__REGISTRY__HOST=name)


def test_a_machine_cannot_reach_the_registry(place: Callable[..., Site]) -> None:
    site = place("edge_node", "cloud_1", "cloud_2")
    site.live(2)
    site.write(3, registry=True)
    what = "machine 2 of 3 cannot pull from the registry"
    fails(site, what, "container, 3 machines", code=7, says=("cloud_1",), during=no_registry(lab.machine("cloud_1")))


@contextmanager
def no_registry(machine: lab.Machine) -> Iterator[None]:
    rule = ("OUTPUT", "-d", "10.213.0.21", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")
    machine.exec("iptables", "-I", *rule)
    try:
        yield
    finally:
        machine.exec("iptables", "-D", *rule)


@contextmanager
def own_disk(machine: lab.Machine, path: str, user: str) -> Iterator[None]:
    """`path` there is an empty disk of its own, of the user's, until the block ends."""
    machine.exec("install", "-d", "-o", user, "-m", "700", path)
    machine.exec("mount", "-t", "tmpfs", "-o", "size=2g,mode=700", "tmpfs", path)
    machine.exec("chown", user, path)
    try:
        yield
    finally:
        machine.exec("umount", "-l", path)


def fill(machine: lab.Machine, path: str) -> None:
    """Room for 60 MB more on the disk at `path`."""
    used = int(machine.exec("df", "--output=used", "-k", path).split()[-1])
    machine.exec("mount", "-o", f"remount,size={used + 60_000}k", path)


@pytest.mark.skipif(not ALL, reason="done by make faults")
def test_the_disk_of_a_machine_is_full(place: Callable[..., Site]) -> None:
    """Its engine has room for one release, and not for another that weighs 200 MB."""
    machine = lab.machine("cloud_2")
    with own_engine(machine):
        _does_not_fit(place("cloud_2", alone=True), machine, ENGINE, "container, cloud_2")


def test_the_home_on_a_machine_is_full(place: Callable[..., Site]) -> None:
    machine = lab.machine("bare")
    with own_disk(machine, HOME, "vagrant"):
        _does_not_fit(place("bare", containerized=False, alone=True), machine, HOME, "process, bare")


def _does_not_fit(site: Site, machine: lab.Machine, disk: str, where: str) -> None:
    site.live(2)
    fill(machine, disk)
    site.write(3, weight=BIG)
    fails(site, f"no room at {disk}", where, code=7, says=("space", machine.hostname))
    site.mlpacker("undeploy", site.id)


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
