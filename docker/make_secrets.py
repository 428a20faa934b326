"""Makes the secrets of this stack, once: run as root by the service `secrets`, before anything else starts.

Each service that needs secrets has a volume of its own for them, mounted here below `/secrets` and in the service at
`/run/secrets`, so that none sees another's. What is there stays. Standard library, and bcrypt for the registry.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

import bcrypt

ROOT = Path("/secrets")
VOLUMES = Path("/data")
# Who the services run as (`user:` in the compose file): user and group.
AIRFLOW, DATABASE, BROKER, OTHERS, NOBODY_ELSE = (50000, 0), (999, 999), (1883, 1883), (1000, 1000), (0, 0)
DATA = {
    "airflow-logs": AIRFLOW,
    "dag-bundles": AIRFLOW,
    "mlpacker-home": AIRFLOW,
    "postgres": DATABASE,
    "redis": DATABASE,
    "mqtt": BROKER,
    "kafka": OTHERS,
    "registry": OTHERS,
}
MQTT_ROUNDS = 100_000


@dataclass(frozen=True, slots=True)
class Folder:
    """The volume of one service, and the user and group it runs as."""

    name: str
    owner: tuple[int, int]

    def keep(self, file: str, text: str) -> str:
        """The secret as it is in `file`; there as `text` if it was not. Mode 0600, its service's own."""
        path = ROOT / self.name / file
        if not path.exists():
            aside = path.with_name(f".{file}")
            aside.touch(mode=0o600)
            aside.write_text(text, encoding="utf-8")
            os.chown(aside, *self.owner)
            aside.rename(path)
        return path.read_text(encoding="utf-8")

    def close(self) -> None:
        os.chown(ROOT / self.name, *self.owner)
        (ROOT / self.name).chmod(0o700)


def main() -> int:
    password = _passwords()
    makers = (_worker, _database, _api, _postgres, _redis, _mqtt, _registry)
    for make in makers:
        make(password).close()
    for name, owner in DATA.items():
        os.chown(VOLUMES / name, *owner)
    return 0


def _passwords() -> dict[str, str]:
    """What two services share, each in its own form. Only this service sees the volume that keeps them."""
    folder = Folder("master", NOBODY_ELSE)
    names = ("postgres", "redis", "mqtt", "registry")
    made = {name: folder.keep(name, secrets.token_urlsafe(24)) for name in names}
    folder.close()
    return made


def _worker(password: dict[str, str]) -> Folder:
    """What each of Airflow's services has, and all that the worker has, where the code of a PADL file's author runs."""
    folder = Folder("worker", AIRFLOW)
    queue = f"redis://:{password['redis']}@redis:6379"
    folder.keep("broker_url", f"{queue}/0")
    folder.keep("result_backend", f"{queue}/1")
    folder.keep("api_secret_key", secrets.token_urlsafe(48))
    folder.keep("mqtt_password", password["mqtt"])
    folder.keep("registry_password", password["registry"])
    return folder


def _database(password: dict[str, str]) -> Folder:
    """The database and the key of the connections in it: for all of Airflow's services but the worker."""
    folder = Folder("database", AIRFLOW)
    folder.keep("sql_alchemy_conn", f"postgresql+psycopg2://airflow:{password['postgres']}@postgres/airflow")
    folder.keep("fernet_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    return folder


def _api(_: dict[str, str]) -> Folder:
    """What makes an administrator: for the api-server, and for the scheduler, which signs the tokens of tasks."""
    folder = Folder("api", AIRFLOW)
    folder.keep("jwt_secret", secrets.token_urlsafe(64))
    folder.keep("passwords.json", json.dumps({"admin": secrets.token_urlsafe(15)}))
    return folder


def _postgres(password: dict[str, str]) -> Folder:
    folder = Folder("postgres", DATABASE)
    folder.keep("password", password["postgres"])
    return folder


def _redis(password: dict[str, str]) -> Folder:
    folder = Folder("redis", DATABASE)
    folder.keep("redis.conf", f"requirepass {password['redis']}\n")
    folder.keep("password", password["redis"])
    return folder


def _mqtt(password: dict[str, str]) -> Folder:
    folder = Folder("mqtt", BROKER)
    folder.keep("passwd", f"mlpacker:{_mosquitto(password['mqtt'])}\n")
    # Options of the client of the health check, which looks for them under this name.
    folder.keep("mosquitto_sub", f"-u mlpacker\n-P {password['mqtt']}\n")
    return folder


def _registry(password: dict[str, str]) -> Folder:
    folder = Folder("registry", OTHERS)
    hashed = bcrypt.hashpw(password["registry"].encode(), bcrypt.gensalt()).decode()
    folder.keep("htpasswd", f"mlpacker:{hashed}\n")
    return folder


def _mosquitto(password: str) -> str:
    """As mosquitto_passwd writes it: PBKDF2 with SHA-512, its number of rounds, salt and key."""
    salt = secrets.token_bytes(12)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, MQTT_ROUNDS, 64)
    return f"$7${MQTT_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
