"""The contracts of the runtime, under the paper's names; standard library only.

A `Source` hands out messages and is told which of them are done; a `Sink` takes messages and says when they are safe;
a `Framework` turns a batch of inputs into a batch of outputs. One contract suite per kind holds every one to this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ERROR = "mlpacker-error-"  # how the headers begin that say why a dead letter is one
MODEL = "mlpacker-model"  # the header that says which models made a message: `step=version`, joined by commas
MODELS_MOST = 1024  # bytes of what units before this one said; a message that goes round is not to grow for ever


@dataclass(slots=True)
class Message:
    """One message of a queue. `value` is the raw payload, `position` a place a person can look up, `token` the source's
    own handle for `ack`; a sink ignores both."""

    value: bytes
    key: bytes | None = None
    headers: dict[str, bytes] = field(default_factory=dict)
    position: str = ""
    token: Any = None


@dataclass(frozen=True, slots=True)
class Replica:
    """Which of the `of` processes of a unit this one is, from 0. To a broker the same number is the same one."""

    number: int = 0
    of: int = 1

    @property
    def suffix(self) -> str:
        """For names that each process needs for itself; the first keeps the name of a unit that is alone."""
        return f".{self.number}" if self.number else ""


ALONE = Replica()


def made_by(former: bytes, models: bytes) -> bytes:
    """The value of the header `MODEL`: `models` after what it said before."""
    return models if not former or len(former) > MODELS_MOST else b"%b,%b" % (former, models)


class ConnectionFailed(Exception):
    """The broker or peer cannot be reached, or refuses us; the text names it and says what to look at."""


class DeliveryFailed(Exception):
    """Some of what was produced is not safe after all; nothing that depends on it may be acknowledged."""


class MessageRefused(Exception):
    """The peer never takes this message, however often it is tried: it is too large for it, say.

    Of what `produce` was given, all before `message` was taken and nothing after it.
    """

    def __init__(self, message: Message, reason: str) -> None:
        super().__init__(reason)
        self.message = message


class Source(ABC):
    """At-least-once: what was consumed and not acknowledged comes again after `close` and `connect`."""

    @abstractmethod
    def connect(self) -> None:
        """Ready to consume, or `ConnectionFailed` within the connector's own time limit (10 s unless set)."""

    @abstractmethod
    def consume(self, max_items: int, timeout: float) -> list[Message]:
        """Up to `max_items` of what is waiting; waits up to `timeout` seconds for the first only. Empty: none came."""

    @abstractmethod
    def ack(self, messages: Sequence[Message]) -> None:
        """These are done; they never come again. Called in the order in which they were consumed."""

    @abstractmethod
    def close(self) -> None:
        """Leaves in order and frees everything; may be called twice, and before `connect`."""

    def lag(self) -> int:
        """Messages that wait and are not done, as far as that is known here without asking; called by any thread."""
        return 0

    def kept(self, messages: list[Message]) -> list[Message]:
        """Of `messages`, consumed one after another, those that are still ours to do; the others are another's now."""
        return messages

    def retire(self) -> bool:
        """This one leaves for good: the peer is to give it nothing more, and `close` ends what it keeps for it.

        True when what it was given already is still to be consumed and acknowledged before `close`.
        """
        return False


class Sink(ABC):
    """What `flush` has returned for is safe at the peer, in the order of `produce` for each key."""

    @abstractmethod
    def connect(self) -> None:
        """Ready to produce, or `ConnectionFailed` within the connector's own time limit (10 s unless set)."""

    @abstractmethod
    def produce(self, messages: Sequence[Message]) -> None:
        """Takes them for sending, or raises `MessageRefused`; blocks while the connector has too many in flight."""

    @abstractmethod
    def flush(self, timeout: float) -> None:
        """Returns when all that was produced is confirmed; `DeliveryFailed` if that fails or `timeout` seconds pass."""

    @abstractmethod
    def close(self) -> None:
        """Frees everything; may be called twice, and before `connect`. Does not flush."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a model takes or gives, described: a `datatype` of the Open Inference Protocol; the first length of `shape`
    is that of the batch, -1 one that is free."""

    datatype: str
    shape: tuple[int, ...]


class Framework(ABC):
    """A model file in, answers out. One thread at a time uses an instance, and it may be another than the one that
    loaded it. Of a loaded model, as far as it is known: `columns` are the names that it knows its inputs by, in their
    order; `takes` is what it is best given, `gives` what its answers make."""

    columns: tuple[str, ...] = ()
    takes: Tensor | None = None
    gives: Tensor | None = None

    def __init__(self, serializer: str) -> None:
        """`serializer` is one of the catalogue's for this framework."""
        self.serializer = serializer

    @abstractmethod
    def load_model(self, path: str) -> None:
        """Loads the model at `path` (a file, or a folder for SavedModel); `ModelUnusable` when it is not one."""

    @abstractmethod
    def get_model_result(self, batch: Sequence[Any]) -> list[Any]:
        """One answer per instance of `batch` (each a number or nested lists of one shape), plain Python values.

        `BadInput` when the shape or type does not fit the model; the message says what is expected and what came.
        """


class ModelUnusable(Exception):
    """The model file cannot be loaded: wrong serializer, damaged, or of another library version."""


class BadInput(Exception):
    """One message or request does not fit; it is the sender's to mend, and never stops a unit by itself."""


class HandlerUnusable(Exception):
    """A code step cannot be imported, or has no such function; the text has the place in the user's own code."""


class StepFailed(Exception):
    """One value did not get through one step; the cause, where there is one, is chained.

    `stage`: `input` (the value does not fit; the sender's to mend), `predict` or `handle`; around the chain also
    `decode`, `schema` and `encode`. `reason` is one line. `place` is the machine and address of a step of another
    unit."""

    def __init__(self, step: str, stage: str, reason: str, place: str = "") -> None:
        super().__init__(f"step {step!r}, {stage}: {reason}")
        self.step = step
        self.stage = stage
        self.reason = reason
        self.place = place
