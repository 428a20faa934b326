"""docs/padl-reference.md, written from the published schemas.

python -m packer_lib.padl.reference > docs/padl-reference.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from packer_lib.padl import schema

_HEAD = """# PADL reference

<!-- Written by `python -m packer_lib.padl.reference` from padl_schemas/; a test holds it to them. -->

PADL (Analytical Pipeline Definition and Deployment Language) describes one pipeline in one file, in JSON or YAML.
Version `"1.0"` is the paper's language; a key marked **1.1** needs `"version": "1.1"`. An unknown key is an error.
`mlpacker validate FILE` reports every problem of a file at once, with line and column.

A file is UTF-8 text of at most 1 MiB, 64 levels and 10 000 keys and values. YAML has the scalars of YAML 1.2 (`no` is
text) and neither anchors nor tags; a key that is there twice is an error in both syntaxes. For completion and checks
while you type, name the schema: `"$schema"` in JSON, `# yaml-language-server: $schema=…` in YAML.
"""

_RULES = """## Rules between the parts

- `queues.input` and `queues.output` hold the id of a queue or the name of a neighbouring step. A name that is both is
  an error. A link between two steps is named at both ends.
- Steps that are linked directly and on one machine are one **unit**: one process. A stream pipeline joins machines by
  queues; an API pipeline calls the unit on the next machine over HTTP.
- Every step of a stream pipeline reads and writes something. An API pipeline has no queues; its steps are one line, and
  more than one of them need links, for their order is never guessed from the file.
- Nothing leads back to itself: no loop of links, of queues, or of one topic under two ids.
- `deploy-mode` `remote` needs `infra` for every step. With `local` everything runs here; machines then only tell which
  steps share a process.
- Steps of one unit agree on `port`, `replicas` and `resources`; a machine gives a port to one unit.
- A machine has one id: two with the same host, port and user are an error.
- In a container `localhost` is the container: a broker on the machine itself is `host.docker.internal`.
- `registry`, `resources` and `install` are for containers, `link` for API pipelines of several units, `admin` and `key`
  for API pipelines; elsewhere each is a warning.
- `admin` and `key` have their secret by reference only, one each: a variable or a connection. The admin ports of a
  pipeline's units on one machine follow each other; none is the `port` of a step there.
- `dead_letter` and `"on_error": "dead_letter"` need each other.
- A model's `path` is relative to the PADL file, absolute under a root that this installation allows, or a URL of an
  allowed scheme. Code is a git repository or a folder beside the file. Nothing outside is read.
- A machine has at most one of `conn_id`, `key_file`, `pass_env` and `pass`; without any, the SSH agent and the keys of
  whoever deploys are asked. A literal `pass` works and warns, unless this installation refuses it.
- A queue or machine that no step uses is a warning.
- The `schema` of a queue is JSON Schema of draft 4 to 2020-12 (without `$schema`: 2020-12), in the file or in a JSON or
  YAML file beside it. It stands alone: a `$ref` begins with `#`, and nothing is fetched. It is about the values that
  the step's `input_format` makes of messages, of a CloudEvent about its data; with `raw` there are none.
"""

_SECTIONS = (
    ("The file", "", ""),
    ("A step", "step", "One entry of `pipeline`, under its name: small letters, digits, `_` and `-`, at most 63."),
    ("Props of a model step", "modelProps", ""),
    ("Props of a code step", "codeProps", ""),
    ("A queue", "queue", "One entry of `queues`, under its id."),
    ("Props of a queue", "queueProps", ""),
    ("A machine", "machine", "One entry of `infra`, under its id."),
)


def page() -> str:
    """The whole page."""
    root = schema.schema(schema.LATEST)
    parts = [_HEAD]
    for title, name, text in _SECTIONS:
        node = root["definitions"][name] if name else root
        parts.append(f"## {title}\n\n{text + chr(10) * 2 if text else ''}{_table(node)}")
    return "\n".join([*parts, _settings(root), _RULES])


def _table(node: dict[str, Any]) -> str:
    head = "| key | | what it is | for example |\n|---|---|---|---|\n"
    return head + "".join(_row(*entry) for entry in _keys(node, ""))


def _keys(node: dict[str, Any], above: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Each key with its dotted path, and whether it is required. Keys that are there to be refused are left out."""
    for name, key in node.get("properties", {}).items():
        if "not" not in key:
            yield above + name, key, name in node.get("required", ())
            yield from _keys(key, f"{above}{name}.")


def _row(path: str, key: dict[str, Any], required: bool) -> str:
    notes = [_kind(key), "**required**" if required else "", f"**{key['since']}**" if "since" in key else ""]
    if "default" in key:
        notes.append(f"default `{_code(key['default'])}`")
    shown = " or ".join(f"`{_code(example)}`" for example in key["examples"])
    return f"| `{path}` | {', '.join(note for note in notes if note)} | {key['description']} | {shown} |\n"


def _kind(key: dict[str, Any]) -> str:
    if "$ref" in json.dumps(key.get("allOf", "")):
        return "object"
    if "enum" in key:
        return " ".join(f"`{_code(value)}`" for value in key["enum"])
    kinds = key.get("type", "any value")
    words = " or ".join("list" if kind == "array" else kind for kind in ([kinds] if isinstance(kinds, str) else kinds))
    bounds = [key[name] for name in ("minimum", "maximum") if name in key]
    return f"{words} {bounds[0]} to {bounds[1]}" if len(bounds) == 2 else words


def _code(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("|", "\\|")


def _settings(root: dict[str, Any]) -> str:
    """The settings that `config` takes, for each connector that has a list of them."""
    parts = []
    for rule in root["definitions"]["queue"]["allOf"]:
        name = rule["if"]["properties"]["connector"]["const"]
        config = rule["then"]["properties"]["props"]["properties"].get("config", {})
        if "properties" in config:
            parts.append(f"## `config` of a queue of {name}\n\n{_table(config)}")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
