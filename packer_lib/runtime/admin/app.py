"""The ASGI app of the admin port: what changes a running unit, for who has its token. Nothing else is answered here,
and nothing of it is anywhere else.

    POST /v2/repository/index, /v2/repository/models/STEP/load|unload      see repository.py
    PUT  /v2/repository/models/STEP/versions
    GET  /admin/models, POST /admin/models/STEP/promote|discard|shadow     see versions.py
    PUT  /model /proto /model/configuration, POST /transformCSV|JSON       Acumos', see acumos.py

Whoever sends no `Authorization: Bearer` with the token gets 401, whatever was asked for, one after the other and each
after a while. Errors are `{"error": "…"}`, Acumos' own as Acumos says them.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import logging
from collections.abc import Mapping, Sequence

from ..front import Leaving, Message, Receive, Send, respond
from ..heads import CLOSE, Headers
from ..predict import Answer, Refused, error_answer
from . import arriving
from .asked import Asked, Routes, query

log = logging.getLogger("mlpacker.admin")

FAILURE_SECONDS = 0.2  # that each wrong token waits for, in turn
FAILURES = 64  # that may wait
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
UNKNOWN = "this is not one of /v2/repository, /admin/models, /model, /proto, /model/configuration, /transform…"


class Admin:
    """`max_body` is the largest body in bytes that is read into memory; `headers` are said with every answer."""

    def __init__(
        self, token: str, routes: Sequence[Routes], max_body: int, headers: Headers, leaving: Leaving | None = None
    ) -> None:
        self._token = token.encode()
        self._routes = routes
        self._max_body = max_body
        self._headers = headers
        self._leaving = leaving or Leaving()
        self._failures = 0
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        read = _Counted(receive, headers)
        answer = await self._refusal(headers)
        if answer is None:
            asked = Asked(scope["method"], scope["path"], query(scope["query_string"]), headers, read, self._max_body)
            answer = await self._answer(asked)
            if asked.method not in ("GET", "HEAD"):
                log.info("%s %s: %d", asked.method, asked.path.encode("unicode_escape").decode()[:200], answer.status)
        if not read.whole and b"expect" not in headers:  # who waits to be told to go on reads the answer as it is
            await arriving.dropped(read, self._max_body)  # who sends does not before it has been sent
        closing = [CLOSE] if self._leaving.now or not read.whole else []
        await respond(send, answer, [*self._headers, *closing])

    async def _refusal(self, headers: dict[bytes, bytes]) -> Answer | None:
        """Of who has not got the token; takes as long for a near miss as for a wild guess."""
        if self._failures >= FAILURES:
            refused = error_answer(429, "too many wrong tokens are waiting; try again later")
            return Answer(refused.status, refused.body, headers=((b"retry-after", b"5"),))
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
            return None
        self._failures += 1
        try:
            async with self._turn:
                await asyncio.sleep(FAILURE_SECONDS)
        finally:
            self._failures -= 1
        refused = error_answer(401, "send Authorization: Bearer with this unit's token (MLPACKER_TOKEN)")
        return Answer(refused.status, refused.body, headers=((b"www-authenticate", b'Bearer realm="mlpacker"'),))

    async def _answer(self, asked: Asked) -> Answer:
        try:
            for routes in self._routes:
                if (answer := await routes.answer(asked)) is not None:
                    return answer
            raise Refused(404, UNKNOWN)
        except Refused as refused:
            return error_answer(refused.status, str(refused))
        except OSError as error:
            if error.errno not in FULL:
                log.exception("a request to the admin port failed")
                return error_answer(500, "the unit failed; its log says why")
            return error_answer(507, f"there is no room for it in the unit's state folder: {error.strerror}")
        except Exception:
            log.exception("a request to the admin port failed")
            return error_answer(500, "the unit failed; its log says why")


class _Counted:
    """`receive`, and whether all of the body has come."""

    def __init__(self, receive: Receive, headers: Mapping[bytes, bytes]) -> None:
        self._receive = receive
        self.whole = headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers

    async def __call__(self) -> Message:
        message = await self._receive()
        self.whole = not message.get("more_body", False)
        return message
