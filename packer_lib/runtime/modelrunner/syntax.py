"""A proto3 text as the `FileDescriptorProto` that protoc makes of it (without `json_name`, which follows from names).

Messages, enums, `oneof`, `optional`, `repeated`, the 15 scalar types, services of plain `rpc`s. What reads other files
(`import`, options of one's own) is refused, as are `map`, streams and proto2, each by its name and place.

Why not a library: proto-schema-parser 2.1 (ANTLR, 1.2 MB, 0.4 s to import) mends what is broken and prints about it:
`int32 x 1;` becomes a field, a text of nonsense an empty schema; nothing else on PyPI is kept up.
Source: protobuf.dev, "Protocol Buffers Version 3 Language Specification"; protoc's own output (tests).
"""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    OneofDescriptorProto,
    ServiceDescriptorProto,
)

from .names import SCALARS, Use, Uses, resolve
from .tokens import ProtoInvalid, Reader

__all__ = ["ProtoInvalid", "parse"]

DEEPEST, FIELDS = 32, 2000
LARGEST = 536_870_911  # the largest field number
ENUM_LEAST, ENUM_MOST = -(2**31), 2**31 - 1

# options that change nothing here; of the others `packed`, `json_name` and `allow_alias` are followed
PLAIN_OPTIONS = {"deprecated", "jstype", "ctype", "lazy", "unverified_lazy", "debug_redact", "retention", "targets"}
NO_PLACE = {
    "map": "map is not supported; use a repeated message of a key and a value",
    "required": "required is of proto2",
    "group": "groups are of proto2",
    "extensions": "extensions are of proto2",
    "extend": "extend is not supported",
}


def parse(text: str) -> FileDescriptorProto:
    """What `text` says, all names resolved; `ProtoInvalid` for the first thing that is wrong with it."""
    reader = Reader(text)
    file = FileDescriptorProto(name="model.proto", syntax="proto3")
    _syntax(reader)
    uses: Uses = []
    while reader.here.kind != "end":
        _top(reader, file, uses)
    resolve(file, uses)
    return file


def _syntax(reader: Reader) -> None:
    token = reader.here
    if token.value != "syntax":
        raise token.wrong(f'expected syntax = "proto3";, got {token}')
    reader.sign("syntax")
    reader.sign("=")
    token = reader.here
    if reader.text() != "proto3":
        raise token.wrong(f'only "proto3" is supported, got {token.value}')
    reader.sign(";")


def _top(reader: Reader, file: FileDescriptorProto, uses: Uses) -> None:
    token = reader.take("word", "message, enum or service") if reader.here.value != ";" else reader.sign(";")
    match token.value:
        case "message":
            _message(reader, file.message_type.add(), (), uses)
        case "enum":
            _enum(reader, file.enum_type.add())
        case "service":
            _service(reader, file.service.add(), uses)
        case "package":
            if file.package:
                raise token.wrong("there is a package already")
            file.package = reader.path("the name of a package")
            reader.sign(";")
        case "option":
            reader.option()
            reader.sign(";")
        case "import":
            raise token.wrong(
                "import is not supported: a schema is one text and reads no file; write the messages here"
            )
        case ";":
            pass
        case word:
            raise token.wrong(NO_PLACE.get(word, f"expected message, enum or service, got {token}"))


def _message(reader: Reader, made: DescriptorProto, scope: tuple[str, ...], uses: Uses) -> None:
    if len(scope) >= DEEPEST:
        raise reader.here.wrong(f"messages are nested deeper than {DEEPEST}")
    made.name = reader.name("the name of a message")
    reader.sign("{")
    inside = (*scope, made.name)
    optional: list[FieldDescriptorProto] = []
    while not reader.passed("}"):
        _member(reader, made, inside, uses, optional)
        if len(made.field) > FIELDS or len(made.reserved_range) > FIELDS:
            raise reader.here.wrong(f"{made.name} has more than {FIELDS} fields or reserved ranges")
    _alone(made, optional)
    _keep_reserved(reader, made)


def _member(
    reader: Reader, made: DescriptorProto, scope: tuple[str, ...], uses: Uses, optional: list[FieldDescriptorProto]
) -> None:
    token = reader.here
    block = not reader.follows(".")  # `message.Kind name = 1;` is a field
    match token.value:
        case ";":
            reader.sign(";")
        case "message" | "enum" | "oneof" | "option" | "reserved" if block:
            reader.name()
            _nested(reader, token.value, made, scope, uses)
        case word if word in NO_PLACE and block and (word != "map" or reader.follows("<")):
            raise token.wrong(NO_PLACE[word])
        case _:
            field = _field(reader, made, scope, uses)
            if field.proto3_optional:
                optional.append(field)


def _nested(reader: Reader, word: str, made: DescriptorProto, scope: tuple[str, ...], uses: Uses) -> None:
    match word:
        case "message":
            _message(reader, made.nested_type.add(), scope, uses)
        case "enum":
            _enum(reader, made.enum_type.add())
        case "oneof":
            _oneof(reader, made, scope, uses)
        case "option":
            reader.option()
            reader.sign(";")
        case _:
            _reserved(reader, made, LARGEST, 1)


def _oneof(reader: Reader, made: DescriptorProto, scope: tuple[str, ...], uses: Uses) -> None:
    index = len(made.oneof_decl)
    made.oneof_decl.append(OneofDescriptorProto(name=reader.name("the name of a oneof")))
    reader.sign("{")
    while not reader.passed("}"):
        if reader.here.value == "option":
            reader.name()
            reader.option()
            reader.sign(";")
            continue
        if reader.here.value in {"repeated", "optional", *NO_PLACE}:
            raise reader.here.wrong(f"{reader.here.value} has no place in a oneof")
        _field(reader, made, scope, uses).oneof_index = index


