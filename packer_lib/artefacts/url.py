"""A model from a URL: resolved once, public addresses only, no redirects, no proxies, size and time bounded."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from urllib.parse import SplitResult, urlsplit

from packer_lib.artefacts.model import Unfit

TIMEOUT = 30.0  # for one packet of the peer
TRANSFER = 1800.0
PORTS = {"https": 443, "http": 80}


def is_url(path: str) -> bool:
    return "://" in path


def parse(url: str, schemes: Sequence[str]) -> SplitResult:
    """The parts of `url`; `Unfit` for a scheme that is not in `schemes`, credentials, or no host."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Unfit(f"{url!r} is not a URL", "write https://host/path/model.skops") from None
    if parts.scheme not in schemes or parts.scheme not in PORTS:
        hint = f"allowed are {', '.join(schemes)} (setting MLPACKER__FETCH__URL_SCHEMES)"
        raise Unfit(f"a URL with {parts.scheme!r} is refused", hint, refused=True)
    if parts.username is not None or parts.password is not None:
        raise Unfit("the URL holds credentials", "what is in a PADL file ends up in logs", refused=True)
    if not parts.hostname or port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise Unfit(f"{url!r} is not a URL", "write https://host/path/model.skops")
    return parts


@contextmanager
def opened(url: str, schemes: Sequence[str], private: bool) -> Iterator[Body]:
    """The body of `url`. `private`: also from addresses that are not public."""
    parts = parse(url, schemes)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    with closing(connection):
        try:
            # the address that was looked at is the one that is connected to: no second lookup can change it
            connection.sock = _connect(host, port, private, secure=parts.scheme == "https")
            target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
            connection.request("GET", target, headers={"Host": parts.netloc})
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Unfit(f"{host}:{port}: {error}", "is the host reachable from this machine?") from None
        if answer.status != http.client.OK:
            hint = "redirects are not followed: name the final URL" if 300 <= answer.status < 400 else ""
            raise Unfit(f"{host}:{port} answered {answer.status} {answer.reason}", hint)
        yield Body(answer)


def _connect(host: str, port: int, private: bool, secure: bool) -> socket.socket:
    *others, last = _addresses(host, port, private)
    for address in others:
        with suppress(OSError):
            return _connected(address, host, port, secure)
    return _connected(last, host, port, secure)


def _connected(address: str, host: str, port: int, secure: bool) -> socket.socket:
    plain = socket.create_connection((address, port), timeout=TIMEOUT)
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain


def _addresses(host: str, port: int, private: bool) -> list[str]:
    """The addresses of `host`; `Unfit` when any of them is not public: a name that is both is no accident."""
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for text in found:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not private and (not mapped.is_global or mapped.is_multicast):
            hint = "only public hosts are allowed here (setting MLPACKER__FETCH__PRIVATE_URLS)"
            raise Unfit(f"{host} is the private address {text}", hint, refused=True)
    return found


class Body:
    """The rest of an answer; `Unfit` when it ends early or the whole transfer takes longer than `seconds`."""

    def __init__(self, answer: http.client.HTTPResponse, seconds: float = TRANSFER) -> None:
        self.answer, self.ends = answer, time.monotonic() + seconds

    def read(self, size: int) -> bytes:
        if time.monotonic() > self.ends:
            raise Unfit("the download takes too long", "use nearer storage, or a file beside the PADL")
        try:
            chunk = self.answer.read1(size)
        except (OSError, http.client.HTTPException) as error:
            raise Unfit(f"the download broke off: {error}", "try again") from None
        if not chunk and self.answer.length:
            raise Unfit(f"the download ended {self.answer.length} bytes early", "try again")
        return chunk
