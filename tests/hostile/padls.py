"""PADL documents whose author means harm: every text that a file may hold, replaced by one from a corpus or by chance.

Only what validates comes out: the rest of the product never sees anything else.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

from hypothesis import strategies as st

from packer_lib import padl
from packer_lib.errors import PadlInvalid
from packer_lib.padl.model import Pipeline

RIGHT_TO_LEFT = "\u202egpj.exe"
CORPUS = (
    "a\n RUN touch /canary",
    "a\\\nRUN id",
    "`touch /canary`",
    "$(touch /canary)",
    "${PATH}",
    "$HOME",
    "a\\",
    "a\0b",
    "a\u2028b",
    "a\u2029b",
    "\x1b]0;owned\x07",
    "a\x85b",
    RIGHT_TO_LEFT,
    "{{ 7*7 }}",
    "{% raw %}",
    "%(here)s",
    "%h",
    '"; import os #',
    "''' + x",
    "a; id",
    "a && id",
    "a | id",
    "a b",
    " a",
    "a ",
    "-v",
    "--privileged",
    "-oProxyCommand=id",
    "--upload-pack=id",
    "@/etc/passwd",
    "a=b",
    "=",
    "a,type=bind,src=/",
    "../../etc/passwd",
    "..\\..\\x",
    "%2e%2e/x",
    "/etc/passwd",
    "/proc/self/root/etc/passwd",
    "~/.ssh/id_rsa",
    "a:b",
    "user:secret@host",
    "[::1]",
    "::1",
    "0",
    "null",
    "A",
    ".",
    "..",
    "",
    "x" * 300,
    "ü",
    "漢字",
    "LD_PRELOAD",
    "DOCKER_HOST",
    "PATH",
)
"""Texts that have broken out of something: Dockerfiles, shells, Python, Jinja, INI files, terminals, options, paths."""

API: dict[str, Any] = {
    "version": "1.1",
    "id": "plant",
    "description": "d",
    "owner": "o",
    "tags": ["t"],
    "containerized": True,
    "package-mode": "api",
    "deploy-mode": "remote",
    "env": {"A": "b"},
    "registry": "mlpacker_r",
    "pipeline": {
        "clean": {
            "type": "code",
            "language": "python",
            "description": "d",
            "props": {"path": "./code", "entrypoint": "main.py", "function": "handler"},
            "queues": {"output": "find"},
            "infra": "m1",
            "env": {"C": "d"},
            "test": {"input": "i", "output": "o"},
        },
        "find": {
            "type": "model",
            "framework": "scikit-learn",
            "props": {"path": "./m.skops", "serializer": "skops"},
            "queues": {"input": "clean"},
            "infra": "m2",
            "resources": {"memory": "512m", "cpus": 1},
        },
    },
    "infra": {
        "m1": {"hostname": "edge", "sshConfig": {"user": "u", "key_file": "/k", "host_key": "SHA256:" + "a" * 43}},
        "m2": {"hostname": "cloud", "sshConfig": {"user": "u", "pass_env": "P"}},
    },
}
STREAM: dict[str, Any] = {
    **{key: value for key, value in API.items() if key not in ("pipeline", "infra")},
    "package-mode": "stream",
    "pipeline": {
        "clean": {
            **API["pipeline"]["clean"],
            "props": {"path": "https://git.example.org/x.git", "ref": "main"},
            "queues": {"input": "raw", "output": "clean-ones"},
            "on_error": "dead_letter",
            "dead_letter": "failed",
        },
        "find": {**API["pipeline"]["find"], "queues": {"input": "clean-ones", "output": "found"}},
    },
    "queues": {
        "raw": {
            "connector": "mqtt",
            "props": {"server": "broker", "topic": "raw", "username": "u", "pass_env": "P"},
        },
        "clean-ones": {"connector": "kafka", "props": {"server": "broker", "topic": "clean"}},
        "found": {"connector": "websocket", "props": {"server": "host", "port": 80, "topic": "/found"}},
        "failed": {"connector": "kafka", "props": {"server": "broker", "topic": "failed"}},
    },
    "infra": {
        "m1": {"hostname": "edge", "sshConfig": {"user": "u", "conn_id": "mlpacker_m1"}},
        "m2": {"hostname": "cloud", "sshConfig": {"user": "u", "pass": "p"}},
    },
}
BASES = (API, STREAM)

Place = tuple[str | int, ...]


def places(node: Any, here: Place = ()) -> list[Place]:
    """Where a document holds a text that is not one of a fixed set of words; keys of `env` as `(…, "env", "KEY:A")`."""
    if isinstance(node, dict):
        found = [place for key, inner in node.items() for place in places(inner, (*here, key))]
        return found + [(*here, f"KEY:{key}") for key in node if here and here[-1] == "env"]
    if isinstance(node, list):
        return [place for index, inner in enumerate(node) for place in places(inner, (*here, index))]
    return [here] if isinstance(node, str) else []


def put(document: dict[str, Any], place: Place, text: str) -> None:
    node: Any = document
    for part in place[:-1]:
        node = node[part]
    last = place[-1]
    if isinstance(last, str) and last.startswith("KEY:"):
        node[text] = "v"
    else:
        node[last] = text


def with_text(document: dict[str, Any], place: Place, text: str) -> dict[str, Any]:
    """A copy of `document` with `text` at `place`."""
    changed = copy.deepcopy(document)
    put(changed, place, text)
    return changed


@cache
def answer(base: int, place: Place, text: str) -> tuple[bool, tuple[str, ...]]:
    """Whether that document may hold that text there, and what is told of it."""
    try:
        made = pipeline(with_text(BASES[base], place, text))
    except PadlInvalid as invalid:
        return False, tuple(map(str, invalid.problems))
    return True, tuple(map(str, made.warnings))


def valid(document: dict[str, Any]) -> bool:
    try:
        pipeline(document)
    except PadlInvalid:
        return False
    return True


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A document that validates, with a hostile text at each place that takes it."""
    base = draw(st.integers(0, len(BASES) - 1))
    texts = {place: draw(st.sampled_from(CORPUS) | st.text(max_size=12)) for place in places(BASES[base])}
    taken = {place: text for place, text in texts.items() if answer(base, place, text)[0]}
    start = {**copy.deepcopy(BASES[base]), "containerized": draw(st.booleans())}
    document = start
    for place, text in taken.items():
        document = with_text(document, place, text)
    return document if valid(document) else _as_far_as_they_go_together(start, taken)


def _as_far_as_they_go_together(document: dict[str, Any], texts: dict[Place, str]) -> dict[str, Any]:
    for place, text in texts.items():
        changed = with_text(document, place, text)
        document = changed if valid(changed) else document
    return document


def pipeline(document: dict[str, Any]) -> Pipeline:
    return padl.read_text(json.dumps(document), "p.json")
