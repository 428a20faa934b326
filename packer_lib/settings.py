"""This installation's settings, from `MLPACKER__SECTION__KEY` in the environment; standard library only.

A PADL file never sets these: they say what its author is allowed to do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """`home` holds what we keep on a machine; absolute paths may lead into `model_roots` (docs/settings.md)."""

    home: Path
    model_roots: tuple[Path, ...] = ()
    url_schemes: tuple[str, ...] = ("https",)
    private_urls: bool = False
    git_protocols: tuple[str, ...] = ("https", "ssh")
    strict: bool = False
    bind: str = "127.0.0.1"
    ready_timeout: float = 120.0
    keep_releases: int = 3


def read(environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from `environ`. Lists are separated by `:` (paths) or `,`; booleans are `true` and `false`."""

    def get(section: str, key: str, default: str) -> str:
        return environ.get(f"MLPACKER__{section}__{key}") or default

    return Settings(
        home=Path(get("PATHS", "HOME", str(Path.home() / ".mlpacker"))).expanduser().absolute(),
        model_roots=tuple(Path(root).absolute() for root in get("PATHS", "MODEL_ROOTS", "").split(":") if root),
        url_schemes=tuple(get("FETCH", "URL_SCHEMES", "https").split(",")),
        private_urls=get("FETCH", "PRIVATE_URLS", "false").lower() == "true",
        git_protocols=tuple(get("FETCH", "GIT_PROTOCOLS", "https,ssh").split(",")),
        strict=get("SECURITY", "STRICT", "false").lower() == "true",
        bind=get("DEPLOY", "BIND", "127.0.0.1"),
        ready_timeout=float(get("DEPLOY", "READY_TIMEOUT", "120")),
        keep_releases=int(get("DEPLOY", "KEEP_RELEASES", "3")),
    )
