"""A schema that is ready to be used: its operations, each with the classes of its two messages. All of it immutable.

Every schema has a descriptor pool of its own, so that two that call a message by the same name know nothing of each
other, and both go when nobody uses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from .syntax import ProtoInvalid, parse

__all__ = ["DEFAULT", "FILE", "Operation", "ProtoInvalid", "Schema", "default", "schema"]

FILE = "model.proto"  # in the bundle: the unit's own schema
KEPT = 16

# Of a unit that has none: rows of numbers in; out come numbers, or rows of numbers, or texts (anything else as JSON).
DEFAULT = """\
syntax = "proto3";

message Row { repeated double x = 1; }
message In { repeated Row rows = 1; }
message Out {
  repeated double y = 1;
  repeated Row rows = 2;
  repeated string text = 3;
}

service Model { rpc predict (In) returns (Out); }
"""


@dataclass(frozen=True, slots=True)
class Operation:
    """One `rpc`: its name, and the classes of what it takes and returns."""

    name: str
    takes: type[Message]
    returns: type[Message]


@dataclass(frozen=True, slots=True)
class Schema:
    operations: Mapping[str, Operation]


@lru_cache(maxsize=KEPT)
def schema(text: str) -> Schema:
    """`ProtoInvalid` when `text` is none, or names no operation, or one twice."""
    file = parse(text)
    pool = DescriptorPool()
    try:
        pool.AddSerializedFile(file.SerializeToString())
        services = pool.FindFileByName(file.name).services_by_name.values()
    except (TypeError, KeyError, UnicodeError) as error:
        raise ProtoInvalid(_shortened(str(error))) from None
    methods = [method for service in services for method in service.methods]
    if not methods:
        raise ProtoInvalid("there is no operation: a service with an rpc Name (In) returns (Out);")
    names = [method.name for method in methods]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ProtoInvalid(f"the rpc {twice[0]} is there twice; operations are called by their name alone")
    found = {
        method.name: Operation(method.name, GetMessageClass(method.input_type), GetMessageClass(method.output_type))
        for method in methods
    }
    return Schema(MappingProxyType(found))


def default(folder: Path) -> Schema:
    """That of the bundle in `folder`: its `model.proto`, else `DEFAULT`."""
    own = folder / FILE
    return schema(own.read_text(encoding="utf-8") if own.is_file() else DEFAULT)


def _shortened(text: str) -> str:
    return text.removeprefix("Couldn't build proto file into descriptor pool: ").removeprefix("couldn't build proto: ")
