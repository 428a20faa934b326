"""What an image and a registry are, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from packer_lib.plan import Plan
from packer_lib.settings import Settings


@dataclass(frozen=True, slots=True)
class Image:
    """`reference` is what a machine runs, always by digest: `host/repository@sha256:…` once pushed, else the id.

    `name` is its local name with a tag, `id` the engine's (`sha256:…`), `arch` as in `linux/amd64`, `size` in bytes
    unpacked, `digest` that of its manifest in the registry (empty: never pushed).
    """

    reference: str
    id: str
    arch: str
    size: int
    digest: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Registry:
    """`host` is `host[:port][/prefix]`; `user` empty: nobody logs in."""

    host: str
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def server(self) -> str:
        """The part that logins and TLS belong to."""
        return self.host.partition("/")[0]


def registry_of(settings: Settings, plan: Plan | None = None) -> Registry | None:
    """The installation's registry; None when there is none, or the pipeline says `registry: none`.

    A connection that the pipeline names instead is resolved by the caller, who puts what it holds into `settings`.
    """
    if not settings.registry or (plan is not None and plan.registry == "none"):
        return None
    return Registry(settings.registry, settings.registry_user, settings.registry_password)
