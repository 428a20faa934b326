"""The parts of a `multipart/form-data` body: one that is in memory already, or piece by piece as it comes.

Source: RFC 7578. Parsed by python-multipart, whose own form classes write temporary files and are not used here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

PARTS = 8
HEADERS, HEADER_BYTES = 8, 4096


class BadForm(ValueError):
    """The body is no form, or one that is over a limit."""


@dataclass(slots=True)
class Part:
    """`kind` is its content type, in lower case and without parameters; "" when it names none."""

    name: str = ""
    kind: str = ""
    data: bytes = b""


@dataclass(slots=True)
class Reading:
    """What the parser has told so far."""

    parts: dict[str, Part] = field(default_factory=dict)
    part: Part = field(default_factory=Part)
    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    chunks: list[bytes] = field(default_factory=list)
    count: int = 0
    complete: bool = False
    most: int | None = None  # bytes of data in memory
    size: int = 0
    sinks: Mapping[str, Callable[[bytes], None]] = field(default_factory=dict)

    def begin(self) -> None:
        self.count += 1
        if self.count > PARTS:
            raise BadForm(f"the form has more than {PARTS} parts")
        self.part, self.chunks = Part(), []

    def header_done(self) -> None:
        name = bytes(self.header).lower()
        if name == b"content-disposition":
            kind, options = parse_options_header(bytes(self.value))
            if kind.strip() != b"form-data" or b"name" not in options:
                raise BadForm("a part has no name: Content-Disposition is not form-data; name=…")
            self.part.name = options[b"name"].decode("latin-1")
        elif name == b"content-type":
            self.part.kind = bytes(self.value).partition(b";")[0].strip().lower().decode("latin-1")
        elif name == b"content-transfer-encoding" and bytes(self.value).lower() not in {b"binary", b"8bit", b"7bit"}:
            raise BadForm("a part has a Content-Transfer-Encoding; send it as it is")
        self.header.clear()
        self.value.clear()

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.part.name in self.sinks and self.part.name not in self.parts:
            self.sinks[self.part.name](data[start:end])
            return
        self.size += end - start
        if self.most is not None and self.size > self.most:
            raise BadForm(f"the form has more than {self.most} bytes beside its files")
        self.chunks.append(data[start:end])

    def end(self) -> None:
        self.part.data = b"".join(self.chunks)
        if not self.part.name:
            raise BadForm("a part has no name")
        if self.part.name in self.parts:
            raise BadForm(f"the part {self.part.name!r} is there twice")
        self.parts[self.part.name] = self.part

    def finish(self) -> None:
        self.complete = True


class Form:
    """A form that comes in pieces: `write` each of them, and then `parts` are there, all but `most` bytes of them in
    `sinks`, by name: the data of those parts goes there and nowhere else. `BadForm` when it ends early, or has a name
    twice, or too many parts or headers."""

    def __init__(
        self, content_type: bytes, most: int | None = None, sinks: Mapping[str, Callable[[bytes], None]] | None = None
    ) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise BadForm("the Content-Type names no boundary")
        self._reading = Reading(most=most, sinks=sinks or {})
        with _as_bad_form():
            self._parser = _parser(boundary, self._reading)

    def write(self, data: bytes) -> None:
        with _as_bad_form():
            self._parser.write(data)

    def parts(self) -> dict[str, Part]:
        if not self._reading.complete:
            raise BadForm("the form ends before its closing boundary")
        return self._reading.parts


def parts(body: bytes, content_type: bytes) -> dict[str, Part]:
    """By name, see `Form`."""
    form = Form(content_type)
    form.write(body)
    return form.parts()


def _parser(boundary: bytes, reading: Reading) -> MultipartParser:
    return MultipartParser(
        boundary,
        {
            "on_part_begin": reading.begin,
            "on_header_field": lambda data, start, end: reading.header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: reading.value.extend(data[start:end]),
            "on_header_end": reading.header_done,
            "on_part_data": reading.data,
            "on_part_end": reading.end,
            "on_end": reading.finish,
        },
        max_header_count=HEADERS,
        max_header_size=HEADER_BYTES,
    )


@contextmanager
def _as_bad_form() -> Iterator[None]:
    try:
        yield
    except FormParserError as error:
        raise BadForm(f"the body is not multipart/form-data: {error}") from None
