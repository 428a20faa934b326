"""What people get wrong, as data: files, and what `mlpacker` is to say of each."""

from __future__ import annotations

import json
from dataclasses import dataclass

REST = """\
version: "1.1"
id: calc
containerized: false
package-mode: api
deploy-mode: local
pipeline:
  root:
    type: code
    language: python
    props: {path: ./code}
    test: {input: 9, output: 3}
"""
MODEL = """\
version: "1.1"
id: calc
containerized: false
package-mode: api
deploy-mode: local
pipeline:
  model:
    type: model
    framework: scikit-learn
    props:
      path: ./model.pickle
      serializer: pickle
"""
STREAM = """\
version: "1.1"
id: flow
containerized: false
package-mode: stream
deploy-mode: local
pipeline:
  root:
    type: code
    language: python
    props: {path: ./code}
    queues: {input: raw, output: roots}
queues:
  raw: {connector: mqtt, props: {server: 127.0.0.1, port: PORT, topic: raw}}
  roots: {connector: mqtt, props: {server: 127.0.0.1, port: PORT, topic: roots}}
"""
OLD = {
    "version": "1.0",
    "id": "calc",
    "containerized": False,
    "package-mode": "api",
    "deploy-mode": "local",
    "schedule": "@daily",
    "pipeline": {"root": {"type": "code", "language": "python", "props": {"path": "./code"}, "replicas": 1}},
}
HANDLER = """\
import math

def handler(value):
    return math.sqrt(value)
"""
NEVER_READY = """\
import sys, time

if "--check" not in sys.argv:
    time.sleep(600)

def handler(value):
    return value ** 0.5
"""
BRACKETS = "[" * 51_200 + "]" * 51_200
BOMB = "a: &a [x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{former}'] * 9)}]\n" for former, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def code_at(path: str, **props: str) -> str:
    """`REST` with another path, which may be hostile, and further props."""
    return REST.replace("{path: ./code}", json.dumps({"path": path, **props}))


@dataclass(frozen=True)
class Said:
    """What `mlpacker` says of `text` in the file `name`: exit code, `line:column`, and words in the one message."""

    name: str
    text: str
    place: str
    words: tuple[str, ...]
    code: int = 3


# What is seen without building anything. `code` is a folder with a main.py, `model.pickle` a pickle.
REFUSED = {
    "half-written JSON": Said(
        "p.json", json.dumps(OLD, indent=1)[:180], "11:2", ("ends inside", "still being written")
    ),
    "half-written YAML": Said("p.yaml", REST[:160], "11:1", ("not YAML", "still being written")),
    "100 KB of brackets in JSON": Said("p.json", BRACKETS, "1:65", ("nested too deeply: at most 64 levels",)),
    "100 KB of brackets in YAML": Said("p.yaml", BRACKETS, "1:65", ("nested too deeply: at most 64 levels",)),
    "brackets inside a value": Said("p.yaml", f"id: {BRACKETS}", "1:68", ("nested too deeply: at most 64 levels",)),
    "alias bomb": Said("p.yaml", BOMB, "1:4", ("anchors are not allowed: &a", "write the value out")),
    "a key twice in YAML": Said("p.yaml", f"{REST}id: other\n", "12:1", ("id: this key is here twice", "at line 2")),
    "a key twice in JSON": Said(
        "p.json",
        json.dumps({**OLD, "schedule": "x"}).replace('"schedule": "x"', '"id": "b"').replace("1.0", "1.1"),
        "1:105",
        ("id: this key is here twice", "at line 1"),
    ),
    "a key of 1.1 in 1.0": Said(
        "p.yaml",
        REST.replace("1.1", "1.0").replace("    test:", "    port: 8080 #"),
        "11:5",
        ('needs "version": "1.1"',),
    ),
    "options as a path": Said(
        "p.yaml", code_at("--upload-pack=touch canary"), "10:21", ("root.props.path: the path begins with '-'", "./")
    ),
    "options as a path on a host": Said(
        "p.yaml", code_at("git@git.example.org:--upload-pack=touch"), "10:21", ("begins with '-'", "git@host:path")
    ),
    "options as a host": Said(
        "p.yaml", code_at("ssh://-oProxyCommand=touch/x"), "10:21", ("begins with '-'", "https://host/path")
    ),
    "options after a URL": Said(
        "p.yaml", code_at("https://git.example.org/x --upload-pack=touch"), "10:21", ("white space", "%20")
    ),
    "a command as a URL": Said("p.yaml", code_at("ext::sh -c touch% canary"), "10:21", ("remote helpers", "https")),
    "options as a ref": Said(
        "p.yaml",
        code_at("https://git.example.org/x", ref="--upload-pack=touch"),
        "10:57",
        ("root.props.ref: expected a commit, tag or branch",),
    ),
    "a protocol that is not allowed": Said(
        "p.yaml", code_at("file:///srv/x"), "10:21", ("git over 'file' is refused", "MLPACKER__FETCH__GIT_PROTOCOLS"), 4
    ),
    "no model file": Said(
        "p.yaml", MODEL.replace("model.pickle", "none.pickle"), "11:13", ("there is no './none.pickle'", "relative to")
    ),
    "another serializer": Said(
        "p.yaml",
        MODEL.replace("serializer: pickle", "serializer: skops"),
        "12:19",
        ("is no skops file", "set serializer"),
    ),
    "no entry file": Said(
        "p.yaml",
        code_at("./code", entrypoint="mian.py"),
        "10:45",
        ("has no 'mian.py' (there is main.py)", "entrypoint"),
    ),
}
# What is seen when the unit is loaded and asked, before anything is switched: the code's text, or the model's bytes.
UNUSABLE: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "no handler": ("def handel(value):\n    return value\n", ("has no function 'handler'", "did you mean 'handel'?")),
    "a handler that takes nothing": ("def handler():\n    return 1\n", ("'handler' takes ()", "called with one value")),
    "code that fails to import": ("import nowhere\n", ("No module named 'nowhere' (main.py:1)", "requirements.txt")),
    "code that is not Python": ("def handler(value:\n", ("SyntaxError", "main.py:1")),
    "a handler that raises": (
        "def handler(value):\n    raise ValueError(f'no root of {value}')\n",
        ("golden request: handle: ValueError: no root of 9 (main.py:2)",),
    ),
    "another answer": ("def handler(value):\n    return value\n", ("golden request: expected 3, got 9",)),
    "a model that does not load": (
        b"\x80\x04half a pickle",
        ("model.pickle: the model is damaged", "save the model again"),
    ),
}
