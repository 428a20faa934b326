"""A `.proto` text as a row of tokens, each with its place, and what is said of one that does not belong there.

Source: protobuf.dev, "Protocol Buffers Version 3 Language Specification", lexical elements. Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 256 << 10  # of a text; the largest of Acumos' own is 2 KiB

_TOKEN = re.compile(
    r"""
      (?P<blank>\s+ | //[^\n]* | /\*.*?\*/)
    | (?P<word>[A-Za-z_][A-Za-z_0-9]*)
    | (?P<number>0[xX][0-9a-fA-F]+(?![\w.]) | (?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<text>"(?:[^"\\\n\0]|\\.)*" | '(?:[^'\\\n\0]|\\.)*')
    | (?P<sign>[{}()\[\]<>=;,.:+-])
    """,
    re.VERBOSE | re.DOTALL,
)


class ProtoInvalid(ValueError):
    """The text is no schema that can be used: `line:column: what is wrong`."""


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is word, number, text, sign or end; `value` is as it is written, quotes included."""

    kind: str
    value: str
    line: int
    column: int

    def wrong(self, text: str) -> ProtoInvalid:
        """To be raised: `text` about this very place."""
        return ProtoInvalid(f"{self.line}:{self.column}: {text}")

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.value)


def tokens(text: str) -> list[Token]:
    """All of `text`, without blanks and comments, closed by one of kind `end`."""
    if len(text) > LONGEST:
        raise ProtoInvalid(f"the schema is longer than {LONGEST} characters")
    found: list[Token] = []
    position, line, start = 0, 1, 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        here = Token("sign", text[position : position + 1], line, position - start + 1)
        if match is None:
            unclosed = text.startswith(("/*", '"', "'"), position)
            raise here.wrong(f"{'this is not closed' if unclosed else 'this belongs to no schema'}: {here.value!r}")
        value, kind = match[0], str(match.lastgroup)
        if kind != "blank":
            found.append(Token(kind, value, here.line, here.column))
        if "\n" in value:
            line, start = line + value.count("\n"), position + value.rindex("\n") + 1
        position = match.end()
    found.append(Token("end", "", line, position - start + 1))
    return found


class Reader:
    """Goes through the tokens of `text` once, forwards."""

    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._next = 0

    @property
    def here(self) -> Token:
        """The token that comes next, which stays where it is."""
        return self._tokens[self._next]

    def take(self, kind: str, what: str) -> Token:
        """The next token, which is of `kind`; `what` is what people call it."""
        token = self.here
        if token.kind != kind:
            raise token.wrong(f"expected {what}, got {token}")
        self._next += 1
        return token

    def sign(self, value: str) -> Token:
        """The next token, which is this one."""
        if self.here.value != value:
            raise self.here.wrong(f"expected {value!r}, got {self.here}")
        return self.take(self.here.kind, value)

    def passed(self, value: str) -> bool:
        """Whether the next token is this one, which is taken then."""
        if self.here.kind in {"end", "text"} or self.here.value != value:
            return False
        self._next += 1
        return True

    def follows(self, value: str) -> bool:
        """Whether the token after the next is this one."""
        return self.here.kind != "end" and self._tokens[self._next + 1].value == value

    def name(self, what: str = "a name") -> str:
        return self.take("word", what).value

    def path(self, what: str = "a name") -> str:
        """A name with dots, perhaps one in front."""
        parts = ["." if self.passed(".") else "", self.name(what)]
        while self.passed("."):
            parts += [".", self.name()]
        return "".join(parts)

    def integer(self, least: int, most: int) -> int:
        """A whole number between the two: decimal, octal or hexadecimal."""
        minus = self.passed("-")
        token = self.take("number", "a whole number")
        digits = token.value
        try:
            octal = len(digits) > 1 and digits.isdigit() and digits.startswith("0")
            value = int(digits, 8) if octal else int(digits, 0)
        except ValueError:
            raise token.wrong(f"expected a whole number, got {token}") from None
        value = -value if minus else value
        if not least <= value <= most:
            raise token.wrong(f"expected a number from {least} to {most}, got {value}")
        return value

    def text(self) -> str:
        """A quoted text; escapes are none of a schema's needs."""
        token = self.take("text", "a quoted text")
        if "\\" in token.value:
            raise token.wrong("escapes in texts are not supported")
        return token.value[1:-1]

    def option(self) -> tuple[Token, str, Token]:
        """The place, the name and the value of one `name = value`."""
        token = self.here
        if token.value == "(":
            raise token.wrong("options of one's own are not supported: they are defined in another file")
        name = self.path("the name of an option")
        self.sign("=")
        if not self.passed("-"):
            self.passed("+")
        value = self.here
        if value.kind not in {"word", "number", "text"}:
            raise value.wrong(f"expected the value of option {name}, got {value}")
        return token, name, self.take(value.kind, "a value")
