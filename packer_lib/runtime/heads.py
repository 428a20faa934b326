"""Heads of HTTP requests and answers: what a route takes, what an answer says; standard library only."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from . import arrival, bodies
from .predict import Answer, Refused

CLOSE = (b"connection", b"close")
UNREAD = frozenset({401, 408, 413, 415})

JSON = frozenset({bodies.JSON})
NO_KIND = b""  # among the content types of a route: a body may come without one

Headers = list[tuple[bytes, bytes]]
RELEASE = b"mlpacker-release"  # the name of the header; messages of streams carry it under the same


def check_headers(headers: Mapping[bytes, bytes], max_body: int, kinds: Collection[bytes] = JSON) -> Refused | None:
    """What is wrong: a content type that is not of `kinds`, an encoding, or a length over `max_body`."""
    kind = headers.get(b"content-type")
    if kind is not None and kind_of(kind) not in kinds:
        return Refused(415, f"Content-Type is {kind.decode('latin-1')!r}; send {_listed(kinds)}")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        return Refused(415, "Content-Encoding is not supported; send the body as it is")
    length = int(headers.get(b"content-length", b"0"))
    if length > max_body:
        return arrival.too_large(max_body)
    if kind is None and (length or b"transfer-encoding" in headers) and NO_KIND not in kinds:
        return Refused(415, f"there is no Content-Type; send {_listed(kinds)}")
    return None


def _listed(kinds: Collection[bytes]) -> str:
    return " or ".join(sorted(kind.decode() for kind in kinds if kind != NO_KIND))


def kind_of(content_type: bytes) -> bytes:
    """Without parameters, in lower case."""
    return content_type.partition(b";")[0].strip().lower()


def require_method(method: str, path: str, *allowed: str) -> None:
    if method not in allowed:
        text = f"{path} takes {' or '.join(allowed)}, got {method}"
        raise Refused(405, text, ((b"allow", ", ".join(allowed).encode()),))


def headers_of(answer: Answer, every: Headers) -> Headers:
    headers = [(b"content-type", answer.kind), (b"content-length", b"%d" % len(answer.body)), *answer.headers, *every]
    if answer.status in UNREAD and CLOSE not in headers:  # the rest of the body is not worth waiting for
        headers.append(CLOSE)
    return headers


def release_header(release: str) -> Headers:
    return [(RELEASE, release.encode())] if release and release.isascii() and release.isprintable() else []
