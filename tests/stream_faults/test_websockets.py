"""WebSocket peers that close, vanish, or take nothing, with acknowledgements at both ends (R10)."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import fresh
from tests.runtime.workers import Worker, running
from tests.stream_faults.extent import full
from tests.stream_faults.flow import Flow, pause, unit
from tests.stream_faults.ledger import Ledger
from tests.stream_faults.outside import Text, plain, traffic
from tests.stream_faults.proxy import Proxy, proxied
from tests.stream_faults.sockets import Receiver, Sender
from tests.support import wait_for

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

CLOSES = full(50, 8)
RATE = 300
QUICK = {"ping_interval": 1, "ping_timeout": 1, "close_timeout": 1}
AWAY = full(20.0, 2.0)  # seconds


class Site:
    """A unit between a sender and a receiver, both behind proxies."""

    def __init__(self, flow: Flow, sender: Sender, receiver: Receiver, proxies: dict[str, Proxy]) -> None:
        self.flow, self.peers, self.proxies = flow, {"source": sender, "sink": receiver}, proxies

    @property
    def worker(self) -> Worker:
        return self.flow.worker


@contextmanager
def site(folder: Path, text: Text = plain) -> Iterator[Site]:
    ledger = Ledger()
    sender, receiver = Sender(ledger, text), Receiver(ledger.deliver)
    with proxied(sender.port) as near, proxied(receiver.port) as far:
        source, sink = (
            QueueSpec(name, "websocket", "127.0.0.1", proxy.port, fresh(), {"ack": True, "config": QUICK})
            for name, proxy in (("in", near), ("out", far))
        )
        with running(unit(folder, source, sink)) as worker:
            worker.wait_ready()
            flow = Flow("websocket → websocket", ledger, sender, worker)
            yield Site(flow, sender, receiver, {"source": near, "sink": far})
    sender.down()
    receiver.down()


def test_peers_that_close_again_and_again_cost_no_message(tmp_path: Path) -> None:
    dice = random.Random(50)
    with site(tmp_path) as here:
        with traffic(here.flow.feed, RATE):
            for turn in range(CLOSES):
                close = partial(here.peers[dice.choice(("source", "sink"))].drop, orderly=turn % 2 == 0)
                wait_for(close, 30, "a connection to close")
                pause(0.1, 1.0, dice)
        here.flow.conclude(f"a peer closes its connection {CLOSES} times", "connected again after 0.5 s")


@pytest.mark.parametrize("side", ["source", "sink"])
def test_a_peer_that_vanishes_without_a_word_is_given_up_and_found_again(side: str, tmp_path: Path) -> None:
    with site(tmp_path) as here:
        with traffic(here.flow.feed, RATE):
            wait_for(lambda: here.flow.ledger.came > 100)
            peer = here.peers[side]
            before, started = peer.connections, time.monotonic()
            assert here.proxies[side].swallow()
            wait_for(lambda: peer.connections > before, 60, f"it connects again: {here.worker.log[-2000:]}")
            noticed = time.monotonic() - started
        here.flow.conclude(f"the {side}'s connection is half-open", f"connected again after {noticed:.1f} s")


def test_a_sink_that_takes_nothing_is_given_up_without_holding_up_a_stop(tmp_path: Path) -> None:
    """More than the buffers of both kernels hold is under way when it stops to read."""
    padding = b'{"pad": "%s", ' % (b"x" * 600_000)
    with site(tmp_path, lambda _number, value: padding + value[1:]) as here:
        here.flow.send(10)
        wait_for(lambda: here.flow.ledger.came == 10)
        here.proxies["sink"].stall()
        here.flow.send(80)
        wait_for(lambda: here.worker.ask("/readyz")[0] == 503, 60, f"it is noticed: {here.worker.log[-2000:]}")
        here.proxies["sink"].resume()
        here.worker.wait_ready()
        here.flow.conclude("the sink takes nothing any more", "given up, then sent again")
        here.proxies["sink"].stall()
        here.flow.send(80)
        time.sleep(1)
        started = time.monotonic()
        assert here.worker.signal(signal.SIGTERM) == 0
        assert time.monotonic() - started < 30


def test_a_peer_that_is_away_is_waited_for_at_rest(tmp_path: Path) -> None:
    with site(tmp_path) as here:
        with traffic(here.flow.feed, RATE):
            for side in ("source", "sink"):
                here.peers[side].down()
                wait_for(lambda: here.worker.ask("/readyz")[0] == 503, 30)
                before, started = _cpu(here.worker), time.monotonic()
                time.sleep(AWAY)
                share = (_cpu(here.worker) - before) / (time.monotonic() - started)
                here.peers[side].up()
                here.worker.wait_ready()
                print(f"{side} away: {share:.1%} of a processor")
                assert share < 0.05
        here.flow.conclude(f"source, then sink away for {AWAY:g} s", "waits at less than 5 % of a processor")


def _cpu(worker: Worker) -> float:
    """Seconds of a processor that it has had."""
    assert worker.process is not None
    fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
