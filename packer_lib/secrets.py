"""Where a machine's secrets come from, and which of those places this installation allows.

A `SecretRef` says where a secret is, never what it is. What is read here goes into a `Login`, in memory, and from there
to the SSH connection; it is in no `repr`, no message, no command line and no file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from packer_lib.errors import DeployFailed, PolicyRefused
from packer_lib.padl.document import Document
from packer_lib.padl.load import load, load_text
from packer_lib.padl.model import Machine, SecretRef
from packer_lib.settings import Settings, in_task

CONNECTIONS = "mlpacker_"  # what the name of a connection that PADL files may use begins with


@dataclass(frozen=True, slots=True)
class Login:
    """How to log in to a machine. At most one of `password`, `key_file` and `key_text` is set by a PADL file; without
    any, the SSH agent and the user's own keys are used where `own_keys` allows it.

    `conn` is an Airflow connection that has not been read: outside Airflow only `AIRFLOW_CONN_…` is. `guarded`: the
    secret is the installation's and not the author's, so that the author does not say whose machine gets it.
    """

    machine: str
    hostname: str
    port: int = 22
    user: str = ""
    password: str = field(default="", repr=False)
    key_file: str = ""
    key_text: str = field(default="", repr=False)
    passphrase: str = field(default="", repr=False)
    host_key: str = ""
    conn: str = ""
    guarded: bool = False
    own_keys: bool = False

    def __str__(self) -> str:
        return f"{self.user + '@' if self.user else ''}{self.hostname}:{self.port}"


def login(
    machine: Machine, source: Path | str | None, settings: Settings, environ: Mapping[str, str] = os.environ
) -> Login:
    """How to log in to `machine`, with its secret. `source` is the PADL file, or its text where only that is left.

    In a task of Airflow, a password of the installation's goes only to machines that the installation knows: a
    `host_key` of the file counts for nothing there. `PolicyRefused` for a place that this installation does not allow;
    `DeployFailed` when there is nothing there.
    """
    guarded = in_task(environ) and machine.secret is not None and machine.secret.kind in ("env", "conn")
    plain = Login(
        machine=machine.id,
        hostname=machine.hostname,
        port=machine.port,
        user=machine.user or "",
        host_key="" if guarded else machine.host_key or "",
        guarded=guarded,
        own_keys=machine.secret is None and not in_task(environ),
    )
    if machine.secret is None:
        return plain
    where = machine.secret.where
    if machine.secret.kind == "conn":
        return _connection(plain, where, environ)
    if machine.secret.kind == "file":
        return replace(plain, key_file=_key_file(machine.id, where, settings))
    if machine.secret.kind == "env":
        return replace(plain, password=variable(where, machine.id, settings, environ))
    return replace(plain, password=_literal(machine.id, where, source, settings))


def connection(plain: Login, given: Mapping[str, Any]) -> Login:
    """`plain` as an Airflow connection completes it: `{"host", "port", "login", "password", "extra"}`, where `extra`
    has `key_file`, `private_key`, `private_key_passphrase`, `host_key` as Airflow's SSH hook reads them.

    What the PADL file says of host key and user comes first, unless `plain` is guarded; a connection never turns the
    check of host keys off. `PolicyRefused` for a guarded one that names no host.
    """
    if plain.guarded and not given.get("host"):
        raise PolicyRefused(
            f"{plain.machine}: its connection names no host",
            "add it there, so that no PADL file can send the connection's password elsewhere",
        )
    extra = given.get("extra") or {}
    more: Mapping[str, Any] = json.loads(extra) if isinstance(extra, str) else extra
    key = more.get("private_key") or ""
    return replace(
        plain,
        hostname=given.get("host") or plain.hostname,
        port=int(given.get("port") or plain.port),
        user=(given.get("login") or plain.user) if plain.guarded else (plain.user or given.get("login") or ""),
        password="" if key or more.get("key_file") else given.get("password") or "",
        key_file="" if key else more.get("key_file") or "",
        key_text=key,
        passphrase=more.get("private_key_passphrase") or (given.get("password") or "" if key else ""),
        host_key=plain.host_key or more.get("host_key") or "",
        conn="",
    )


def _connection(plain: Login, name: str, environ: Mapping[str, str]) -> Login:
    if not name.startswith(CONNECTIONS):
        raise PolicyRefused(
            f"{plain.machine}: the connection {name!r} is not for PADL files",
            f"give it a name that begins with {CONNECTIONS!r}",
        )
    text = environ.get(f"AIRFLOW_CONN_{name.upper()}")
    if not text:
        return replace(plain, conn=name)
    try:
        return connection(plain, json.loads(text))
    except (ValueError, AttributeError):
        raise DeployFailed(
            f"{plain.machine}: AIRFLOW_CONN_{name.upper()} is not a connection as JSON",
            'such as {"conn_type": "ssh", "host": …, "login": …, "password": …}',
        ) from None


def _key_file(machine: str, where: str, settings: Settings) -> str:
    path = Path(where).expanduser()
    found = (path if path.is_absolute() else settings.home / "keys" / path).resolve()
    if not any(found.is_relative_to(root.resolve()) for root in settings.key_roots):
        allowed = ":".join(str(root) for root in settings.key_roots)
        raise PolicyRefused(
            f"{machine}: the key file {where} is not where keys may be ({allowed})",
            "move it there, or add its folder to MLPACKER__SSH__KEY_ROOTS",
        )
    if not found.is_file():
        raise DeployFailed(f"{machine}: there is no key file {found}", "look at the path in the PADL file")
    return str(found)


def variable(name: str, who: str, settings: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """The secret in the environment variable `name`, which `who` needs."""
    if not any(fnmatchcase(name, pattern) for pattern in settings.secret_env):
        raise PolicyRefused(
            f"{who}: the variable {name} is not for PADL files ({', '.join(settings.secret_env)} are)",
            "give it such a name, or change MLPACKER__SECURITY__SECRET_ENV",
        )
    if not environ.get(name):
        raise DeployFailed(f"{who}: the variable {name} is not set here", "export it where this runs")
    return environ[name]


def value(where: SecretRef, who: str, settings: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """The secret that `where` refers to, a variable or the password of a connection, which `who` needs. Errors as
    `login`."""
    if where.kind == "env":
        return variable(where.where, who, settings, environ)
    if not where.where.startswith(CONNECTIONS):
        raise PolicyRefused(
            f"{who}: the connection {where.where!r} is not for PADL files",
            f"give it a name that begins with {CONNECTIONS!r}",
        )
    found = dict(settings.connections).get(where.where) or _password(environ, where.where)
    if not found:
        raise DeployFailed(
            f"{who}: the connection {where.where} has no password here",
            f"add it to Airflow, or as JSON to AIRFLOW_CONN_{where.where.upper()}",
        )
    return found


def _password(environ: Mapping[str, str], name: str) -> str:
    try:
        return str(json.loads(environ.get(f"AIRFLOW_CONN_{name.upper()}") or "{}").get("password") or "")
    except (ValueError, AttributeError):
        return ""


def _literal(machine: str, pointer: str, source: Path | str | None, settings: Settings) -> str:
    if not settings.allow_plaintext:
        raise PolicyRefused(
            f"{machine}: a password in a PADL file is not allowed here (MLPACKER__SECURITY__ALLOW_PLAINTEXT)",
            "use conn_id, key_file or pass_env instead",
        )
    value: Any = _document(source).value
    for name in pointer.strip("/").split("/"):
        value = value.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(value, dict) else None
    if not isinstance(value, str):
        raise DeployFailed(f"{machine}: its password is no longer in the PADL file", "deploy the pipeline again")
    return value


def _document(source: Path | str | None) -> Document:
    if source is None:
        raise DeployFailed("the PADL file that holds the password is not known", "name the file")
    if isinstance(source, Path):
        return load(source)
    return load_text(source, "padl.json" if source.lstrip().startswith("{") else "padl.yaml")
