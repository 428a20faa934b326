"""WebSocket, in and out, as the one who connects or the one who listens; the websockets library's threads.

Best effort: a frame is a payload (text where it is UTF-8), and what is under way when a connection breaks is lost. Keys
and headers do not travel, except why a message failed: a dead letter is a text frame `{"headers": {…}, "key": …,
"value": …}`, with `"encoding": "base64"` where key or value are not UTF-8. Who listens and sends, sends to everybody
who is connected, and to nobody when nobody is.

With `ack: true` at both ends at-least-once: the receiver says, in a text frame, how many frames of this connection are
done (`{"ack": 42}`: the first 42), and a sender's `flush` waits for it; a sender without a listener waits for one.

Options of a queue: `role` (client, server), `ack`, `tls` (client: wss), `username` and `pass_env` (basic
authentication, given or asked for), and under `config`: `ping_interval`, `ping_timeout`, `open_timeout`,
`close_timeout` (seconds), `max_size` (bytes of a frame), `max_queue` (frames taken in and not consumed), `compression`
("deflate"). Browsers are refused: any page could connect to a machine of its visitor's network.
"""

from __future__ import annotations

import base64
import json
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from websockets.exceptions import ConnectionClosed

from ..contract import ALONE, ERROR, ConnectionFailed, DeliveryFailed, Message, Replica, Sink, Source
from ..manifest import QueueSpec
from .websocket_link import Link, Peer

log = logging.getLogger("mlpacker.websocket")

LISTENER_SECONDS = 10.0


class WebSocket:
    """A connection has no name."""

    @staticmethod
    def source(queue: QueueSpec, name: str, replica: Replica = ALONE) -> Source:  # noqa: ARG004
        return WebSocketSource(queue)

    @staticmethod
    def sink(queue: QueueSpec, name: str, replica: Replica = ALONE) -> Sink:  # noqa: ARG004
        return WebSocketSink(queue)


@dataclass(frozen=True, slots=True)
class _Frame:
    payload: bytes
    peer: Peer
    number: int  # counts from 1 on its connection


class WebSocketSource(Source):
    """Takes frames from the one it is connected to, or from everybody who connects to it."""

    def __init__(self, queue: QueueSpec) -> None:
        self._acks: bool = queue.options.get("ack", False)
        self._link = Link(queue, self._read)
        self._inbox: deque[_Frame] = deque()

    def connect(self) -> None:
        self._inbox.clear()
        self._link.open()

    def _read(self, peer: Peer) -> None:
        """Until the connection ends, in a thread of its own; waits while nobody consumes, so that the sender does."""
        link, inbox = self._link, self._inbox
        number = 0
        while True:
            payload = peer.connection.recv(decode=False)
            number += 1
            with link.changed:
                link.changed.wait_for(lambda: len(inbox) < link.options["max_queue"] or not link.is_open)
                inbox.append(_Frame(payload, peer, number))
                link.changed.notify_all()

    def consume(self, max_items: int, timeout: float) -> list[Message]:
        link, inbox = self._link, self._inbox
        with link.changed:
            link.changed.wait_for(lambda: inbox or link.trouble, timeout)
            if link.trouble and (self._acks or not inbox):  # what cannot be acknowledged is sent again
                raise ConnectionFailed(link.trouble)
            found = [inbox.popleft() for _ in range(min(max_items, len(inbox)))]
            link.changed.notify_all()
        return [
            Message(frame.payload, None, {}, f"{frame.peer.address} #{frame.number}", (frame.peer, frame.number))
            for frame in found
        ]

    def ack(self, messages: Sequence[Message]) -> None:
        if not self._acks:
            return
        done: dict[Peer, int] = dict(message.token for message in messages)
        for peer, number in done.items():
            try:
                peer.connection.send(json.dumps({"ack": number}))
            except ConnectionClosed:
                log.info("%s left before it was told that its messages are done; it will send them again", peer.address)

    def lag(self) -> int:
        """Frames that were taken in; what the sender holds back is known to the sender alone."""
        return len(self._inbox)

    def close(self) -> None:
        self._link.close()


