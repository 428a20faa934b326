"""The two ends of a queue inside a unit: from messages to values, and from values to messages.

In: CloudEvents are opened, payloads decoded together, values held to the queue's schema. Out: values are encoded, and
an answer to a CloudEvent is one. Keys and all other headers, `traceparent` and `tracestate` among them, travel on as
they came, and one says which models made the answer. What goes wrong with a message is its own `StepFailed` and nobody
else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import formats
from .catalogue import CHECKS
from .contract import MODEL, Message, StepFailed, made_by
from .events import CONTENT, Event, Events
from .formats import NotRead
from .manifest import QueueSpec, StepSpec

SETTING = "MLPACKER_MAX_BODY_MIB sets how much"


@dataclass(slots=True)
class Read:
    """`values` of the messages that can be used, in order. By place in the batch: why the others `failed`, and the
    `events` of those that are CloudEvents."""

    values: list[Any]
    failed: dict[int, StepFailed]
    events: dict[int, Event]


class Reader:
    """The end of `queue` at `step`, which reads it, `most` bytes a message. `ValueError` for a schema that is none."""

    def __init__(self, queue: QueueSpec, step: StepSpec, most: int = formats.MAX_BYTES) -> None:
        self._step, self._most = step, most
        self._format = formats.find(step.input_format)
        self._events = Events(queue)
        try:
            self._schema = None if queue.schema is None else CHECKS["json-schema"].load()(queue.schema)
        except ValueError as error:
            raise ValueError(f"queue {queue.id!r}: schema: {error}") from None

    def read(self, messages: Sequence[Message]) -> Read:
        """All of a batch. The stages of failures are `decode` and `schema`."""
        opened = self._opened(messages)
        found = self._decoded(messages, opened)
        unread = [place for place, value in enumerate(found) if type(value) is NotRead]
        failed = {place: self._unread(found[place], opened.get(place)) for place in unread}
        if self._schema is not None:
            for place, value in enumerate(found):
                if place not in failed and (fault := self._schema.fault(value)):
                    failed[place] = StepFailed(self._step.name, "schema", fault)
        values = [value for place, value in enumerate(found) if place not in failed] if failed else found
        return Read(values, failed, {place: event for place, event in opened.items() if isinstance(event, Event)})

    def _unread(self, value: NotRead, opened: Event | NotRead | None) -> StepFailed:
        label = "" if opened is value else f"not {self._step.input_format}: "
        return StepFailed(self._step.name, "decode", label + value.reason)

    def _opened(self, messages: Sequence[Message]) -> dict[int, Event | NotRead]:
        """By place: CloudEvents, and what is too large or half an event, at which nobody looks further."""
        opened: dict[int, Event | NotRead] = {}
        for place, message in enumerate(messages):
            if len(message.value) > self._most:
                opened[place] = NotRead(f"{len(message.value)} bytes, at most {self._most} are read ({SETTING})")
            elif message.headers or self._events.bare:
                try:
                    event = self._events.read(message)
                except Exception as error:
                    opened[place] = NotRead(f"not a CloudEvent: {formats.one_line(error)}")
                else:
                    if event is not None:
                        opened[place] = event
        return opened

    def _decoded(self, messages: Sequence[Message], opened: dict[int, Event | NotRead]) -> list[Any]:
        """A value or a `NotRead` per message: payloads together, the data inside structured events one by one."""
        inside = {place: event for place, event in opened.items() if not isinstance(event, Event) or event.structured}
        if not inside:
            return self._format.decode_all([message.value for message in messages])
        payloads = [message.value for place, message in enumerate(messages) if place not in inside]
        values = iter(self._format.decode_all(payloads))
        return [self._inside(inside[place]) if place in inside else next(values) for place in range(len(messages))]

    def _inside(self, event: Event | NotRead) -> Any:
        if isinstance(event, NotRead):
            return event
        try:
            return event.value(self._format)
        except Exception as error:
            return NotRead(formats.one_line(error))


class Writer:
    """The end of `queue` at `step`, which writes it, in the pipeline called `pipeline`."""

    def __init__(self, queue: QueueSpec, step: StepSpec, pipeline: str) -> None:
        self._step = step
        self._format = formats.find(step.output_format)
        self._media = self._format.media.encode()
        self._models, self._plain = b"", dict[str, bytes]()
        self._events = Events(queue, f"/mlpacker/{pipeline}/{step.name}")

    def write(self, message: Message, event: Event | None, value: Any, number: int, models: bytes = b"") -> Message:
        """What `value`, the answer `number` to `message`, made by `models`, is on this queue; `StepFailed` of stage
        `encode` when the format has no word for it. Headers are shared with `message` where nothing in them changes."""
        try:
            payload = self._format.encode(value)
        except Exception as error:
            text = f"not to be said in {self._step.output_format}: {formats.one_line(error)}"
            raise StepFailed(self._step.name, "encode", text) from None
        headers = message.headers
        if event is not None:
            payload, headers = self._events.write(event, payload, self._format.media, number, models)
        elif CONTENT in headers:
            headers = {**headers, CONTENT: self._media}
        if models:
            headers = {**headers, MODEL: made_by(headers.get(MODEL, b""), models)} if headers else self._only(models)
        return Message(payload, message.key, headers)

    def _only(self, models: bytes) -> dict[str, bytes]:
        """The headers of all messages of a batch that have no others."""
        if models is not self._models:
            self._models, self._plain = models, {MODEL: models}
        return self._plain
