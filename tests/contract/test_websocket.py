from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress

import pytest

from packer_lib.runtime.batch import dead_letter
from packer_lib.runtime.connectors.websocket import WebSocket, WebSocketSink
from packer_lib.runtime.contract import ConnectionFailed, DeliveryFailed, Message, Sink, Source, StepFailed
from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import ConnectorSuite, Ends, fresh, take
from tests.support import free_port, wait_for


class TestWebSocketIntoAListener(ConnectorSuite):
    """A client sends, a server receives."""

    connector = WebSocket
    headers_travel = key_travels = comes_again = False
    reaches = ("sink",)
    roles = ("server", "client")
    ack = False

    @pytest.fixture
    def ends(self) -> Ends:
        port, topic = free_port(), fresh()
        source, sink = (
            QueueSpec("q", "websocket", "127.0.0.1", port, topic, {"role": role, "ack": self.ack})
            for role in self.roles
        )
        return source, sink


class TestWebSocketFromAListener(TestWebSocketIntoAListener):
    """A server sends to whoever is connected, a client receives."""

    reaches = ("source",)
    roles = ("client", "server")
    sink_first = True

    def meet(self, source: Source, sink: Sink) -> None:
        assert isinstance(sink, WebSocketSink)
        wait_for(lambda: sink.listeners, 5, "the listener to notice its client")


class Acknowledged:
    ack = True
    flush_waits_for_ack = True

    def test_the_sender_is_told_when_its_messages_were_not_done(self, ends: Ends) -> None:
        assert isinstance(self, ConnectorSuite)
        with self.connected(ends) as (source, sink):
            sink.produce([Message(b"%d" % number) for number in range(20)])
            source.ack(take(source, 20)[:12])
            source.close()
            with pytest.raises(DeliveryFailed, match=r"ended before the messages were confirmed|connection lost"):
                sink.flush(10)

    def test_the_sender_is_told_when_nobody_confirms_in_time(self, ends: Ends) -> None:
        assert isinstance(self, ConnectorSuite)
        with self.connected(ends) as (source, sink):
            sink.produce([Message(b"1")])
            take(source, 1)
            with pytest.raises(DeliveryFailed, match=r"not confirmed within 0\.2 s"):
                sink.flush(0.2)


class TestAcknowledgedWebSocketIntoAListener(Acknowledged, TestWebSocketIntoAListener):
    pass


class TestAcknowledgedWebSocketFromAListener(Acknowledged, TestWebSocketFromAListener):
    pass


def test_a_peer_that_hangs_up_before_any_word_is_one_that_cannot_be_reached() -> None:
    """A proxy, say, whose server is down. When exactly it hangs up is by chance: 40 times."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        queue = QueueSpec("q", "websocket", "127.0.0.1", server.getsockname()[1], "t", {"role": "client"})
        threading.Thread(target=_hang_up, args=(server,), daemon=True).start()
        for _ in range(40):
            with pytest.raises(ConnectionFailed, match=r"cannot reach websocket 127\.0\.0\.1|refuses us"):
                WebSocket.source(queue, "mlpacker.test").connect()


def _hang_up(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            server.accept()[0].close()


@pytest.mark.parametrize(
    ("value", "key", "parts"),
    [
        (b'{"n": 1}', b"k", {"key": "k", "value": '{"n": 1}'}),
        (b"\xff\x00", None, {"key": None, "value": "/wA=", "encoding": "base64"}),
    ],
)
def test_a_dead_letter_says_in_its_frame_why_it_is_one(value: bytes, key: bytes | None, parts: dict[str, str]) -> None:
    source, sink = (
        QueueSpec("q", "websocket", "127.0.0.1", port, "dead", {"role": role})
        for port in (free_port(),)
        for role in ("server", "client")
    )
    receiver, sender = WebSocket.source(source, "mlpacker.test"), WebSocket.sink(sink, "mlpacker.test")
    receiver.connect()
    sender.connect()
    failed = StepFailed("clean", "handle", "ValueError: größer")
    sender.produce([dead_letter(Message(value, key, {"traceparent": b"00-1"}), failed, "in t[0]@7")])
    (letter,) = take(receiver, 1)
    assert json.loads(letter.value) == {
        "headers": {
            "traceparent": "00-1",
            "mlpacker-error-stage": "handle",
            "mlpacker-error-step": "clean",
            "mlpacker-error-reason": "ValueError: größer",
            "mlpacker-error-source": "in t[0]@7",
            "mlpacker-error-attempt": "1",
        },
        **parts,
    }
    sender.close()
    receiver.close()