class WebSocketSink(Sink):
    """Sends to the one it is connected to, or to everybody who is connected to it."""

    def __init__(self, queue: QueueSpec) -> None:
        self._acks: bool = queue.options.get("ack", False)
        self._link = Link(queue, self._read)
        self._waiting: set[Peer] = set()
        self._heard = True

    @property
    def listeners(self) -> int:
        """How many are connected now."""
        return len(self._link.peers())

    def connect(self) -> None:
        self._waiting = set()
        self._link.open()

    def _read(self, peer: Peer) -> None:
        """Hears acknowledgements, or ignores whatever is said."""
        while True:
            text = peer.connection.recv(decode=False)
            if not self._acks:
                continue
            with self._link.changed:
                peer.acked = _acked(text, peer)
                self._link.changed.notify_all()

    def produce(self, messages: Sequence[Message]) -> None:
        self._check()
        if self._acks:
            self._await_listener()
        peers = self._link.peers()
        self._notice(bool(peers))
        for peer in peers:
            self._send(peer, messages)

    def _send(self, peer: Peer, messages: Sequence[Message]) -> None:
        self._waiting.add(peer)
        try:
            for message in messages:
                peer.sent += 1
                payload = _letter(message) if f"{ERROR}reason" in message.headers else message.value
                peer.connection.send(payload, text=_is_text(payload))
        except ConnectionClosed as error:
            log.info("%s left: %s", peer.address, error)

    def flush(self, timeout: float) -> None:
        """Best effort: returns at once. With `ack`: everybody who stayed has confirmed, and somebody has."""
        self._check()
        waiting, self._waiting = self._waiting, set()
        if not self._acks or not waiting:
            return
        with self._link.changed:
            self._link.changed.wait_for(lambda: all(peer.settled for peer in waiting), timeout)
        if not all(peer.settled for peer in waiting):
            raise DeliveryFailed(f"{self._link.place}: not confirmed within {timeout:g} s")
        if not any(peer.acked == peer.sent for peer in waiting):
            raise DeliveryFailed(f"{self._link.place}: the connection ended before the messages were confirmed")

    def _check(self) -> None:
        if self._link.trouble:
            raise DeliveryFailed(self._link.trouble)

    def _await_listener(self) -> None:
        with self._link.changed:
            self._link.changed.wait_for(self._link.peers, LISTENER_SECONDS)
        if not self._link.peers():
            raise DeliveryFailed(f"{self._link.place}: nobody is connected")

    def _notice(self, heard: bool) -> None:
        """Says when messages begin to go to nobody, not for each."""
        if self._heard and not heard:
            log.warning("%s: nobody is connected, messages go nowhere (`ack: true` would wait)", self._link.place)
        self._heard = heard

    def close(self) -> None:
        self._link.close()


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _letter(message: Message) -> bytes:
    """A dead letter as one frame, since a frame has no headers."""
    headers = {name: value.decode("utf-8", "replace") for name, value in message.headers.items()}
    parts = {"key": message.key, "value": message.value}
    plain = all(part is None or _is_text(part) for part in parts.values())
    texts = {
        name: None if part is None else part.decode() if plain else base64.b64encode(part).decode()
        for name, part in parts.items()
    }
    return json.dumps({"headers": headers, **texts, **({} if plain else {"encoding": "base64"})}).encode()


def _acked(frame: bytes, peer: Peer) -> int:
    """The number in an acknowledgement; a peer that says anything else is asked to leave."""
    try:
        number = json.loads(frame)["ack"]
    except (ValueError, TypeError, KeyError):
        number = None
    if not isinstance(number, int) or not peer.acked <= number <= peer.sent:
        peer.connection.close(1003, 'expected {"ack": number of frames that are done}')
        return peer.acked
    return number
