"""Schemas and messages of the model-runner routes: against protoc, protobuf's own descriptors and JSON, and by hand."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from packer_lib.runtime.modelrunner import csv_rows, predictions
from packer_lib.runtime.modelrunner.instances import instance, rows
from packer_lib.runtime.modelrunner.multipart import BadForm, parts
from packer_lib.runtime.modelrunner.names import SCALARS
from packer_lib.runtime.modelrunner.schema import DEFAULT, ProtoInvalid, schema
from packer_lib.runtime.modelrunner.syntax import parse
from packer_lib.runtime.modelrunner.tokens import LONGEST
from packer_lib.runtime.modelrunner.unfit import Unfit

PROTOS = sorted((Path(__file__).parent / "protos").glob("*.proto"))
HEAD = 'syntax = "proto3";\n'
SERVICE = "service S { rpc go (A) returns (A); }"


def kind(body: str, name: str = "A") -> Any:
    """The class of message `name` of a schema."""
    found = schema(f"{HEAD}{body} service S {{ rpc go ({name}) returns ({name}); }}")
    return found.operations["go"].takes


def plainly(message: DescriptorProto) -> None:
    for field in message.field:
        if field.json_name != "otherName":
            field.ClearField("json_name")
    for inner in message.nested_type:
        plainly(inner)


@pytest.mark.parametrize("path", PROTOS, ids=lambda path: path.stem)
class TestAgainstProtoc:
    def test_the_descriptors_are_protocs(self, path: Path) -> None:
        (expected,) = FileDescriptorSet.FromString(path.with_suffix(".set").read_bytes()).file
        found = parse(path.read_text())
        for file in (expected, found):
            file.name = ""
            file.ClearField("options")  # of Java and the like
            for item in (*file.enum_type, *file.service):
                if not (item.DESCRIPTOR.name == "EnumDescriptorProto" and item.options.allow_alias):
                    item.ClearField("options")
            for method in (method for service in file.service for method in service.method):
                method.ClearField("options")
            for field in (field for message in file.message_type for field in message.field):
                field.options.ClearField("deprecated")
                if not field.options.HasField("packed"):
                    field.ClearField("options")
            for value in (value for enum in file.enum_type for value in enum.value):
                value.ClearField("options")
            for message in file.message_type:
                plainly(message)
        assert found == expected

    def test_the_bytes_are_protocs(self, path: Path) -> None:
        text = path.with_suffix(".txt").read_text()
        pool = DescriptorPool()
        pool.AddSerializedFile(parse(path.read_text()).SerializeToString())
        made = GetMessageClass(pool.FindMessageTypeByName(text.splitlines()[0].removeprefix("# ")))()
        text_format.Parse(text, made)
        assert made.SerializeToString(deterministic=True) == path.with_suffix(".bin").read_bytes()


BAD = [
    ("", '1:1: expected syntax = "proto3";, got the end'),
    ("garbage", "1:1: expected syntax"),
    ('syntax = "proto2";', '1:10: only "proto3" is supported'),
    ('edition = "2023";', "1:1: expected syntax"),
    (HEAD + 'import "other.proto";', "2:1: import is not supported"),
    (HEAD + 'import public "/etc/passwd";', "2:1: import is not supported"),
    (HEAD + 'option (my.file) = "x";', "2:8: options of one's own are not supported"),
    (HEAD + "message A { int32 x 1; }", "2:21: expected '=', got '1'"),
    (HEAD + "message A { int32 x = 1 }", "2:25: expected ';', got '}'"),
    (HEAD + "message A { int32 x = 1;", "expected a type, got the end"),
    (HEAD + "message A { Missing x = 1; }", "2:13: there is no type 'Missing'; this schema has A"),
    (HEAD + "message A { map<string, int32> x = 1; }", "2:13: map is not supported"),
    (HEAD + "message A { required int32 x = 1; }", "2:13: required is of proto2"),
    (HEAD + "message A { extensions 4 to 5; }", "2:13: extensions are of proto2"),
    (HEAD + "message A { int32 x = 0; }", "2:23: expected a number from 1 to"),
    (HEAD + "message A { int32 x = 19500; }", "19000 to 19999 are reserved"),
    (HEAD + "message A { int32 x = 1.5; }", "expected a whole number"),
    (HEAD + "message A { int32 x = 1 [default = 3]; }", "a field has no option default"),
    (HEAD + "message A { reserved 2; int32 x = 2; }", "A.x = 2 is reserved"),
    (HEAD + "message A { oneof b { repeated int32 x = 1; } }", "repeated has no place in a oneof"),
    (HEAD + "message A {} service S { rpc go (stream A) returns (A); }", "streams are not supported"),
    (HEAD + "enum E { A = 0; } message A1 {} service S { rpc go (E) returns (A1); }", "E is an enum"),
    (HEAD + "enum E { A = 1; }", "the first value of enum E must be 0"),
    (HEAD + "message A { int32 x = 1; int32 x = 2; }" + SERVICE, "duplicate field name"),
    (HEAD + "message A { int32 x = 1; int32 y = 1; }" + SERVICE, "duplicate field number"),
    (HEAD + "message A {} message A {}" + SERVICE, "duplicate symbol"),
    (HEAD + "message A {}", "there is no operation"),
    (HEAD + "message A {} service S { }", "there is no operation"),
    (HEAD + "message A {}" + SERVICE + SERVICE.replace("S", "T"), "the rpc go is there twice"),
    (HEAD + "message é {}", "2:9: this belongs to no schema"),
    (HEAD + "/* never closed", "this is not closed"),
    (HEAD + "message A {" * 1000, "nested deeper than 32"),
    (HEAD + "//" + "x" * LONGEST, "longer than"),
    (HEAD + "".join(f"message M{number} {{}}" for number in range(2001)), "more than 2000"),
]


@pytest.mark.parametrize(("text", "said"), BAD)
def test_what_is_wrong_with_a_schema_is_said(text: str, said: str) -> None:
    with pytest.raises(ProtoInvalid) as raised:
        schema(text)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "message A { " + "".join(f"optional int32 a{n}={n + 1};" for n in range(1999)) + "} " + SERVICE,
        "message A { " + "optional int32 a=1;" * 12_000,
        "message A { reserved " + ",".join(["1"] * 1999) + ";" + "int32 a=2;" * 2000 + "} " + SERVICE,
        "message A { reserved " + "1," * 120_000,
        "package " + "a." * 60_000 + "a; message A { " + "A a=1;" * 1999 + "} " + SERVICE,
        "message A {} service S {" + "".join(f"rpc a{n}(A)returns(A);" for n in range(1999)) + "}",
        "message A {} service S {" + "rpc a(A)returns(A);" * 9000 + "}",
        "".join(f"message A{n}{{A{n} a=1;}}" for n in range(1999)) + SERVICE.replace("A", "A7"),
        ";" * 250_000,
        "/**/" * 60_000,
        "enum E {" + "A=0;" * 60_000 + "}",
    ],
    ids=range(11),
)
def test_no_schema_within_the_limit_takes_long(text: str) -> None:
    began = time.perf_counter()
    with suppress(ProtoInvalid):
        schema(HEAD + text)
    assert time.perf_counter() - began < 5


@settings(max_examples=300)
@given(
    st.one_of(st.text(max_size=200), st.text("{}()=;<>\"'/*.,[]-+ \n0123abcmessagenurpti", max_size=200)), st.booleans()
)
def test_any_text_is_a_schema_or_refused(text: str, headed: bool) -> None:
    with suppress(ProtoInvalid):
        schema((HEAD if headed else "") + text)


def test_schemas_know_nothing_of_each_other() -> None:
    first, second = kind("message A { int32 x = 1; }"), kind("message A { string x = 1; }")
    assert (first(x=3).x, second(x="3").x) == (3, "3")
    assert kind("message A { int32 x = 1; }") is first  # and the same text is read once


WORDS = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True).filter(lambda word: word not in SCALARS)
KINDS = st.one_of(st.sampled_from(sorted(SCALARS)), st.just("E"), st.integers(0, 3))


@st.composite
def files(draw: st.DrawFn) -> tuple[str, FileDescriptorProto]:
    """A schema as a text, and as the descriptor that a test makes of the same facts."""
    file = FileDescriptorProto(name="model.proto", syntax="proto3", package=draw(st.sampled_from([None, "p", "p.q"])))
    base = f".{file.package}." if file.package else "."
    lines = [HEAD, f"package {file.package};" if file.package else ""]
    enum = file.enum_type.add(name="E")
    numbers = [0, *draw(st.lists(st.integers(-5, 2**31 - 1).filter(bool), max_size=3, unique=True))]
    for place, number in enumerate(numbers):
        enum.value.add(name=f"V{place}", number=number)
    lines.append("enum E { " + " ".join(f"V{place} = {number};" for place, number in enumerate(numbers)) + " }")
    for index in range(draw(st.integers(1, 4))):
        message = file.message_type.add(name=f"M{index}")
        lines.append(f"message M{index} {{")
        names = draw(st.lists(WORDS, min_size=1, max_size=6, unique=True))
        scale = draw(st.sampled_from([1, 1000]))
        for place, name in enumerate(names, 1):
            field = message.field.add(name=name, number=place * scale)
            lines.append(draw(written(field, index, base)))
        lines.append("}")
    service = file.service.add(name="S")
    last = f"M{len(file.message_type) - 1}"
    service.method.add(name="go", input_type=base + last, output_type=base + last)
    lines.append(f"service S {{ rpc go ({last}) returns ({last}); }}")
    return draw(st.sampled_from(["\n", " ", " /* x */ "])).join(lines), file


@st.composite
def written(draw: st.DrawFn, field: FieldDescriptorProto, index: int, base: str) -> str:
    word = draw(KINDS)
    if isinstance(word, int):
        word = f"M{word % index}" if index else "double"  # only those before it, so that none holds itself
    if word in SCALARS:
        field.type = SCALARS[word]
    else:
        field.type = FieldDescriptorProto.TYPE_ENUM if word == "E" else FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = base + word
    repeated = draw(st.booleans())
    field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    return f"  {'repeated ' * repeated}{word} {field.name} = {field.number};"


VALUES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptorProto.TYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptorProto.TYPE_FLOAT: st.floats(width=32, allow_nan=False),
    FieldDescriptorProto.TYPE_BOOL: st.booleans(),
    FieldDescriptorProto.TYPE_STRING: st.text(max_size=5),
    FieldDescriptorProto.TYPE_BYTES: st.binary(max_size=5),
    **dict.fromkeys((5, 15, 17), st.integers(-(2**31), 2**31 - 1)),
    **dict.fromkeys((3, 16, 18), st.integers(-(2**63), 2**63 - 1)),
    **dict.fromkeys((7, 13), st.integers(0, 2**32 - 1)),
    **dict.fromkeys((4, 6), st.integers(0, 2**64 - 1)),
}


def fill(draw: st.DrawFn, made: Any) -> Any:
    for field in made.DESCRIPTOR.fields:
        for _ in range(draw(st.integers(0, 2)) if field.is_repeated else draw(st.integers(0, 1))):
            if field.message_type is not None:
                fill(draw, getattr(made, field.name).add() if field.is_repeated else getattr(made, field.name))
                continue
            enum = field.enum_type
            value = draw(st.sampled_from(sorted(enum.values_by_number)) if enum else VALUES[field.type])
            if field.is_repeated:
                getattr(made, field.name).append(value)
            else:
                setattr(made, field.name, value)
    return made


@settings(max_examples=150, deadline=None)
@given(st.data(), files())
def test_random_messages_of_random_schemas_are_protobufs_own(
    data: st.DataObject, drawn: tuple[str, FileDescriptorProto]
) -> None:
    """Descriptors, bytes and JSON of a schema that was read are those of one that was built."""
    text, file = drawn
    assert parse(text) == file
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    theirs = GetMessageClass(pool.FindServiceByName(f"{file.package}.S".lstrip(".")).methods[0].input_type)
    ours = schema(text).operations["go"].takes
    made = fill(data.draw, theirs())
    there = ours.FromString(made.SerializeToString())
    assert json_format.MessageToDict(there) == json_format.MessageToDict(made)
    again = json_format.Parse(json_format.MessageToJson(made), ours())
    assert again.SerializeToString(deterministic=True) == made.SerializeToString(deterministic=True)


ROW = """
message Row { string name = 1; int32 size = 2; repeated double x = 3; Kind kind = 4; bool big = 5; bytes raw = 6;
              Inner inner = 7; }
