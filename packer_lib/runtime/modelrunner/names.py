"""The types of a schema: the 15 scalars, and which message or enum a name means where it is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
)

from .tokens import ProtoInvalid, Token

WORDS: tuple[str, ...] = ("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64")
WORDS += ("fixed32", "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes")
SCALARS: dict[str, int] = {word: FieldDescriptorProto.Type.Value(f"TYPE_{word.upper()}") for word in WORDS}
DOTS = 32  # of a package
MOST = 2000  # messages, enums and rpcs together


@dataclass(frozen=True, slots=True)
class Use:
    """A `name` written at `token`, inside the messages `scope`; `made` is what is to have the full name of its type:
    a field, or, as `attribute`, an rpc."""

    token: Token
    name: str
    scope: tuple[str, ...]
    made: FieldDescriptorProto | MethodDescriptorProto
    attribute: str = "type_name"


Uses = list[Use]


def resolve(file: FileDescriptorProto, uses: Uses) -> None:
    """Puts the full name of what it means into everything in `uses`; `ProtoInvalid` for a name that means nothing."""
    base = (file.package,) if file.package else ()
    if file.package.count(".") > DOTS:
        raise ProtoInvalid(f"the name of the package has more than {DOTS} dots")
    kinds = dict(_named(file.message_type, file.enum_type, base))
    if len(kinds) > MOST or sum(len(service.method) for service in file.service) > MOST:
        raise ProtoInvalid(f"the schema has more than {MOST} messages, enums or rpcs")
    for use in uses:
        full = _meant(use.name, (*base, *use.scope), kinds)
        if not full:
            near = ", ".join(sorted(kinds)[:20]) or "none"
            raise use.token.wrong(f"there is no type {use.name!r}; this schema has {near}")
        if isinstance(use.made, FieldDescriptorProto):
            use.made.type = kinds[full]
        elif kinds[full] == FieldDescriptorProto.TYPE_ENUM:
            raise use.token.wrong(f"an rpc takes and returns messages, and {use.name} is an enum")
        setattr(use.made, use.attribute, f".{full}")


def _named(
    messages: Iterable[DescriptorProto], enums: Iterable[EnumDescriptorProto], scope: tuple[str, ...]
) -> Iterator[tuple[str, int]]:
    for enum in enums:
        yield ".".join((*scope, enum.name)), FieldDescriptorProto.TYPE_ENUM
    for message in messages:
        inside = (*scope, message.name)
        yield ".".join(inside), FieldDescriptorProto.TYPE_MESSAGE
        yield from _named(message.nested_type, message.enum_type, inside)


def _meant(name: str, scope: tuple[str, ...], kinds: dict[str, int]) -> str:
    """The innermost of that name, looked for from `scope` outwards; "" for none."""
    if name.startswith("."):
        return name[1:] if name[1:] in kinds else ""
    parts = ".".join(scope).split(".") if scope else []
    for depth in range(len(parts), -1, -1):
        full = ".".join((*parts[:depth], name))
        if full in kinds:
            return full
    return ""
