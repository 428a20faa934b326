"""What a release is, as data: written beside the unit it describes, read back from the machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Action = Literal["nothing", "create", "scale", "swap", "replace", "remove", "stage", "discard", "shadow"]
FormName = Literal["native", "container"]


@dataclass(frozen=True, slots=True)
class Release:
    """One bundle of one unit with its environment, on one machine. `id` is its identity by content, no secret in it.

    `models` are (step, sha256): what is live, and `own` what is in the bundle, where that is known. Releases with one
    `frame` differ in their models only. `since` (UTC) is empty until it has answered. `machine`: its id in the PADL
    file (None: this machine), `host` the address that it listens on there, `address` what people reach that machine by
    (empty: the same). `image` is what a container is made of, always by digest. `replicas` is how many processes it is
    to have, and no part of what it is, as the models are not: others are the same release. `admin_host:admin_port` is
    where it is changed (0: nowhere).
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
    machine: str | None = None
    form: FormName = "native"
    image: str = ""
    address: str = ""
    replicas: int = 1
    own: tuple[tuple[str, str], ...] = ()
    frame: str = ""
    admin_host: str = ""
    admin_port: int = 0

    @property
    def processes(self) -> tuple[str, ...]:
        """Their names in the unit. One that is alone has the release's: it works otherwise than one of several, and
        becomes another process when there are to be more."""
        return (self.id,) if self.replicas == 1 else tuple(f"{self.id}.{one}" for one in range(self.replicas))

    @property
    def endpoint(self) -> str:
        """Where people reach the unit."""
        return _url(self.address or self.host, self.port)

    @property
    def local(self) -> str:
        """Where the unit's public port is for its own machine."""
        return _url({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host), self.port)  # noqa: S104

    @property
    def admin(self) -> str:
        """Where it is changed; empty: nowhere."""
        return _url(self.admin_host, self.admin_port) if self.admin_port else ""

    @property
    def has_door(self) -> bool:
        """Whether two releases of the unit may run side by side: what is called over HTTP is, and streams are not."""
        return self.mode == "api"

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def release_of(process: str) -> str:
    return process.partition(".")[0]


def number_of(process: str) -> int:
    """Which replica of its unit it is: who is alone is the first."""
    return int(process.partition(".")[2] or 0)


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def parse(text: str) -> Release:
    """The release in a release.json, also of a version that knew fewer or more of its fields."""
    data: dict[str, Any] = json.loads(text)
    known = {field.name: data[field.name] for field in fields(Release) if field.name in data}
    pairs = {name: tuple((step, sha256) for step, sha256 in data.get(name, ())) for name in ("models", "own")}
    return Release(**{**known, **pairs})


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """What a deploy did with one unit."""

    unit: str
    action: Action
    release: str
    endpoint: str
    machine: str | None = None
