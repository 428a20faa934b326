"""`infer` of the Open Inference Protocol: what a request names, and the answer to it; standard library only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .chain import Outcome
from .heads import NO_KIND
from .predict import Answer, error_answer, failure, final, given_out
from .short import Made
from .tracing import Trace

KINDS = frozenset({b"application/json", b"application/octet-stream", NO_KIND})


@dataclass(frozen=True, slots=True)
class Model:
    """What a request names. `step` is "" for the whole chain; `plain`: its first step takes lists, not arrays.

    `version` is what answers name it by, `asked` is "" for the one that is live, `rows` what `/info` says of all.
    """

    name: str
    version: str
    step: str
    platform: str
    plain: bool
    asked: str = ""
    rows: tuple[Mapping[str, Any], ...] = ()


class Infer:
    """`infer` of one model, the short way; `loaded` has the module that knows its bodies once somebody has asked."""

    kinds: Collection[bytes] = KINDS

    def __init__(self, loaded: Callable[[], Any], model: Model) -> None:
        self._loaded, self._model, self.step = loaded, model, model.step

    def read(self, headers: Mapping[bytes, bytes], body: bytes) -> tuple[Sequence[Any], Made] | None:
        bodies, model = self._loaded(), self._model
        if bodies is None:
            return None
        asked = bodies.parse(body, headers.get(bodies.LENGTH))
        return asked.instances(model.plain), lambda outcomes: answered(bodies, asked, model, outcomes)


def answered(bodies: Any, asked: Any, model: Model, outcomes: list[Outcome], trace: Trace | None = None) -> Answer:
    """Whatever became of them."""
    failed = [(place, outcome.error) for place, outcome in enumerate(outcomes) if outcome.error]
    if failed:
        return failure(failed, trace)
    head = {"model_name": model.name, "model_version": _made_by(model, outcomes), "id": asked.id}
    try:
        made: Answer = bodies.answer(head, [final(outcome) for outcome in outcomes], asked.binary)
    except (TypeError, ValueError) as error:
        return error_answer(500, f"the last step gave what no tensor can hold: {error}")
    return replace(made, headers=(*made.headers, *given_out(outcomes)))


def _made_by(model: Model, outcomes: list[Outcome]) -> str:
    """The version that gave the answer, should another have come since."""
    made = outcomes[0].models if model.step and outcomes else []
    return made[0].decode().rpartition("=")[2] or model.version if made else model.version
