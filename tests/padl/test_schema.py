"""The published schemas: complete for editors and the reference, and one with the runtime's own tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator

from packer_lib import padl
from packer_lib.errors import PadlInvalid
from packer_lib.padl import reference
from packer_lib.runtime import catalogue
from tests.padl import golden
from tests.support import ROOT

SCHEMAS = {version: json.loads(padl.schema_text(version)) for version in ("1.0", "1.1")}


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        yield path, node
        for key, inner in node.items():
            yield from nodes(inner, f"{path}/{key}")
    if isinstance(node, list):
        for index, inner in enumerate(node):
            yield from nodes(inner, f"{path}/{index}")


def keys(version: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every described key; what only narrows or refuses a key inside `then` or `if` has its description elsewhere."""
    for path, node in nodes(SCHEMAS[version]):
        described = "since" in node or not re.search(r"/(then|if)/", path)
        if re.search(r"/properties/[^/]+$", path) and "/examples/" not in path and "not" not in node and described:
            yield path, node


@pytest.mark.parametrize("version", SCHEMAS)
def test_a_schema_is_draft_07_which_editors_read(version: str) -> None:
    Draft7Validator.check_schema(SCHEMAS[version])


@pytest.mark.parametrize("version", SCHEMAS)
def test_every_key_has_a_title_a_description_and_examples_that_are_valid(version: str) -> None:
    assert len(list(keys(version))) > 30
    for path, node in keys(version):
        assert node.get("title"), path
        assert node.get("description"), path
        assert node.get("examples"), path
        root = {**node, "definitions": SCHEMAS[version]["definitions"]}
        for example in node["examples"]:
            assert not list(Draft7Validator(root).iter_errors(example)), (path, example)


@pytest.mark.parametrize("version", SCHEMAS)
def test_patterns_mean_the_same_in_python_and_in_editors_and_say_what_they_want(version: str) -> None:
    for path, node in nodes(SCHEMAS[version]):
        if isinstance(node.get("pattern"), str):
            assert node["patternErrorMessage"], path
            assert not re.search(r"\\[AZbdwD]|\(\?P|\(\?[aimsux]", node["pattern"]), path
            assert re.fullmatch(r"\^.*\$", node["pattern"]), path


def test_the_paper_s_version_has_no_key_of_the_later_one() -> None:
    assert not [path for path, node in nodes(SCHEMAS["1.0"]) if "since" in node]
    newer = {path for path, node in keys("1.1") if "since" not in node}
    assert newer == {path for path, _ in keys("1.0")}


@pytest.mark.parametrize("path", [path for path in golden.VALID if "1.0" in path.parent.name], ids=str)
def test_a_file_of_1_0_is_a_file_of_1_1_with_the_same_steps(path: Any) -> None:
    text = path.read_text(encoding="utf-8")
    old, new = padl.read_text(text, path.name), padl.read_text(text.replace('"1.0"', '"1.1"'), path.name)
    assert (old.steps, old.queues, old.machines) == (new.steps, new.queues, new.machines)


def test_frameworks_serializers_and_connectors_are_those_of_the_runtime() -> None:
    definitions = SCHEMAS["1.1"]["definitions"]
    frameworks = set(definitions["step"]["properties"]["framework"]["enum"])
    assert frameworks - {"sklearn"} == set(catalogue.FRAMEWORKS)
    for rule in definitions["step"]["allOf"][2:]:
        named = rule["if"]["properties"]["framework"]
        name = named.get("const") or named["enum"][0]
        serializers = rule["then"]["properties"]["props"]["properties"]["serializer"]["enum"]
        assert tuple(serializers) == catalogue.FRAMEWORKS[name].serializers
    connectors = set(definitions["queue"]["properties"]["connector"]["enum"])
    assert connectors == set(catalogue.CONNECTORS) - {"memory"}, "memory joins steps of a test, never processes"


def test_an_unknown_version_of_the_schema_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        padl.schema_text("../../etc/passwd")


@pytest.mark.parametrize(
    "setting",
    [
        "plugin.library.paths",
        "sasl.kerberos.kinit.cmd",
        "sasl.kerberos.keytab",
        "sasl.password",
        "sasl.oauthbearer.assertion.private.key.file",
        "ssl.key.location",
        "ssl.ca.location",
        "ssl.engine.location",
        "ssl.providers",
        "https.ca.location",
        "enable.ssl.certificate.verification",
        "bootstrap.servers",
        "group.id",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "acks",
        "transactional.id",
        "error_cb",
        "linger.ms\n",
    ],
)
def test_a_kafka_setting_that_loads_reads_leaks_or_breaks_a_guarantee_is_refused(setting: str) -> None:
    with pytest.raises(PadlInvalid, match="expected a client setting that PADL may give"):
        padl.read_text(with_kafka_config({setting: "x"}), "p.json")


@pytest.mark.parametrize("setting", ["linger.ms", "fetch.min.bytes", "auto.offset.reset", "compression.type"])
def test_a_kafka_setting_that_tunes_is_taken(setting: str) -> None:
    queue = padl.read_text(with_kafka_config({setting: "1"}), "p.json").queues[1]
    assert queue.options["config"] == {setting: "1"}


def with_kafka_config(config: dict[str, str]) -> str:
    return json.dumps(
        {
            "version": "1.1",
            "id": "p",
            "containerized": False,
            "package-mode": "stream",
            "deploy-mode": "local",
            "pipeline": {
                "s": {
                    "type": "code",
                    "language": "python",
                    "props": {"path": "./s"},
                    "queues": {"input": "a", "output": "b"},
                }
            },
            "queues": {
                "a": {"connector": "mqtt", "props": {"server": "localhost", "topic": "a"}},
                "b": {"connector": "kafka", "props": {"server": "localhost", "topic": "b", "config": config}},
            },
        }
    )


def test_the_reference_page_is_current() -> None:
    committed = (ROOT / "docs" / "padl-reference.md").read_text(encoding="utf-8")
    assert committed == reference.page(), "run python -m packer_lib.padl.reference > docs/padl-reference.md"


def test_the_reference_page_names_every_key() -> None:
    page = reference.page()
    for path, _ in keys("1.1"):
        assert re.search(rf"^\| `(?:[a-zA-Z_]+\.)*{re.escape(path.rsplit('/', 1)[1])}` \|", page, re.MULTILINE), path
