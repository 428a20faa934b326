"""CloudEvents 1.0 (github.com/cloudevents/spec) around messages: read where they are, and written for what becomes of
them.

binary      attributes beside the payload: Kafka headers `ce_id` …, user properties `id` … of MQTT 5
structured  the payload is a JSON object of attributes and data: by the content type `application/cloudevents+json`;
            where there are no headers (WebSocket, MQTT 3.1.1) by the object itself, with all that an event must have

An answer is an event in the mode of its question, structured where its queue has no headers: all attributes travel on,
but for `id` and `source`, which are its own, `datacontenttype`, and `dataschema`, which was about other data. Its id
follows from the question's, so that one that comes again is the same event again. Imports orjson.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from .contract import Message, made_by
from .formats import Format, require_shallow
from .manifest import QueueSpec

CONTENT = "content-type"
STRUCTURED = "application/cloudevents+json"
REQUIRED = ("specversion", "id", "source", "type")
TRACE = ("traceparent", "tracestate")
MODELS = "mlpackermodel"  # the extension that says the same as the header `contract.MODEL`
TEXT_MOST = 8192  # of an attribute; the specification asks for 64 KiB of all together
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # which the specification forbids, and MQTT brokers hang up on
_NAME = re.compile(r"[a-z0-9]{1,64}")
_DATA = ("data", "data_base64")
_OWN = ("datacontenttype", "dataschema")
# connector → what stands before the name of an attribute; those that are not here have no place beside the payload
_PREFIX = {"kafka": "ce_", "memory": "ce_", "mqtt": ""}


@dataclass(frozen=True, slots=True)
class Event:
    """`attributes` without those of the data, `headers` those of the message that are not the event's. `data`: the JSON
    value or the bytes (`is_bytes`) in a structured event."""

    attributes: dict[str, Any]
    headers: dict[str, bytes]
    structured: bool = False
    data: Any = None
    is_bytes: bool = False

    def value(self, form: Format) -> Any:
        """The data of a structured event as `form` reads it; raises what that raises."""
        if self.is_bytes:
            return form.decode(self.data)
        if form.media == "application/json":
            return self.data
        if not isinstance(self.data, str):
            raise ValueError(f"{form.media} is a text in `data` or base64 in `data_base64` of the event")
        return form.decode(self.data.encode())


class Events:
    """The events of one queue; `source` is what answers say where they come from, a URI reference."""

    def __init__(self, queue: QueueSpec, source: str = "") -> None:
        old = queue.connector == "mqtt" and queue.options.get("protocol") == "3.1.1"
        self._prefix = None if old else _PREFIX.get(queue.connector)
        self._version = None if self._prefix is None else f"{self._prefix}specversion"
        self.bare = queue.connector in ("websocket", "mqtt")  # messages without any header may be events
        self._queue, self._source = queue.id, source

    def read(self, message: Message) -> Event | None:
        """The event in `message`, or None when there is none. Raises what tells why for half of one."""
        headers = message.headers
        if not headers:
            return _bare(message.value) if self.bare and _looks(message.value) else None
        if headers.get(CONTENT, b"").lower().startswith(STRUCTURED.encode()):
            return _structured(message.value, {key: value for key, value in headers.items() if key != CONTENT})
        return self._binary(headers) if self._version in headers else None

    def write(
        self, event: Event, payload: bytes, media: str, number: int, models: bytes = b""
    ) -> tuple[bytes, dict[str, bytes]]:
        """Payload and headers of the answer `number` to `event`; `payload` is its data, `media` the type of that, and
        `models` made it."""
        attributes = {**event.attributes, "id": self._id(event, number), "source": self._source}
        if models:
            attributes[MODELS] = made_by(str(attributes.get(MODELS, "")).encode(), models).decode()
        if event.structured or self._prefix is None:
            for name in TRACE:
                if name in event.headers:
                    attributes.setdefault(name, event.headers[name].decode("latin-1"))
            return _envelope(attributes, payload, media), {**event.headers, CONTENT: STRUCTURED.encode()}
        beside = {self._prefix + name: _text(value) for name, value in attributes.items()}
        return payload, {**event.headers, **beside, CONTENT: media.encode()}

    def _id(self, event: Event, number: int) -> str:
        seed = (event.attributes["source"], event.attributes["id"], self._source, self._queue, str(number))
        return hashlib.blake2b("\0".join(seed).encode(), digest_size=16).hexdigest()

    def _binary(self, headers: Mapping[str, bytes]) -> Event:
        prefix, attributes, rest = self._prefix or "", {}, {}
        for key, value in headers.items():
            name = key.removeprefix(prefix)
            if not key.startswith(prefix) or not _NAME.fullmatch(name) or (not prefix and key in TRACE):
                rest[key] = value
            elif name not in _OWN:
                attributes[name] = value.decode()
        rest.pop(CONTENT, None)
        return Event(_complete(attributes), rest)


def _looks(payload: bytes) -> bool:
    return payload.startswith(b"{") and b'"specversion"' in payload


def _bare(payload: bytes) -> Event | None:
    """An object is an event when it has all that one must have; else it is a value like any other."""
    try:
        return _structured(payload, {})
    except (ValueError, TypeError):
        return None


def _structured(payload: bytes, headers: dict[str, bytes]) -> Event:
    given = require_shallow(orjson.loads(payload))
    if not isinstance(given, dict):
        raise ValueError("a structured event is a JSON object")
    attributes = _complete({name: value for name, value in given.items() if _is_attribute(name, value)})
    traced = {name: attributes[name].encode() for name in TRACE if isinstance(attributes.get(name), str)}
    is_bytes = "data_base64" in given
    data = base64.b64decode(given["data_base64"], validate=True) if is_bytes else given.get("data")
    return Event(attributes, {**traced, **headers}, True, data, is_bytes)


def _is_attribute(name: str, value: Any) -> bool:
    return name not in (*_DATA, *_OWN) and bool(_NAME.fullmatch(name)) and isinstance(value, str | int)


def _complete(attributes: dict[str, Any]) -> dict[str, Any]:
    """`attributes`, or `ValueError` unless they are those of an event of version 1.0."""
    for name in REQUIRED:
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            raise ValueError(f"the event has no {name!r}")
    for name, value in attributes.items():
        if len(str(value)) > TEXT_MOST or _CONTROL.search(str(value)):
            raise ValueError(f"its {name!r} is longer than {TEXT_MOST} characters, or has control characters")
    if attributes["specversion"] != "1.0":
        raise ValueError(f"the event is of CloudEvents {attributes['specversion']!r}, 1.0 is read")
    return attributes


def _envelope(attributes: dict[str, Any], payload: bytes, media: str) -> bytes:
    envelope = {**attributes, "datacontenttype": media}
    if media == "application/json":
        envelope["data"] = orjson.Fragment(payload)
    elif media.startswith("text/"):
        envelope["data"] = payload.decode()
    else:
        envelope["data_base64"] = base64.b64encode(payload).decode()
    return orjson.dumps(envelope)


def _text(value: Any) -> bytes:
    """An attribute beside the payload: text in UTF-8, `true` and `false`, whole numbers as they are written."""
    return (str(value).lower() if isinstance(value, bool) else str(value)).encode()
