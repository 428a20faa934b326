"""Keys and passwords of this lab, made once: a log-in key, a host key per machine, the registry's password."""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path

import bcrypt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.lab.place import FOLDER
from tests.lab.spec import MACHINES, PARTS, REGISTRY, REGISTRY_AUTH, Part

LOGIN_KEY = FOLDER / "id_ed25519"
KNOWN_HOSTS = FOLDER / "known_hosts"
REGISTRY_FILE = FOLDER / "registry.json"
CONFIG = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: /var/lib/registry}}, delete: {{enabled: true}}}}
http: {{addr: ':{port}'}}
"""
AUTH = "auth: {htpasswd: {realm: lab, path: /lab/htpasswd}}\n"


def files(part: Part) -> Path:
    """The folder that `part` sees as /lab."""
    return FOLDER / part.name


def make(resolv: str) -> None:
    """Writes what is missing; what is there stays. `resolv` is the machines' resolv.conf."""
    FOLDER.mkdir(parents=True, exist_ok=True, mode=0o700)
    _key(LOGIN_KEY)
    for machine in MACHINES:
        folder = files(machine)
        folder.mkdir(exist_ok=True)
        _key(folder / "ssh_host_ed25519_key")
        shutil.copy(LOGIN_KEY.with_suffix(".pub"), folder / "authorized_keys")
        (folder / "resolv.conf").write_text(resolv)
    lines = (f"{machine.name},{machine.address} {host_key(machine)}\n" for machine in MACHINES)
    KNOWN_HOSTS.write_text("".join(lines))
    _registries()


def host_key(machine: Part) -> str:
    """`ssh-ed25519 AAAA…`, as a PADL file's host_key wants it."""
    return (files(machine) / "ssh_host_ed25519_key.pub").read_text().strip()


def registry_login() -> tuple[str, str]:
    """User and password of the registry that asks for them."""
    stored = json.loads(REGISTRY_FILE.read_text())
    return stored["user"], stored["password"]


def hosts_lines(on_box: bool) -> list[str]:
    return [f"{part.on_box if on_box else part.address} {part.name}" for part in PARTS]


def _key(path: Path) -> None:
    if path.exists():
        return
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    Path(f"{path}.pub").write_bytes(public + b"\n")
    path.touch(mode=0o600)
    path.write_bytes(private)


def _registries() -> None:
    if not REGISTRY_FILE.exists():
        REGISTRY_FILE.touch(mode=0o600)
        REGISTRY_FILE.write_text(json.dumps({"user": "lab", "password": secrets.token_urlsafe(16)}))
    for part in (REGISTRY, REGISTRY_AUTH):
        files(part).mkdir(exist_ok=True)
        auth = AUTH if part is REGISTRY_AUTH else ""
        (files(part) / "config.yml").write_text(CONFIG.format(port=part.port) + auth)
    htpasswd = files(REGISTRY_AUTH) / "htpasswd"
    if not htpasswd.exists():
        user, password = registry_login()
        htpasswd.write_text(f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=5)).decode()}\n")
