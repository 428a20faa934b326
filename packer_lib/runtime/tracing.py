"""W3C Trace Context (www.w3.org/TR/trace-context) on its way through REST units; standard library only.

A unit takes part in no trace of its own: it hands on the context it was given, as the specification asks of whoever
does not. On queues the two headers travel like all others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

HEADERS = (b"traceparent", b"tracestate")

# the version ff is none; trace and parent of zeros only are none
_PARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[\x21-\x7e]{1,64})?"
)
_STATE = re.compile(rb"[\x20-\x7e\t]{1,512}")


@dataclass(frozen=True, slots=True)
class Trace:
    """The values of `traceparent` and `tracestate` ("" when there is none), safe to be sent as headers."""

    parent: str
    state: str = ""

    @property
    def id(self) -> str:
        """The 32 hexadecimal digits by which people look up a trace."""
        return self.parent[3:35]

    def headers(self) -> tuple[str, ...]:
        """The lines of an HTTP request."""
        return (f"traceparent: {self.parent}", *((f"tracestate: {self.state}",) if self.state else ()))


def given(headers: Mapping[bytes, bytes]) -> Trace | None:
    """The context in `headers`; None when there is none, or a malformed one, which is as if it were not there."""
    parent = headers.get(b"traceparent")
    if parent is None or not _PARENT.fullmatch(parent):
        return None
    state = headers.get(b"tracestate", b"")
    return Trace(parent.decode("ascii"), state.decode("ascii").strip() if _STATE.fullmatch(state) else "")
