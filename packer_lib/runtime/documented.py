"""`GET /openapi.json`, and `/docs.json`, which BentoML's page at / shows: a `front.Interface`.

What makes the document is imported when it is first asked for.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from . import bodies
from .front import Request
from .manifest import Manifest
from .predict import Answer
from .worker import Worker

ROUTES = frozenset({"/openapi.json", "/docs.json"})
KINDS = frozenset({bodies.JSON})


class Documented:
    """`info` is what `/info` says; `keys`: whether the unit asks for one."""

    def __init__(self, manifest: Manifest, worker: Worker, info: Mapping[str, Any], keys: bool) -> None:
        self._unit = manifest, worker, info, keys

    def kinds(self, path: str) -> Collection[bytes] | None:
        return KINDS if path in ROUTES else None

    def predicts(self, path: str) -> bool:  # noqa: ARG002
        return False

    async def answer(self, request: Request) -> Answer:
        request.require("GET", "HEAD")
        from .openapi import Described, document

        return Answer(200, json.dumps(document(Described(*self._unit)), ensure_ascii=False).encode())