message Inner { float f = 1; }
enum Kind { NONE = 0; SOME = 3; }
message A { repeated Row rows = 1; }
"""


class TestCsv:
    def test_a_line_is_a_row_and_columns_of_one_name_a_repeated_field(self) -> None:
        text = "\ufeffname,x,size,x,kind,big,raw,f\r\nfirst,1.5,7,2.5,3,TRUE,ab,0.5\r\nsecond,,-1,4\r\n\r\n"
        made = csv_rows.message(kind(ROW), text)
        assert json_format.MessageToDict(made) == {
            "rows": [
                {
                    **{"name": "first", "size": 7, "x": [1.5, 2.5], "kind": "SOME", "big": True, "raw": "YWI="},
                    "inner": {"f": 0.5},
                },
                {"name": "second", "size": -1, "x": [4.0], "inner": {}},
            ]
        }

    def test_repeated_scalars_of_one_message_get_all_lines(self) -> None:
        made = csv_rows.message(
            kind("message A { repeated int32 x = 1; repeated int32 y = 2; }"), "x,y,x\n1,2,3\n4,5,6"
        )
        assert (list(made.x), list(made.y)) == ([1, 3, 4, 6], [2, 5])

    def test_one_message_a_line_where_that_is_wanted(self) -> None:
        found = csv_rows.messages(kind("message A { repeated int32 x = 1; }"), "x,x\n1,2\n3,4")
        assert [list(made.x) for made in found] == [[1, 2], [3, 4]]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "needs a header and at least one line"),
            ("size", "needs a header and at least one line"),
            ("siz\n1", "'siz', which no field of A is called (did you mean 'size'?)"),
            ("size\n1,2", "line 2 has 2 cells, the header 1"),
            ("size\nseven", "line 2: size is int32, got 'seven'"),
            ("size\n99999999999", "line 2: size is int32, got '99999999999'"),
            ("size\n1.0", "line 2: size is int32, got '1.0'"),
            ("kind\n1", "line 2: kind is enum Kind (a number), got '1': it has 0, 3"),
            ("big\nyes", "line 2: big is bool, got 'yes'"),
        ],
    )
    def test_what_is_wrong_is_said_with_its_line(self, text: str, said: str) -> None:
        with pytest.raises(Unfit) as raised:
            csv_rows.message(kind(ROW), text)
        assert said in str(raised.value)

    def test_a_second_value_for_one_field_is_refused_not_dropped(self) -> None:
        one = kind("message A { int32 x = 1; B b = 2; } message B { int32 y = 1; }")
        assert csv_rows.message(one, "x,y\n1,2\n1,2").b.y == 2
        for text in ("x\n1\n2", "y\n1\n2"):
            with pytest.raises(Unfit, match="has a value already"):
                csv_rows.message(one, text)

    @pytest.mark.parametrize("text", ["x" + "," * 5_000_001, "x" + "\n" * 5_000_001])
    def test_too_many_cells_are_refused_before_they_are_cut_up(self, text: str) -> None:
        with pytest.raises(Unfit, match="more than 5000000 cells"):
            csv_rows.message(kind("message A { repeated int32 x = 1; }"), text)

    def test_messages_that_hold_themselves_or_multiply_are_refused(self) -> None:
        with pytest.raises(Unfit, match="holds itself"):
            csv_rows.message(kind("message A { A a = 1; int32 x = 2; }"), "x\n1")
        doubling = "".join(f"message M{n} {{ M{n + 1} a = 1; M{n + 1} b = 2; }}" for n in range(60))
        with pytest.raises(Unfit, match="more than 5000 fields"):
            csv_rows.message(kind(f"{doubling} message M60 {{ int32 x = 1; }}", "M0"), "x\n1")
        with pytest.raises(Unfit, match="more than 5000000 cells"):
            csv_rows.message(kind("message A { repeated int32 x = 1; }"), ",".join("x" * 3000) + "\n1" * 3000)


class TestInstances:
    def asked(self, body: str, value: dict[str, Any], plain: bool = True) -> list[Any]:
        return [instance(row, plain) for row in rows(json_format.ParseDict(value, kind(body)()))]

    def test_one_repeated_field_is_a_plain_list_for_models_and_code(self) -> None:
        for plain in (True, False):
            assert self.asked("message A { repeated double x = 1; }", {"x": [1, 2]}, plain) == [[1.0, 2.0]]

    def test_a_repeated_message_is_a_table_of_rows(self) -> None:
        body = "message R { double b = 2; int32 a = 1; repeated float c = 3; } message A { repeated R rows = 1; }"
        value = {"rows": [{"b": 1.5, "a": 2, "c": [3, 4]}, {"b": 5}]}
        assert self.asked(body, value) == [[1.5, 2, 3.0, 4.0], [5.0, 0]]
        assert self.asked(body, value, False) == [{"b": 1.5, "a": 2, "c": [3.0, 4.0]}, {"b": 5.0, "a": 0, "c": []}]

    def test_windows_are_lists_of_rows(self) -> None:
        body = "message R { repeated double x = 1; } message W { repeated R r = 1; } message A { repeated W w = 1; }"
        value = {"w": [{"r": [{"x": [1, 2]}, {"x": [3, 4]}]}]}
        assert self.asked(body, value) == [[[1.0, 2.0], [3.0, 4.0]]]

    def test_one_text_is_itself_and_what_is_not_set_is_null(self) -> None:
        assert self.asked("message A { string t = 1; }", {"t": "words"}) == ["words"]
        assert self.asked("message A { optional double x = 1; double y = 2; }", {}) == [[None, 0.0]]
        assert self.asked("message A { bytes x = 1; A a = 2; }", {"x": "AAE="}, False) == [{"x": "AAE=", "a": None}]

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("message A {}", "has no field"),
            ("message B { int32 x = 1; } message A { repeated B b = 1; }", "has 0 rows"),
            ("message B { int32 x = 1; } message A { repeated B b = 1; int32 y = 2; }", "beside other fields"),
            ("message A { A a = 1; int32 x = 2; }", "A.a is not set"),
        ],
    )
    def test_what_is_no_row_is_said(self, body: str, said: str) -> None:
        with pytest.raises(Unfit, match=said):
            self.asked(body, {})


class TestPredictions:
    def made(self, body: str, values: list[Any], one_row: bool = False) -> Any:
        return json_format.MessageToDict(predictions.message(kind(body), values, one_row))

    def default(self, *values: Any) -> Any:
        found = schema(DEFAULT).operations["predict"].returns
        return json_format.MessageToDict(predictions.message(found, values, False))

    def test_the_default_holds_whatever_a_step_answers(self) -> None:
        assert self.default(1, 2.5) == {"y": [1.0, 2.5]}
        assert self.default([0.25, 0.75]) == {"rows": [{"x": [0.25, 0.75]}]}
        assert self.default("setosa", "virginica") == {"text": ["setosa", "virginica"]}
        assert self.default({"a": [1]}, True, "x") == {"text": ['{"a":[1]}', "true", "x"]}
        with pytest.raises(Unfit, match="row 1: a step dropped it"):
            self.default(1, None)

    def test_the_first_field_that_holds_all_gets_them(self) -> None:
        body = "message A { repeated int32 whole = 1; repeated double any = 2; bool flag = 3; }"
        assert self.made(body, [1, 2.0]) == {"whole": [1, 2]}
        assert self.made(body, [1, 2.5]) == {"any": [1.0, 2.5]}
        assert self.made(body, [2**40]) == {"any": [2.0**40]}
        assert self.made(body, [True]) == {"flag": True}
        with pytest.raises(Unfit, match="no field of A holds 2 predictions that are booleans, such as 'True'; it has"):
            self.made(body, [True, False])

    def test_one_row_fills_by_name_or_item_by_item(self) -> None:
        body = "message A { double y = 1; repeated string why = 2; }"
        assert self.made(body, [{"y": 2, "why": ["a"], "more": 0}], True) == {"y": 2.0, "why": ["a"]}
        assert self.made("message A { repeated double p = 1; }", [[0.5, 0.5]], True) == {"p": [0.5, 0.5]}
        with pytest.raises(Unfit):
            self.made("message A { repeated double p = 1; }", [[0.5, 0.5]], False)

    def test_rows_of_messages(self) -> None:
        body = "enum E { N = 0; M = 1; } message R { string l = 1; E e = 2; } message A { repeated R r = 1; }"
        expected = {"r": [{"l": "x", "e": "M"}]}
        for value in ({"l": "x", "e": "M"}, {"l": "x", "e": 1}, ["x", 1]):
            assert self.made(body, [value]) == expected


def form(*named: tuple[str, str], end: str = "--b--\r\n") -> bytes:
    return "".join(f"--b\r\n{head}\r\n\r\n{data}\r\n" for head, data in named).encode() + end.encode()


NAMED = 'Content-Disposition: form-data; name="{}"'


class TestForms:
    def test_parts_by_name_with_their_types(self) -> None:
        csv = (
            NAMED.format("csvFile") + '; filename="../../x"\r\ncontent-type: Text/CSV; charset=utf-8',
            "a\r\nb\r\n--c",
        )
        found = parts(form(csv, (NAMED.format("operation"), "go")), b"multipart/form-data; boundary=b")
        assert [(part.name, part.kind, part.data) for part in found.values()] == [
            ("csvFile", "text/csv", b"a\r\nb\r\n--c"),
            ("operation", "", b"go"),
        ]

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", "ends before its closing boundary"),
            (b"nonsense", "not multipart/form-data"),
            (form((NAMED.format("a"), "1"), end=""), "ends before its closing boundary"),
            (form((NAMED.format("a"), "1"))[:-9], "ends before its closing boundary"),
            (form((NAMED.format("a"), "1"), (NAMED.format("a"), "2")), "'a' is there twice"),
            (form(*[(NAMED.format(f"a{n}"), "") for n in range(9)]), "more than 8 parts"),
            (form(("X: " + "y" * 5000, "")), "Maximum header size"),
            (form(("X" * 5000, "")), "Maximum header size"),
            (form(("\r\n".join(f"X{n}: y" for n in range(20)), "")), "Maximum header count"),
            (form(("Content-Type: text/csv", "x")), "a part has no name"),
            (form(("Content-Disposition: attachment; name=x", "x")), "a part has no name"),
            (form((NAMED.format("a") + "\r\nContent-Transfer-Encoding: base64", "eA==")), "Content-Transfer-Encoding"),
        ],
    )
    def test_a_form_that_is_none_or_too_much_is_refused(self, body: bytes, said: str) -> None:
        with pytest.raises(BadForm) as raised:
            parts(body, b"multipart/form-data; boundary=b")
        assert said in str(raised.value)

    def test_a_boundary_is_needed(self) -> None:
        with pytest.raises(BadForm, match="no boundary"):
            parts(b"", b"multipart/form-data")
        with pytest.raises(BadForm, match="Boundary length"):
            parts(b"", b"multipart/form-data; boundary=" + b"x" * 300)

    @given(st.binary(max_size=300), st.booleans())
    def test_any_bytes_are_a_form_or_refused(self, body: bytes, begun: bool) -> None:
        with suppress(BadForm):
            parts((b"--b\r\n" if begun else b"") + body, b"multipart/form-data; boundary=b")
