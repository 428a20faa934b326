"""One batch: bytes in, the chain, bytes out, and the declared fate of what failed. No input or output happens here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from . import formats
from .chain import Chain, Column, Flow, together
from .contract import ERROR, Message, MessageRefused, StepFailed
from .deliveries import DELIVERIES
from .events import Event
from .manifest import Manifest, StepSpec
from .values import Reader, Writer


@dataclass(slots=True)
class Result:
    """What to deliver (queue id → messages, in order) before the first `done` messages may be acknowledged.

    `skipped` and `dead` are failures that have had their fate; `fatal`, of message `done`, stops the unit.
    """

    done: int
    out: dict[str, list[Message]] = field(default_factory=dict)
    skipped: list[StepFailed] = field(default_factory=list)
    dead: list[StepFailed] = field(default_factory=list)
    fatal: StepFailed | None = None


class Batches:
    """Runs batches through `chain`; `most` bytes of a message are read. `ValueError` when two steps of the unit use one
    queue in two formats, and for a schema that is none."""

    def __init__(self, manifest: Manifest, chain: Chain, most: int = formats.MAX_BYTES) -> None:
        self._chain = chain
        self._steps = {step.name: step for step in manifest.steps}
        self._readers = _users(manifest, "inputs", "input_format")
        self._writers = _users(manifest, "outputs", "output_format")
        queues = manifest.queues
        self._in = {queue: Reader(queues[queue], step, most) for queue, step in self._readers.items()}
        self._out = {queue: Writer(queues[queue], step, manifest.pipeline) for queue, step in self._writers.items()}

    def run(self, queue: str, messages: Sequence[Message]) -> Result:
        """The result for `messages`, all from `queue`. A failure with fate `fail` ends the batch where it stands, so
        that what came before it is not done twice."""
        read = self._in[queue].read(messages)
        flow = self._chain.flow(read.values, queue) if read.values else Flow()
        failed = _placed(flow, read.failed, len(messages))
        result = Result(len(messages), self._written(messages, flow.columns, read.events, failed))
        if failed:
            self._settle_all(failed, queue, messages, result)
        return result

    def _settle_all(
        self, failed: Mapping[int, StepFailed], queue: str, messages: Sequence[Message], result: Result
    ) -> None:
        """Of a message that failed nothing goes out but its dead letter; of one that stops the unit and of those
        behind it nothing at all."""
        result.out = _of(result.out, lambda place: place not in failed)
        for place in sorted(failed):
            if not self._settle(failed[place], place, messages[place], queue, result):
                result.done, result.fatal = place, failed[place]
                result.out = _of(result.out, lambda place: place < result.done)
                break
        for items in result.out.values():
            items.sort(key=attrgetter("token"))

    def give_up(self, queue: str, message: Message, reason: str) -> Result:
        """The result for a `message` that is not to be handled any more, as a failure of the step that reads it."""
        error, result = StepFailed(self._readers[queue].name, "crash", reason), Result(1)
        if not self._settle(error, 0, message, queue, result, DELIVERIES):
            result.done, result.fatal = 0, error
        return result

    def _written(
        self,
        messages: Sequence[Message],
        columns: Sequence[Column],
        events: Mapping[int, Event],
        failed: dict[int, StepFailed],
    ) -> dict[str, list[Message]]:
        """By queue what is to go there; whatever cannot be said there is noted in `failed`."""
        out: dict[str, list[Message]] = {}
        for queue in dict.fromkeys(column.target for column in columns):
            column = together([column for column in columns if column.target == queue])
            made = self._out[queue].write_all(messages, column, events)
            for place, item in zip(column.origins, made, strict=True):
                if isinstance(item, StepFailed):
                    failed.setdefault(place, item)
            out[queue] = [item for item in made if not isinstance(item, StepFailed)]
        return out

    def refuse(
        self, queue: str, messages: Sequence[Message], sink: str, refused: MessageRefused, result: Result
    ) -> None:
        """Settles the message whose outcome the queue `sink` will not take; where that was a dead letter, for good."""
        place, writer = refused.message.token, self._writers.get(sink)
        sender = writer or next(step for step in self._steps.values() if step.dead_letter == sink)
        error = StepFailed(sender.name, "deliver", f"{sink} refuses it: {refused}")
        settled = writer is not None and self._settle(error, place, messages[place], queue, result)
        if not settled and place < result.done:
            result.done, result.fatal = place, error

    def _settle(
        self, error: StepFailed, place: int, message: Message, queue: str, result: Result, attempts: int = 1
    ) -> bool:
        """Gives a failed message its declared fate; False when that is to stop the unit."""
        step = self._steps[error.step]
        if step.on_error == "skip":
            result.skipped.append(error)
        elif step.on_error == "dead_letter":
            model = self._chain.mark(error.step)
            letter = dead_letter(message, error, f"{queue} {message.position}", attempts, model)
            letter.token = place
            result.out.setdefault(step.dead_letter, []).append(letter)
            result.dead.append(error)
        else:
            return False
        return True


def _placed(flow: Flow, unread: Mapping[int, StepFailed], size: int) -> dict[int, StepFailed]:
    """All that failed by place in the batch. The chain counts without those `unread`; `flow` is put right."""
    if not unread:
        return dict(flow.failed)
    places = [place for place in range(size) if place not in unread]
    for column in flow.columns:
        column.origins = [places[origin] for origin in column.origins]
    return {**unread, **{places[origin]: error for origin, error in flow.failed.items()}}


def _of(out: Mapping[str, list[Message]], wanted: Callable[[int], bool]) -> dict[str, list[Message]]:
    """What of `out` belongs to messages at `wanted` places."""
    kept = {queue: [item for item in items if wanted(item.token)] for queue, items in out.items()}
    return {queue: items for queue, items in kept.items() if items}


def dead_letter(message: Message, error: StepFailed, source: str, attempts: int = 1, model: bytes = b"") -> Message:
    """`message` as it came, with why it failed after `attempts` in its headers; they add up when it is sent round.
    `model`: the mark of the one that its step had then."""
    former = message.headers.get(f"{ERROR}attempt", b"")
    attempt = attempts + (int(former) if former.isdigit() and len(former) < 10 else 0)
    reasons = {
        "stage": error.stage,
        "step": error.step,
        "reason": error.reason,
        "source": source,
        "attempt": str(attempt),
    }
    headers = {f"{ERROR}{name}": text.encode("utf-8", "replace") for name, text in reasons.items()}
    headers |= {f"{ERROR}model": model} if model else {}
    return Message(message.value, message.key, {**message.headers, **headers})


def _users(manifest: Manifest, side: str, kind: str) -> Mapping[str, StepSpec]:
    """Queue id → the step that reads (or writes) it."""
    users: dict[str, StepSpec] = {}
    for step in manifest.steps:
        for queue in getattr(step, side):
            if queue not in manifest.queues:
                continue
            other = users.setdefault(queue, step)
            theirs, ours = getattr(other, kind), getattr(step, kind)
            if theirs != ours:
                raise ValueError(f"queue {queue!r} has {theirs} for step {other.name!r} and {ours} for {step.name!r}")
    return users
