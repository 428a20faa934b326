"""Keys for what predicts (`MLPACKER_API_KEY`): one, or several separated by commas while one takes another's place."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from .predict import Refused


class Keys:
    """Empty, and so false, where none is asked for."""

    def __init__(self, given: str) -> None:
        self._keys = tuple(key.strip().encode() for key in given.split(",") if key.strip())

    def __bool__(self) -> bool:
        return bool(self._keys)

    def refusal(self, headers: Mapping[bytes, bytes]) -> Refused | None:
        """Unless the caller has one of them; takes as long for a near miss as for a wild guess."""
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        known = [hmac.compare_digest(given.strip(), key) for key in self._keys]
        if any(known) and scheme.lower() == b"bearer":
            return None
        return Refused(401, "send Authorization: Bearer with this pipeline's key", ((b"www-authenticate", b"Bearer"),))

    def header(self) -> tuple[str, ...]:
        """The line of an HTTP request to a unit of the same pipeline, or none."""
        return (f"Authorization: Bearer {self._keys[0].decode()}",) if self._keys else ()
