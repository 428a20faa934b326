"""The schema and configuration that were put into a unit, in its state folder: by all its processes, across restarts.

    <state>/modelrunner.json    {"": PUT, sha256: PUT}; PUT is {"proto", "configuration"}, texts, "" for none

What stands under the sha256 of a model holds while that model is live, so that it takes effect in the very moment in
which the model does, and goes back with it; what stands under "" holds for all others.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import wanted
from .control import State, first, properties
from .schema import ProtoInvalid, schema

FILE = "modelrunner.json"
ALWAYS = ""


@dataclass(frozen=True, slots=True)
class Put:
    """Texts; "" is what the bundle has."""

    proto: str = ""
    configuration: str = ""


Puts = Mapping[str, Put]
NONE = Put()


def read(folder: Path) -> dict[str, Put]:
    """From the state folder; `ValueError` for what is not as above."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {str(key): Put(str(put["proto"]), str(put["configuration"])) for key, put in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{FILE} cannot be used: {type(error).__name__}: {error}") from None


def write(folder: Path, puts: Puts) -> None:
    """All or nothing; `OSError`."""
    if not puts:
        (folder / FILE).unlink(missing_ok=True)
        return
    wanted.write(folder / FILE, json.dumps({key: asdict(put) for key, put in puts.items()}))


def key(puts: Puts, live: Sequence[str]) -> str:
    """Under what stands what holds while the models `live` are."""
    return next((sha256 for sha256 in live if sha256 in puts), ALWAYS)


def pruned(puts: Puts, known: Collection[str]) -> dict[str, Put]:
    """Without models that are not `known` any more."""
    return {sha256: put for sha256, put in puts.items() if sha256 == ALWAYS or sha256 in known}


class Current:
    """What holds now in the unit of `bundle`; `info` is what `/info` says, `folder` the state folder."""

    def __init__(self, bundle: Path, folder: Path, info: Mapping[str, Any]) -> None:
        self._folder, self._info = folder, info
        self._bundle = first(bundle)
        self._mark: tuple[Any, ...] | None = None
        self._state = self._bundle

    def known(self) -> State | None:
        """None: something has changed, `read` says what. Takes microseconds."""
        return self._state if self._mark == self._looks() else None

    def read(self) -> State:
        mark = self._looks()
        try:
            puts = read(self._folder)
            self._state = applied(self._bundle, puts.get(key(puts, mark[1:]), NONE))
        except ValueError as error:
            self._state = State(None, str(error))
        self._mark = mark
        return self._state

    def _looks(self) -> tuple[Any, ...]:
        try:
            found = (self._folder / FILE).stat()
        except OSError:
            return ((), *live(self._info))
        return ((found.st_ino, found.st_mtime_ns, found.st_size), *live(self._info))


def live(info: Mapping[str, Any]) -> list[str]:
    """The sha256 of each model that is live."""
    return [each["sha256"] for each in info["models"]]


def applied(own: State, put: Put) -> State:
    """`own`, the bundle's, with what was put; `ValueError` says what of it cannot be used."""
    state = own
    if put.proto:
        try:
            state = replace(state, schema=schema(put.proto), fault="")
        except ProtoInvalid as error:
            raise ValueError(f"proto: {error}") from None
    if put.configuration:
        try:
            state = replace(state, configuration=properties(put.configuration))
        except ValueError as error:
            raise ValueError(f"modelConfig: {error}") from None
    return state
