"""A request to the admin port as its routes see it, and what such a route is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

import orjson

from ..front import Receive
from ..heads import NO_KIND, check_headers, require_method
from ..predict import Answer, Refused
from . import arriving

JSON = frozenset({b"application/json", NO_KIND})  # `tritonclient` names none


@dataclass(frozen=True, slots=True)
class Asked:
    """`headers` have lower-case names; `most` is the largest body in bytes that is read into memory."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[bytes, bytes]
    receive: Receive
    most: int

    def require(self, *allowed: str) -> None:
        """`Refused` when its method is not one of these."""
        require_method(self.method, self.path, *allowed)

    def require_kind(self, kinds: Collection[bytes], most: int) -> None:
        """`Refused` when its content type is not one of these, or its body is said to be larger than `most`."""
        if refused := check_headers(self.headers, most, kinds):
            raise refused

    async def value(self) -> dict[str, Any]:
        """The JSON object that it brings; {} for no body."""
        self.require_kind(JSON, self.most)
        body = await arriving.in_memory(self.receive, self.most)
        try:
            found = orjson.loads(body or b"{}")
        except orjson.JSONDecodeError as error:
            raise Refused(400, f"the body is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise Refused(400, "the body is no JSON object")
        return found

    def flag(self, name: str, default: bool) -> bool:
        """Of the query."""
        given = self.query.get(name, str(default).lower())
        if given not in ("true", "false"):
            raise Refused(400, f"{name} is {given[:60]!r}; expected true or false")
        return given == "true"

    def seconds(self, name: str, default: float, most: float) -> float:
        """Of the query: more than 0, at most `most`."""
        given = self.query.get(name, "")
        try:
            found = float(given) if given else default
        except ValueError:
            found = 0.0
        if not 0 < found <= most:
            raise Refused(400, f"{name} is {given[:60]!r}; expected seconds, more than 0 and at most {most:.0f}")
        return found


def query(text: bytes) -> dict[str, str]:
    return dict(parse_qsl(text.decode("latin-1"), keep_blank_values=True))


class Routes(Protocol):
    """Some of the routes of the admin port."""

    async def answer(self, asked: Asked) -> Answer | None:
        """None: it is not one of these; raises `Refused`."""
