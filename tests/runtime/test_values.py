"""From messages to values and back: what is isolated, what schemas say, what becomes of CloudEvents and headers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from packer_lib.runtime.chain import Column
from packer_lib.runtime.contract import Message, StepFailed
from packer_lib.runtime.events import CONTENT, STRUCTURED
from packer_lib.runtime.json_schema import JsonSchema
from packer_lib.runtime.manifest import QueueSpec, StepSpec
from packer_lib.runtime.values import Read, Reader, Writer

TRACE = {"traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": b"a=1,b=2"}
EVENT = {"specversion": "1.0", "id": "7", "source": "/plant/1", "type": "reading", "subject": "s1", "sampled": "yes"}
BINARY = {
    "kafka": {f"ce_{name}": value.encode() for name, value in EVENT.items()},
    "mqtt": {name: value.encode() for name, value in EVENT.items()},
}
WRAPPED = {CONTENT: STRUCTURED.encode()}


def queue(connector: str = "kafka", **more: Any) -> QueueSpec:
    return QueueSpec("q", connector, "broker", 1, "topic", **more)


def step(form: str = "json") -> StepSpec:
    return StepSpec("score", "code", "code", input_format=form, output_format=form)


def read(*messages: Message, form: str = "json", most: int = 1000, **more: Any) -> Read:
    return Reader(queue(**more), step(form), most).read(messages)


def column(*values: Any) -> Column:
    """Answers to the first message, by no model."""
    return Column("out", [0] * len(values), list(values), [b""] * len(values))


def answer(message: Message, value: Any, to: str = "kafka", of: str = "kafka", form: str = "json") -> Message:
    """What `value` is on a queue of `to` as the answer to `message` from one of `of`."""
    events = Reader(queue(of), step("json")).read([message]).events
    (made,) = Writer(queue(to), step(form), "plant").write_all([message], column(value), events)
    if isinstance(made, StepFailed):
        raise made
    return made


def test_each_message_that_cannot_be_read_has_its_own_reason() -> None:
    found = read(Message(b"1"), Message(b"{"), Message(b"2"), Message(b" " * 2000 + b"3"), Message(b"4"))
    assert found.values == [1, 2, 4]
    assert {place: (failed.step, failed.stage) for place, failed in found.failed.items()} == {
        1: ("score", "decode"),
        3: ("score", "decode"),
    }
    assert found.failed[1].reason.startswith("not json: unexpected end of data")
    assert found.failed[3].reason == "2001 bytes, at most 1000 are read (MLPACKER_MAX_BODY_MIB sets how much)"


# ── schema ───────────────────────────────────────────────────────────────────────────────────────────────────────────

READING = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "array", "items": {"$ref": "#/$defs/number"}, "maxItems": 3}},
    "$defs": {"number": {"type": "number", "minimum": -10}},
}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"data": [1, 2.5]}, ""),
        ({"data": [1, "x"]}, 'data[1]: "x" is not of type "number"'),
        ({"data": [1, None]}, 'data[1]: null is not of type "number"'),
        ({"data": [-11]}, "data[0]: -11 is less than the minimum of -10"),
        ({"data": [1, 2, 3, 4]}, "data: [1,2,3,4] has more than 3 items"),
        ({}, 'the message: "data" is a required property'),
        ([], 'the message: [] is not of type "object"'),
    ],
)
def test_a_message_is_held_to_the_schema_of_its_queue(value: Any, reason: str) -> None:
    found = read(Message(b'{"data":[0]}'), Message(json.dumps(value).encode()), schema=READING)
    assert found.values == [{"data": [0]}, *([] if reason else [value])]
    assert [(failed.stage, failed.reason) for failed in found.failed.values()] == (
        [("schema", reason)] if reason else []
    )


def test_what_is_quoted_of_a_message_is_cut_and_the_end_kept() -> None:
    reason = JsonSchema({"type": "number"}).fault("long\n" * 100_000)
    assert len(reason) < 310
    assert "\n" not in reason
    assert JsonSchema({"type": "object"}).fault(["x" * 1000]).endswith('"] is not of type "object"')


def test_what_json_does_not_know_does_not_fit() -> None:
    assert (
        JsonSchema({"items": {"type": "number"}}).fault([b"1"])
        == "holds what JSON Schema does not know: Unsupported type: 'bytes'"
    )
    assert "Dict key must be str" in JsonSchema({"type": "object"}).fault({1: 2})
    assert JsonSchema({"type": "number"}).fault(float("nan")) == 'the message: null is not of type "number"'


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://schemas.example.org/a.json"},
        {"$ref": "file:///etc/passwd"},
        {"properties": {"a": {"$ref": "other.json"}}},
        {"$schema": "https://example.org/own-draft", "type": "object"},
        {"$ref": "#/nowhere"},
        {"type": "nunber"},
        {"pattern": "("},
    ],
)
def test_a_schema_that_is_none_or_leads_elsewhere_is_refused_before_anything_is_read(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"queue 'q': schema: not a JSON Schema that stands alone"):
        Reader(queue(schema=schema), step())


@pytest.mark.timeout(20)
def test_neither_a_loop_of_references_nor_a_bad_pattern_holds_a_unit_up() -> None:
    assert JsonSchema({"anyOf": [{"$ref": "#"}, {"type": "string"}]}).fault("a") == ""
    assert "(a+)+" in JsonSchema({"pattern": "^(a+)+(?=$)(?!b)"}).fault("a" * 60 + "b")


@given(some.recursive(some.none() | some.booleans() | some.integers() | some.text(), lambda inner: some.lists(inner)))
def test_it_agrees_with_the_slow_validator(value: Any) -> None:
    import jsonschema

    schema = {"type": ["array", "integer"], "items": {"type": ["string", "array"]}, "maxItems": 2, "minimum": 3}
    agreed = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (JsonSchema(schema).fault(value) == "") is agreed


# ── CloudEvents ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("connector", ["kafka", "mqtt"])
def test_a_binary_event_is_answered_by_one(connector: str) -> None:
    message = Message(b"[1]", b"key", {**BINARY[connector], CONTENT: b"application/json", **TRACE, "Own-Header": b"x"})
    said = answer(message, {"score": 2}, connector, connector)
    prefix = "ce_" if connector == "kafka" else ""
    identity = said.headers[f"{prefix}id"]
    assert said.value == b'{"score":2}'
    assert said.headers == {
        **BINARY[connector],
        **TRACE,
        "Own-Header": b"x",
        f"{prefix}id": identity,
        f"{prefix}source": b"/mlpacker/plant/score",
        CONTENT: b"application/json",
    }
    assert identity != b"7"
    assert said.key == b"key"


def test_a_binary_event_goes_from_mqtt_to_kafka_under_kafkas_names() -> None:
    said = answer(Message(b"1", None, {**BINARY["mqtt"], **TRACE}), 2, "kafka", "mqtt", "csv")
    assert said.value == b"2"
    assert {name: said.headers[f"ce_{name}"] for name in ("type", "subject")} == {"type": b"reading", "subject": b"s1"}
    assert {name: said.headers[name] for name in TRACE} == TRACE
    assert said.headers[CONTENT] == b"text/csv"
    assert "subject" not in said.headers


@pytest.mark.parametrize(
    ("form", "value", "data"),
    [
        ("json", {"score": [1.5]}, {"data": {"score": [1.5]}}),
        ("csv", [1, 2], {"data": "1,2"}),
        ("raw", b"\x00\xff", {"data_base64": base64.b64encode(b"\x00\xff").decode()}),
    ],
)
def test_a_structured_event_is_answered_by_one(form: str, value: Any, data: dict[str, Any]) -> None:
    asked = {**EVENT, "data": [1], "datacontenttype": "text/x", "dataschema": "http://x", "count": 3, "flag": True}
    message = Message(json.dumps(asked).encode(), None, {CONTENT: b"application/cloudevents+json; charset=utf-8"})
    assert read(message).values == [[1]]
    said = answer(message, value, form=form)
    envelope = json.loads(said.value)
    media = {"json": "application/json", "csv": "text/csv", "raw": "application/octet-stream"}[form]
    own = {"id": envelope["id"], "source": "/mlpacker/plant/score", "datacontenttype": media, "count": 3, "flag": True}
    assert envelope == {**EVENT, **own, **data}
    assert said.headers == WRAPPED


@pytest.mark.parametrize(
    ("form", "data", "value"),
    [
        ("json", {"data": None}, None),
        ("json", {}, None),
        ("json", {"data": "text"}, "text"),
        ("json", {"data_base64": base64.b64encode(b"[1]").decode()}, [1]),
        ("csv", {"data": "1,2"}, [1, 2]),
        ("raw", {"data": "text"}, b"text"),
        ("msgpack", {"data_base64": base64.b64encode(b"\x91\x01").decode()}, [1]),
    ],
)
def test_the_data_of_a_structured_event_is_read_in_the_steps_format(form: str, data: Any, value: Any) -> None:
    found = read(Message(b"{}"), Message(json.dumps({**EVENT, **data}).encode(), None, WRAPPED), form="raw")
    assert found.values[0] == b"{}"
    assert read(Message(json.dumps({**EVENT, **data}).encode(), None, WRAPPED), form=form).values == [value]


def test_an_event_to_where_there_are_no_headers_is_structured_and_has_its_trace_in_it() -> None:
    said = answer(Message(b"1", None, {**BINARY["kafka"], **TRACE}), 2, "websocket")
    envelope = json.loads(said.value)
    assert (envelope["data"], envelope["type"]) == (2, "reading")
    assert {name: envelope[name].encode() for name in TRACE} == TRACE
    back = answer(Message(said.value), 3, "kafka", "websocket")
    assert {name: back.headers[name] for name in TRACE} == TRACE


def test_without_headers_only_what_has_all_of_an_event_is_one() -> None:
    whole, half = json.dumps({**EVENT, "data": 1}).encode(), b'{"specversion":"1.0","data":1}'
    found = read(Message(whole), Message(half), Message(b"2"), connector="websocket")
    assert found.values == [1, json.loads(half), 2]
    assert list(found.events) == [0]
    assert read(Message(whole), connector="kafka").events == {}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message(b"1", None, {"ce_specversion": b"1.0", "ce_id": b"1"}), "the event has no 'source'"),
        (
            Message(b"1", None, {**BINARY["kafka"], "ce_specversion": b"0.3"}),
            "the event is of CloudEvents '0.3', 1.0 is",
        ),
        (Message(b"1", None, {**BINARY["kafka"], "ce_subject": b"\xff"}), "'utf-8' codec can't decode"),
        (Message(b"1", None, {**BINARY["kafka"], "ce_subject": b"a\0"}), "its 'subject' is longer than 8192 char"),
        (Message(b"1", None, {**BINARY["kafka"], "ce_subject": b"a" * 9000}), "its 'subject' is longer than 8192 char"),
        (Message(b"[]", None, WRAPPED), "a structured event is a JSON object"),
        (Message(b"{", None, WRAPPED), "unexpected end of data"),
        (Message(json.dumps({**EVENT, "data_base64": "-"}).encode(), None, WRAPPED), ""),
        (Message(json.dumps({**EVENT, "data_base64": 5}).encode(), None, WRAPPED), ""),
    ],
)
def test_half_an_event_fails_alone_and_says_why(message: Message, reason: str) -> None:
    found = read(Message(b"1"), message, Message(b"2"))
    assert found.values == [1, 2]
    assert found.failed[1].stage == "decode"
    assert found.failed[1].reason.startswith(f"not a CloudEvent: {reason}")


def test_an_event_that_comes_again_is_answered_by_the_same_event_again() -> None:
    message = Message(b"1", None, BINARY["kafka"])
    assert answer(message, 1).headers["ce_id"] == answer(message, 1).headers["ce_id"]
    other = Message(b"1", None, {**BINARY["kafka"], "ce_source": b"/plant/2"})
    assert answer(message, 1).headers["ce_id"] != answer(other, 1).headers["ce_id"]
    events = Reader(queue(), step()).read([message]).events
    several = Writer(queue(), step(), "plant").write_all([message], column(1, 1, 1), events)
    assert len({made.headers["ce_id"] for made in several}) == 3


def test_a_schema_is_about_the_data_of_an_event() -> None:
    message = Message(json.dumps({**EVENT, "data": {"data": ["x"]}}).encode(), None, WRAPPED)
    assert read(message, schema=READING).failed[0].reason == 'data[0]: "x" is not of type "number"'


NAMES = some.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20)
TEXTS = some.text(some.characters(exclude_categories=("Cs", "Cc")))
RESERVED = {"data", "datacontenttype", "dataschema", "traceparent", "tracestate", *EVENT}


@given(
    some.dictionaries(NAMES.filter(lambda name: name not in RESERVED), TEXTS),
    some.sampled_from(["kafka", "mqtt"]),
)
def test_every_attribute_goes_round_through_both_modes(extra: dict[str, str], connector: str) -> None:
    asked = {**EVENT, **extra}
    prefix = "ce_" if connector == "kafka" else ""
    binary = Message(b"1", None, {prefix + name: value.encode() for name, value in asked.items()})
    structured = answer(binary, 1, "websocket", connector)
    event = Reader(queue("websocket"), step()).read([Message(structured.value)]).events[0]
    assert {**event.attributes, "id": "7", "source": "/plant/1"} == asked


# ── headers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_headers_travel_on_and_a_content_type_is_that_of_the_answer() -> None:
    message = Message(b"1", b"k", {**TRACE, CONTENT: b"text/plain", "a": b"1"})
    said = answer(message, [1, 2], form="csv")
    assert said.headers == {**TRACE, CONTENT: b"text/csv", "a": b"1"}
    assert message.headers[CONTENT] == b"text/plain"
    assert CONTENT not in answer(Message(b"1", None, dict(TRACE)), 1).headers


def test_what_cannot_be_said_is_a_failure_of_the_writing_step() -> None:
    with pytest.raises(StepFailed, match="step 'score', encode: not to be said in json: Type is not JSON") as caught:
        answer(Message(b"1"), object())
    assert caught.value.stage == "encode"
