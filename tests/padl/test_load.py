"""Text → document: limits, places, and the two syntaxes held to their standards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packer_lib import padl
from packer_lib.errors import PadlInvalid, Problem
from packer_lib.padl import json_text, yaml_text
from packer_lib.padl.document import Document, Pointer, Unreadable
from packer_lib.padl.load import load_text
from tests.padl import golden

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))
LAYOUTS = st.sampled_from([None, 1, 4, "\t"])
TOKENS = st.lists(
    st.sampled_from(
        [
            *'{}[],:"-.0123456789eE+ \n\t\\/u',
            "true",
            "false",
            "null",
            "NaN",
            '"a"',
            '"a":',
            "1.5",
            "\\n",
            "\\ud83d",
            "é",
        ]
    ),
    max_size=30,
).map("".join)
GOLDEN_TEXTS = [path.read_text(encoding="utf-8") for path in golden.VALID]


def standard(text: str) -> Any:
    """What the standard library reads; `ValueError` for what RFC 8259 has not, or we refuse on purpose."""

    def no_constant(name: str) -> Any:
        raise ValueError(name)

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("duplicate key")
        return dict(pairs)

    value = json.loads(text, parse_constant=no_constant, object_pairs_hook=no_duplicates)
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    return value


def ours(text: str) -> Any:
    document = json_text.read(text)
    if document.findings:
        raise ValueError(document.findings)
    return document.value


def outcome(read: Any, text: str) -> Any:
    try:
        return repr(read(text))
    except (ValueError, Unreadable):
        return "refused"


@given(VALUES, LAYOUTS, st.booleans())
def test_json_is_read_as_the_standard_library_reads_it(value: Any, indent: Any, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert repr(ours(text)) == repr(standard(text))


@settings(max_examples=500)
@given(TOKENS)
def test_what_json_takes_and_refuses_is_what_the_standard_library_does(text: str) -> None:
    assert outcome(ours, text) == outcome(standard, text)


@given(VALUES, LAYOUTS)
def test_every_value_of_json_is_where_its_place_says(value: Any, indent: Any) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    document = json_text.read(text)
    for pointer, found in walk(document.value):
        line, column = document.values[pointer]
        rest = "\n".join(text.split("\n")[line - 1 :])[column - 1 :]
        assert json.JSONDecoder().raw_decode(rest)[0] == found


PLAIN = st.text(st.characters(codec="ascii", min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
PLAIN_SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | PLAIN
PLAIN_VALUES = st.recursive(
    PLAIN_SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PLAIN, inner, max_size=4)
)


@given(PLAIN_VALUES, st.sampled_from([None, 2]))
def test_json_is_yaml_with_the_same_values_at_the_same_places(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    one, other = json_text.read(text), yaml_text.read(text)
    assert repr(one.value) == repr(other.value)
    assert (one.values, one.keys) == (other.values, other.keys)


def walk(value: Any, pointer: Pointer = ()) -> Iterator[tuple[Pointer, Any]]:
    yield pointer, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from walk(item, (*pointer, str(key)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("012", 12),
        ("0o14", 12),
        ("0xC", 12),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("2026-01-01", "2026-01-01"),
        ("~", None),
        ("", None),
        ("Null", None),
        ("TRUE", True),
        ("'true'", "true"),
        ('"1"', "1"),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_yaml_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    read = yaml_text.read(f"a: {text}").value["a"]
    assert (type(read), read) == (type(value), value)


@settings(max_examples=300)
@given(st.text() | TOKENS, st.sampled_from(["a.json", "a.yaml", "a.yml"]))
def test_no_text_crashes_the_reader(text: str, file: str) -> None:
    assert all(problem.file == file for problem in told(text, file))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damage_to_a_valid_file_crashes_the_reader(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(GOLDEN_TEXTS) - 1))
    text, name = GOLDEN_TEXTS[number], golden.VALID[number].name
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, min(len(text), begin + 40)))
    damaged = text[:begin] + data.draw(TOKENS | st.text(max_size=5)) + text[end:]
    assert all(problem.line >= 1 and problem.column >= 1 for problem in told(damaged, name))


def told(text: str, file: str) -> tuple[Problem, ...]:
    """The problems of a text; anything but `PadlInvalid` goes up."""
    try:
        padl.read_text(text, file)
    except PadlInvalid as invalid:
        return invalid.problems
    return ()


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_64_levels_are_read_and_65_are_refused_where_they_begin(suffix: str) -> None:
    assert refusal("[" * 64 + "]" * 64, suffix) == "expected an object of keys, got a list"
    assert refusal("[" * 65 + "]" * 65, suffix) == "nested too deeply: at most 64 levels"


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_10_000_keys_and_values_are_read_and_one_more_is_refused(suffix: str) -> None:
    assert refusal(f"[{', '.join(['1'] * 9_999)}]", suffix) == "expected an object of keys, got a list"
    assert refusal(f"[{', '.join(['1'] * 10_000)}]", suffix).startswith("too many entries")


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_one_mebibyte_is_read_and_one_byte_more_is_refused(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"large{suffix}"
    file.write_text('{"a": 1}'.ljust(1024 * 1024))
    assert "missing 'version'" in refusal_of(file)
    file.write_text('{"a": 1}'.ljust(1024 * 1024 + 1))
    assert "the file is too large: at most 1 MiB" in refusal_of(file)


def test_a_file_that_is_not_there_or_a_folder_is_a_message(tmp_path: Path) -> None:
    assert "the file cannot be read: No such file" in refusal_of(tmp_path / "none.json")
    assert "the file cannot be read: Is a directory" in refusal_of(tmp_path)


def test_a_name_without_a_known_suffix_is_a_message() -> None:
    assert refusal("{}", ".toml") == "the name does not tell the syntax: it ends in .toml"


def test_a_flood_of_problems_is_cut_and_counted() -> None:
    text = json.dumps({f"key{number}": 1 for number in range(4_000)})
    with pytest.raises(PadlInvalid) as caught:
        padl.read_text(text, "flood.json")
    assert len(caught.value.problems) == 201
    assert "more problems from here on" in str(caught.value)


def test_a_thing_is_located_by_its_pointer_or_by_what_is_around_it(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("pipeline:\n  lstm:\n    props:\n      path: ./lstm.h5\ntags: [a, b]\n")
    assert padl.locate(file, ("pipeline", "lstm", "props", "path")) == (4, 13)
    assert padl.locate(file, ("tags", "1")) == (5, 11)
    assert padl.locate(file, ("pipeline", "lstm", "props", "sha256")) == (3, 5)
    assert padl.locate(tmp_path / "gone.yaml", ("pipeline",)) == (1, 1)


def test_both_syntaxes_know_the_line_of_the_first_of_two_equal_keys() -> None:
    for name, text in (("a.json", '{"a": 1,\n "a": 2}'), ("a.yaml", "a: 1\na: 2\n")):
        document: Document = load_text(text, name)
        assert [finding.message for finding in document.findings] == ["this key is here twice; the first is at line 1"]


def refusal(text: str, suffix: str) -> str:
    with pytest.raises(PadlInvalid) as caught:
        load_text(text, f"a{suffix}")
    return caught.value.problems[0].message


def refusal_of(path: Path) -> str:
    with pytest.raises(PadlInvalid) as caught:
        padl.read(path)
    return str(caught.value)
