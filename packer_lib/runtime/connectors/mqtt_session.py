"""One connection to an MQTT broker, for the source and the sink of `mqtt`; paho-mqtt."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, RLock, Thread
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ..contract import ConnectionFailed
from ..manifest import QueueSpec

log = logging.getLogger("mlpacker.mqtt")

GOODBYE_SECONDS = 2.0
LOOK_SECONDS = 0.5
AT_ONCE = 200  # packets
LARGEST = 268_435_455  # what MQTT can count
VERSIONS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
# Brokers found to speak 3.1.1 only; some never answer a newer hello, which is not worth waiting for each time.
_KNOWN: dict[tuple[str, int], str] = {}
DEFAULTS: dict[str, Any] = {
    "keepalive": 15,  # a connection that is dead and does not say so is noticed after twice that
    "session_expiry": 86_400,
    "connect_timeout": 5.0,
    "receive_maximum": 1000,
    "max_inflight": 1000,
    "max_packet_size": 10_000_000,
    "watch_dropped": False,
}


def client_id(queue: QueueSpec, name: str, side: str) -> str:
    """The same for the same unit, queue and topic, so that the broker keeps its session.

    At most 23 characters, which every broker must accept (MQTT 3.1.1, section 3.1.3.1).
    """
    unit = "".join(char for char in name.rpartition(".")[2] if char.isascii() and char.isalnum())[:8]
    digest = hashlib.sha256("\0".join((name, queue.id, queue.topic, side)).encode()).hexdigest()
    return f"mlp-{unit}-{digest[:10]}"


class Refused(Exception):
    """The broker closed or refused a connection of this version of the protocol."""


class Session:
    """One connection, looked after by whoever waits for something; once it is lost (`lost` says why) it stays lost."""

    def __init__(self, queue: QueueSpec, identity: str, keep: bool) -> None:
        self.turn = RLock()  # whose turn it is to write, or to look after the connection
        self._turned = 0.0
        self._keeping = Event()
        self.lost = ""
        self.v5 = True
        self.window = 0  # messages that may be on their way at once
        self.known = False  # the broker kept our session, with the subscriptions of whoever had it before
        self.shares = True  # the broker shares one subscription among several, as far as it says
        self.ends = False  # and is to forget it when this is closed
        self.max_packet = LARGEST  # bytes the broker takes at once, where it tells
        self._queue, self._identity, self._keep = queue, identity, keep
        self.options: dict[str, Any] = {**DEFAULTS, **queue.options.get("config", {})}
        self._client: Client | None = None
        self._answer: ReasonCode | None = None
        self._settled: int | None = None  # the last unsubscription that the broker answered

    @property
    def client(self) -> Client:
        """The client of an open connection, or `ConnectionFailed`."""
        if self._client is None or self.lost:
            raise ConnectionFailed(f"{self.place}: {self.lost or 'not connected'}")
        return self._client

    @property
    def place(self) -> str:
        return f"mqtt broker {self._queue.server}:{self._queue.port}"

    def failure(self, reason: str) -> ConnectionFailed:
        return ConnectionFailed(f"cannot reach {self.place}: {reason} (is it running? is the address right?)")

    def open(self, prepare: Callable[[Client], None]) -> None:
        """Connects with the newest version of the protocol that the broker takes; `prepare` sets the callbacks."""
        asked = self._queue.options.get("protocol") or _KNOWN.get((self._queue.server, self._queue.port))
        versions = [VERSIONS[asked]] if asked else [VERSIONS["5"], VERSIONS["3.1.1"]]
        reason = ""
        for version in versions:
            try:
                self._open(version, prepare)
                break
            except Refused as error:
                self.close()
                reason = reason or str(error)
        else:
            raise self.failure(reason)
        if not self.v5 and not asked:
            _KNOWN[self._queue.server, self._queue.port] = "3.1.1"
            log.info("%s takes MQTT 3.1.1 only: keys and headers do not travel", self.place)

    def _open(self, version: MQTTProtocolVersion, prepare: Callable[[Client], None]) -> None:
        self.lost, self._answer, self._settled = "", None, None
        self.v5 = version is VERSIONS["5"]
        client = self._new_client(version)
        prepare(client)
        start: dict[str, Any] = {"clean_start": not self._keep, "properties": self._properties()} if self.v5 else {}
        try:
            client.connect(self._queue.server, self._queue.port, self.options["keepalive"], **start)
        except OSError as error:
            raise self.failure(error.strerror or str(error)) from None
        self._client = client
        self.wait(lambda: self._answer, self.options["connect_timeout"])
        self._judge()
        self._keeping = Event()
        Thread(target=self._stay, args=(self._keeping,), name=f"mqtt {self._identity}", daemon=True).start()

    def wait(self, condition: Callable[[], Any], seconds: float | None) -> bool:
        """Looks after the connection until `condition` is true, it is lost, or `seconds` are over; once in any case.
        Whether `condition` is true then. It, and paho's callbacks, are called in the thread that waits."""
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        with self.turn:
            met = bool(condition())
            self._look(0.0)
            while not (met := met or bool(condition())) and not self.lost and self._client is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._look(min(left, LOOK_SECONDS))
        return met

    def _look(self, seconds: float) -> None:
        """Reads and writes what there is, after waiting for it up to `seconds`.

        Not paho's own loop: its thread and ours would hand the interpreter to and fro for every packet, which took more
        than half of the time.
        """
        self._turned = time.monotonic()
        client = self._client
        if client is None:
            return
        sock: Any = client.socket()
        if sock is None:
            self.lost = self.lost or "connection lost"
            return
        poller = select.poll()
        poller.register(sock.fileno(), select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        ready = _ready(poller, sock, seconds)
        for _ in range(AT_ONCE):
            if not ready & ~select.POLLOUT:
                break
            client.loop_read()
            if client.socket() is None:
                return
            ready = _ready(poller, sock, 0.0)
        if client.want_write():
            client.loop_write()
        client.loop_misc()

    def _stay(self, stop: Event) -> None:
        """In a thread of its own: the broker is told that we are there while whoever uses the connection is busy. The
        client writes in the thread that calls it, so that two must not at once."""
        pause = max(self.options["keepalive"], 1) / 4
        while not stop.wait(pause):
            with self.turn:
                if self._client is not None and not self.lost and time.monotonic() - self._turned > pause:
                    self._look(0.0)

    def _new_client(self, version: MQTTProtocolVersion) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            self._identity,
            None if self.v5 else not self._keep,
            protocol=version,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = self.options["connect_timeout"]
        client.max_inflight_messages_set(0)  # no bound of paho's, which does not heed the broker's: `window` is ours
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_unsubscribe = self._on_unsubscribe
        if self._queue.options.get("tls"):
            client.tls_set()
        if "username" in self._queue.options:
            client.username_pw_set(self._queue.options["username"], self._password())
        return client

    def _password(self) -> str | None:
        name = self._queue.options.get("pass_env")
        if name and name not in os.environ:
            raise ConnectionFailed(f"{self.place}: no password: environment variable {name!r} (pass_env) is not set")
        return os.environ[name] if name else None

    def _properties(self) -> Properties:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self.options["session_expiry"] if self._keep else 0
        properties.ReceiveMaximum = self.options["receive_maximum"]
        properties.MaximumPacketSize = self.options["max_packet_size"]
        return properties

    def _judge(self) -> None:
        """Returns when connected; a broker that takes no MQTT 5 says so, or just hangs up."""
        if self._answer is None:
            raise Refused(self.lost or f"no answer in {self.options['connect_timeout']:g} s")
        if self._answer.is_failure:
            if "protocol version" in str(self._answer).lower():
                raise Refused(str(self._answer))
            raise ConnectionFailed(f"{self.place} refuses us: {self._answer} (look at username and pass_env)")

    def _on_connect(
        self, _client: Client, _data: Any, flags: ConnectFlags, answer: ReasonCode, properties: Properties | None
    ) -> None:
        self.known = flags.session_present
        self.shares = bool(getattr(properties, "SharedSubscriptionAvailable", 1))
        self.window = min(getattr(properties, "ReceiveMaximum", 65_535), self.options["max_inflight"])
        self.max_packet = getattr(properties, "MaximumPacketSize", LARGEST)
        self._answer = answer

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        why = f"did it stop, or did another client come as {self._identity}?"
        self.lost = self.lost or f"connection lost: {reason} ({why})"

    def settle(self, seconds: float = 2.0) -> None:
        """Returns when the broker has handled all we sent: it answers in order, here an unsubscription from nothing."""
        if self._client is None or self.lost:
            return
        with self.turn:
            _, asked = self._client.unsubscribe("mlpacker/settle")
        self.wait(lambda: self._settled == asked, seconds)

    def _on_unsubscribe(self, _client: Client, _data: Any, mid: int, *_: Any) -> None:
        self._settled = mid

    def close(self) -> None:
        """Says goodbye, and waits for the broker to part; one that takes nothing any more is not waited for long."""
        self._keeping.set()
        with self.turn:
            if self._client is not None and not self.lost:
                self._client.disconnect(properties=_forget() if self.ends and self.v5 else None)
                self.wait(lambda: self.lost, GOODBYE_SECONDS)
            client, self._client = self._client, None
        sock: Any = client.socket() if client is not None else None
        if sock is not None:
            with suppress(OSError):
                sock.close()


def _ready(poller: select.poll, sock: Any, seconds: float) -> int:
    """What the socket is ready for; what TLS has read ahead counts."""
    if getattr(sock, "pending", lambda: 0)():
        return select.POLLIN
    found = poller.poll(seconds * 1000)
    return found[0][1] if found else 0


def _forget() -> Properties:
    properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0
    return properties
