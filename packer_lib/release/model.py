"""What a release is, as data: written beside the unit it describes, read back from the machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

Action = Literal["nothing", "create", "replace", "remove"]


@dataclass(frozen=True, slots=True)
class Release:
    """One bundle of one unit with its environment, on one machine. `id` is its identity by content, no secret in it.

    `models` are (step, sha256). `since` (UTC) is empty until it has answered.
    """

    pipeline: str
    unit: str
    id: str
    bundle: str
    lock: str
    mode: str
    host: str
    port: int
    models: tuple[tuple[str, str], ...] = ()
    run: str = ""
    by: str = ""
    since: str = ""

    @property
    def endpoint(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def parse(text: str) -> Release:
    """The release in a release.json."""
    data: dict[str, Any] = json.loads(text)
    return Release(**{**data, "models": tuple((step, sha256) for step, sha256 in data["models"])})


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """What a deploy did with one unit."""

    unit: str
    action: Action
    release: str
    endpoint: str
