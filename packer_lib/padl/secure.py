"""A PADL text with literal passwords → the same text with references to Airflow connections in their place. Pure.

Comments and layout stay. What comes out is read again: but for the passwords it says what it said before.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from packer_lib.errors import MLPackerError, PadlInvalid
from packer_lib.padl.document import Pointer
from packer_lib.padl.load import load_text

# how a scalar may be written, in either syntax; which of them it is shows when the result is read again
_TOKENS = [re.compile(way) for way in (r'"(?:[^"\\]|\\.)*"', r"'(?:[^']|'')*'", r"[^\s,{}\[\]#:]+", r"[^\n#]*[^\s#]")]


@dataclass(frozen=True, slots=True)
class Moved:
    """A machine's login that is a connection now; `connection` as `airflow connections import` reads one."""

    machine: str
    conn_id: str
    connection: dict[str, Any] = field(repr=False)


def secured(text: str, file: str) -> tuple[str, tuple[Moved, ...]]:
    """`text` without its literal passwords, and the connections that have them now; nothing moved: the same text.

    `PadlInvalid` for what cannot be read; `MLPackerError` where the text is written in a way that is not found again.
    """
    value = load_text(text, file).value
    machines = value.get("infra") if isinstance(value.get("infra"), dict) else {}
    moved = tuple(_moved(str(value.get("id")), *found) for found in _logins(machines))
    wanted = _wanted(value, moved)
    for one in moved:
        here = ("infra", one.machine, "sshConfig", "pass")
        text = _replaced(text, file, here, one.conn_id, "value")
        text = _replaced(text, file, here, "conn_id", "key")
    if moved and value.get("version") == "1.0":
        text = _replaced(text, file, ("version",), "1.1", "value")
    if _value(text, file) != wanted:
        raise MLPackerError(f"{file}: a password is written in a way that cannot be replaced", "replace it by hand")
    return text, moved


def connection_id(pipeline: str, machine: str) -> str:
    """`mlpacker_<pipeline>_<machine>` where that can be nobody else's, else with a hash; also a name for a shell."""
    if all(re.fullmatch(r"[a-z0-9]+", name) for name in (pipeline, machine)):
        return f"mlpacker_{pipeline}_{machine}"
    plain = re.sub(r"[^a-z0-9]+", "_", f"{pipeline}_{machine}".lower())[:60]
    return f"mlpacker_{plain}__{hashlib.sha256(json.dumps([pipeline, machine]).encode()).hexdigest()[:12]}"


def _logins(machines: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, node in machines.items():
        login = node.get("sshConfig") if isinstance(node, dict) else None
        if isinstance(login, dict) and isinstance(login.get("pass"), str):
            yield name, {"hostname": node.get("hostname"), **login}


def _moved(pipeline: str, machine: str, login: dict[str, Any]) -> Moved:
    made = {
        "conn_type": "ssh",
        "host": login["hostname"],
        "port": login.get("port", 22),
        "login": login.get("user"),
        "password": login["pass"],
        **({"extra": json.dumps({"host_key": login["host_key"]})} if "host_key" in login else {}),
    }
    return Moved(machine, connection_id(pipeline, machine), made)


def _wanted(value: dict[str, Any], moved: tuple[Moved, ...]) -> dict[str, Any]:
    wanted = copy.deepcopy(value)
    for one in moved:
        login = wanted["infra"][one.machine]["sshConfig"]
        del login["pass"]
        login["conn_id"] = one.conn_id
        wanted["version"] = "1.1" if value.get("version") == "1.0" else value.get("version")
    return wanted


def _replaced(text: str, file: str, pointer: Pointer, new: str, on: Literal["key", "value"]) -> str:
    """`new` for the token at the pointer's place: the first way of reading it after which the file says that."""
    document = load_text(text, file)
    line, column = document.place(pointer, on)
    start = sum(len(part) + 1 for part in text.split("\n")[: line - 1]) + column - 1
    wanted = copy.deepcopy(document.value)
    *above, last = pointer
    node = wanted
    for key in above:
        node = node[key]
    node[new if on == "key" else last] = node.pop(last) if on == "key" else new
    for token in _TOKENS:
        if match := token.match(text, start):
            tried = f"{text[:start]}{json.dumps(new)}{text[match.end() :]}"
            if _value(tried, file) == wanted:
                return tried
    return text


def _value(text: str, file: str) -> Any:
    try:
        return load_text(text, file).value
    except PadlInvalid:
        return None
