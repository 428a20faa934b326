"""This installation's settings, from `MLPACKER__SECTION__KEY` in the environment; imports `errors` only.

A PADL file never sets these: they say what its author is allowed to do. Every variable may be given as a file
(`MLPACKER__REGISTRY__PASSWORD_FILE`) instead, whose text is the value: that is how secrets come into containers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packer_lib.errors import MLPackerError

DEBIAN_DOCKER = "/usr/bin/docker"


STALL_SECONDS = 600.0  # what a unit takes by itself, see runtime/manifest.py


@dataclass(frozen=True, slots=True)
class Settings:
    """`home` holds what we keep on a machine; absolute paths may lead into `model_roots` (docs/settings.md).

    Secrets are not in the `repr`, which may stand in a log.
    """

    home: Path
    model_roots: tuple[Path, ...] = ()
    url_schemes: tuple[str, ...] = ("https",)
    private_urls: bool = False
    git_protocols: tuple[str, ...] = ("https", "ssh")
    strict: bool = False
    bind: str = "127.0.0.1"
    ready_timeout: float = 120.0
    keep_releases: int = 3
    docker: str = DEBIAN_DOCKER
    base_image: str = "python:3.11-slim-bookworm"
    ca_bundle: Path | None = None
    index_url: str = field(default="", repr=False)
    platform: str = ""
    registry: str = ""
    registry_user: str = ""
    registry_password: str = field(default="", repr=False)
    registry_conn: str = ""
    remote_bind: str = "0.0.0.0"  # noqa: S104  (a machine that serves is there to be reached)
    watch_seconds: float = 12.0
    install_docker: bool = False
    stall_seconds: float = STALL_SECONDS
    retire: bool = True
    retire_after: float = 30.0
    connect_timeout: float = 10.0
    key_roots: tuple[Path, ...] = ()
    secret_env: tuple[str, ...] = ("*",)
    allow_plaintext: bool = True
    connections: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # Airflow's, by name: the password


def read(environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from `environ`. Lists are separated by `:` (paths) or `,`; booleans are `true` and `false`.

    `MLPackerError` for a number or boolean that is none, and for a `…_FILE` that cannot be read.
    """
    get = _Getter(environ)
    home = Path(get("PATHS", "HOME", str(Path.home() / ".mlpacker"))).expanduser().absolute()
    return Settings(
        home=home,
        model_roots=get.paths("PATHS", "MODEL_ROOTS"),
        url_schemes=get.words("FETCH", "URL_SCHEMES", "https"),
        private_urls=get.flag("FETCH", "PRIVATE_URLS", False),
        git_protocols=get.words("FETCH", "GIT_PROTOCOLS", "https,ssh"),
        strict=get.flag("SECURITY", "STRICT", False),
        bind=get("DEPLOY", "BIND", "127.0.0.1"),
        ready_timeout=get.number("DEPLOY", "READY_TIMEOUT", 120),
        keep_releases=int(get.number("DEPLOY", "KEEP_RELEASES", 3)),
        docker=get("BUILD", "DOCKER", "") or _docker(environ),
        base_image=get("BUILD", "BASE_IMAGE", "python:3.11-slim-bookworm"),
        ca_bundle=next(iter(get.paths("BUILD", "CA_BUNDLE")), None),
        index_url=get("BUILD", "INDEX_URL", ""),
        platform=get("BUILD", "PLATFORM", ""),
        registry=get("REGISTRY", "HOST", "").rstrip("/"),
        registry_user=get("REGISTRY", "USER", ""),
        registry_password=get("REGISTRY", "PASSWORD", ""),
        registry_conn=get("REGISTRY", "CONN_ID", ""),
        remote_bind=get("DEPLOY", "REMOTE_BIND", "0.0.0.0"),  # noqa: S104
        watch_seconds=get.number("DEPLOY", "WATCH_SECONDS", 12),
        install_docker=get.flag("DEPLOY", "INSTALL_DOCKER", False),
        stall_seconds=get.number("DEPLOY", "STALL_SECONDS", STALL_SECONDS),
        retire=get.flag("DEPLOY", "RETIRE", True),
        retire_after=get.number("DEPLOY", "RETIRE_AFTER", 30),
        connect_timeout=get.number("SSH", "CONNECT_TIMEOUT", 10),
        key_roots=get.paths("SSH", "KEY_ROOTS") or _key_roots(home, environ),
        secret_env=get.words("SECURITY", "SECRET_ENV", "MLPACKER_SECRET_*" if in_task(environ) else "*"),
        allow_plaintext=get.flag("SECURITY", "ALLOW_PLAINTEXT", True),
    )


def in_task(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a task of Airflow, where the PADL file may be somebody else's, and not its author's shell."""
    return bool(environ.get("AIRFLOW_CTX_DAG_ID"))


@dataclass(frozen=True, slots=True)
class _Getter:
    environ: Mapping[str, str]

    def __call__(self, section: str, key: str, default: str) -> str:
        name = f"MLPACKER__{section}__{key}"
        value, file = self.environ.get(name), self.environ.get(f"{name}_FILE")
        if not value and file:
            value = _text(name, Path(file))
        return value or default

    def words(self, section: str, key: str, default: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in self(section, key, default).split(",") if word.strip())

    def paths(self, section: str, key: str) -> tuple[Path, ...]:
        return tuple(Path(path).expanduser().absolute() for path in self(section, key, "").split(":") if path)

    def flag(self, section: str, key: str, default: bool) -> bool:
        value = self(section, key, str(default)).lower()
        if value not in ("true", "false"):
            raise MLPackerError(f"MLPACKER__{section}__{key}: expected true or false, got {value!r}")
        return value == "true"

    def number(self, section: str, key: str, default: float) -> float:
        value = self(section, key, str(default))
        try:
            return float(value)
        except ValueError:
            raise MLPackerError(f"MLPACKER__{section}__{key}: expected a number, got {value!r}") from None


def _text(name: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise MLPackerError(f"{name}_FILE: {file} cannot be read ({type(error).__name__})") from None


def _docker(environ: Mapping[str, str]) -> str:
    """Debian's own client where there is one: another `docker` earlier on the path may lack BuildKit."""
    if Path(DEBIAN_DOCKER).exists():
        return DEBIAN_DOCKER
    return shutil.which("docker", path=environ.get("PATH")) or DEBIAN_DOCKER


def _key_roots(home: Path, environ: Mapping[str, str]) -> tuple[Path, ...]:
    ours = home / "keys"
    return (ours,) if in_task(environ) else (ours, Path("~/.ssh").expanduser())