def _alone(made: DescriptorProto, optional: list[FieldDescriptorProto]) -> None:
    """An optional field is a oneof of its own, after those that are written."""
    taken = {one.name for one in (*made.oneof_decl, *made.field)}
    for field in optional:
        name = f"_{field.name}"
        while name in taken:
            name = f"X{name}"
        taken.add(name)
        field.oneof_index = len(made.oneof_decl)
        made.oneof_decl.add(name=name)


def _field(reader: Reader, made: DescriptorProto, scope: tuple[str, ...], uses: Uses) -> FieldDescriptorProto:
    field = made.field.add(label=FieldDescriptorProto.LABEL_OPTIONAL)
    if reader.here.value in {"repeated", "optional"} and not reader.follows("."):
        if reader.name() == "repeated":
            field.label = FieldDescriptorProto.LABEL_REPEATED
        else:
            field.proto3_optional = True
    token = reader.here
    kind = reader.path("a type")
    if kind in SCALARS:
        field.type = SCALARS[kind]
    else:
        uses.append(Use(token, kind, scope, field))
    field.name = reader.name("the name of a field")
    reader.sign("=")
    number = reader.here
    field.number = reader.integer(1, LARGEST)
    if 19_000 <= field.number <= 19_999:
        raise number.wrong("19000 to 19999 are reserved for protobuf itself")
    if reader.passed("["):
        _field_options(reader, field)
    reader.sign(";")
    return field


def _field_options(reader: Reader, field: FieldDescriptorProto) -> None:
    while True:
        token, name, value = reader.option()
        if name == "packed":
            if value.value not in {"true", "false"} or field.label != FieldDescriptorProto.LABEL_REPEATED:
                raise value.wrong("packed is true or false, of a repeated field of numbers")
            field.options.packed = value.value == "true"
        elif name == "json_name":
            field.json_name = value.value.strip("\"'")
        elif name not in PLAIN_OPTIONS:
            raise token.wrong(f"a field has no option {name}")
        if not reader.passed(","):
            break
    reader.sign("]")


def _enum(reader: Reader, made: EnumDescriptorProto) -> None:
    made.name = reader.name("the name of an enum")
    reader.sign("{")
    while not reader.passed("}"):
        token = reader.here
        if reader.passed(";"):
            continue
        if token.value == "option" and not reader.follows("="):
            reader.name()
            _, name, value = reader.option()
            reader.sign(";")
            if name == "allow_alias":
                made.options.allow_alias = value.value == "true"
        elif token.value == "reserved" and not reader.follows("="):
            reader.name()
            _reserved(reader, made, ENUM_MOST, 0)
        else:
            _enum_value(reader, made)
    if not made.value or made.value[0].number != 0:
        raise reader.here.wrong(f"the first value of enum {made.name} must be 0")


def _enum_value(reader: Reader, made: EnumDescriptorProto) -> None:
    name = reader.name("the name of a value")
    reader.sign("=")
    made.value.add(name=name, number=reader.integer(ENUM_LEAST, ENUM_MOST))
    if reader.passed("["):
        reader.option()
        while reader.passed(","):
            reader.option()
        reader.sign("]")
    reader.sign(";")


def _reserved(reader: Reader, made: DescriptorProto | EnumDescriptorProto, most: int, beyond: int) -> None:
    """`beyond`: the end of a range is the number after it (of a message) or its last (of an enum)."""
    least = 1 if beyond else ENUM_LEAST
    while True:
        if reader.here.kind == "text":
            made.reserved_name.append(reader.text())
        else:
            start = end = reader.integer(least, most)
            if reader.passed("to"):
                end = most if reader.passed("max") else reader.integer(start, most)
            made.reserved_range.add(start=start, end=end + beyond)
        if not reader.passed(","):
            break
    reader.sign(";")


def _keep_reserved(reader: Reader, made: DescriptorProto) -> None:
    names, spans = set(made.reserved_name), [(span.start, span.end) for span in made.reserved_range]
    for field in made.field:
        number = field.number
        if field.name in names or any(start <= number < end for start, end in spans):
            raise reader.here.wrong(f"{made.name}.{field.name} = {field.number} is reserved")


def _service(reader: Reader, made: ServiceDescriptorProto, uses: Uses) -> None:
    made.name = reader.name("the name of a service")
    reader.sign("{")
    while not reader.passed("}"):
        if reader.passed(";"):
            continue
        if reader.passed("option"):
            reader.option()
            reader.sign(";")
            continue
        reader.sign("rpc")
        method = made.method.add(name=reader.name("the name of an rpc"))
        for attribute in ("input_type", "output_type"):
            if attribute == "output_type":
                reader.sign("returns")
            reader.sign("(")
            token = reader.here
            if token.value == "stream" and not reader.follows(")"):
                raise token.wrong("streams are not supported: one message in, one message out")
            uses.append(Use(token, reader.path("a message"), (), method, attribute))
            reader.sign(")")
        _rpc_end(reader)


def _rpc_end(reader: Reader) -> None:
    if reader.passed("{"):
        while not reader.passed("}"):
            if not reader.passed(";"):
                reader.sign("option")
                reader.option()
            reader.sign(";")
    else:
        reader.sign(";")
