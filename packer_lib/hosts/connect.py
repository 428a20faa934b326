"""One SSH connection: the host's key first, then the login, each with a time-out and words for what went wrong."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import random
import socket
import time
from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING, Any, cast

from packer_lib.errors import DeployFailed, PolicyRefused
from packer_lib.hosts import Unreachable, known
from packer_lib.secrets import Login
from packer_lib.settings import Settings

if TYPE_CHECKING:
    import paramiko

# what it would log with a traceback is raised here, in words
logging.getLogger("paramiko").addHandler(logging.NullHandler())

Connect = Callable[[Login], "paramiko.SSHClient"]

APART = 0.34  # seconds between two connects to one machine; sshd drops who comes faster than it can tell who they are
ATTEMPTS = 4
LOGIN_WITHIN = 30.0  # seconds; sshd may ask a directory, and then looks up our name
KEEPALIVE = 5
GIVEN_UP = 20_000  # milliseconds without an acknowledgement after which the kernel calls a connection cut


class _Busy(Exception):
    """sshd hung up before anything was said."""


def connect(login: Login, settings: Settings) -> paramiko.SSHClient:
    """A connection to a machine whose key is known. Nothing is sent to one whose key is not: `PolicyRefused`.

    `Unreachable` when nobody answers, when sshd has too much to do, or when it refuses the login.
    """
    _refuse_without_secret(login)
    for attempt in range(1, ATTEMPTS + 1):
        _wait_for_turn(login, settings)
        try:
            return _try(login, settings)
        except _Busy as busy:
            if attempt == ATTEMPTS:
                raise Unreachable(
                    f"{who(login)}: sshd hangs up before it says anything ({busy})",
                    "too many logins at once (MaxStartups), or the port is not sshd's: look at sshd's log there",
                ) from None
            time.sleep(attempt * random.uniform(0.5, 1.0))  # noqa: S311  not a secret
    raise AssertionError("not reached")


def who(login: Login) -> str:
    """How messages call it."""
    place = login.hostname if login.port == 22 else f"{login.hostname}:{login.port}"
    return place if login.machine == login.hostname else f"{login.machine} ({place})"


def _refuse_without_secret(login: Login) -> None:
    if login.conn:
        raise DeployFailed(
            f"{login.machine}: the connection {login.conn!r} is Airflow's",
            f"outside Airflow, set AIRFLOW_CONN_{login.conn.upper()} to it, as JSON",
        )
    if not (login.password or login.key_file or login.key_text or login.own_keys):
        raise PolicyRefused(
            f"{login.machine}: the PADL file names no secret for it",
            "give it a conn_id, key_file or pass_env; SSH agent and own keys are the command line's only",
        )


def _try(login: Login, settings: Settings) -> paramiko.SSHClient:
    import paramiko

    client = paramiko.SSHClient()
    _know(client, login, settings)
    try:
        client.connect(
            login.hostname,
            login.port,
            login.user or None,
            timeout=settings.connect_timeout,
            banner_timeout=settings.connect_timeout,
            auth_timeout=LOGIN_WITHIN,
            channel_timeout=LOGIN_WITHIN,
            **_secret(login),
        )
    except BaseException as error:
        client.close()
        _explain(error, login)
        raise
    keep_alive(client)
    return client


def keep_alive(client: paramiko.SSHClient) -> None:
    """Something is always on its way, and 20 s without an acknowledgement end the connection: no call hangs."""
    transport = client.get_transport()
    if transport is not None:
        transport.set_keepalive(KEEPALIVE)
        with contextlib.suppress(OSError, AttributeError):  # a proxy command has no such option
            cast("socket.socket", transport.sock).setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GIVEN_UP)


def _know(client: paramiko.SSHClient, login: Login, settings: Settings) -> None:
    """A known key says which kind of key is asked for; whether it is the right one is `known.require`'s to say."""
    import paramiko

    class Check(paramiko.MissingHostKeyPolicy):
        def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
            found = None if login.host_key else client.get_host_keys().lookup(hostname)
            keys = list(found.values()) if found else []
            known.require(login.host_key, keys, key, login.hostname, login.port, login.machine)

    client.set_missing_host_key_policy(Check())
    name = known.label(login.hostname, login.port)
    if login.host_key and not login.host_key.startswith("SHA256:"):
        entry = paramiko.hostkeys.HostKeyEntry.from_line(f"{name} {login.host_key}")
        if entry is None or entry.key is None:
            raise PolicyRefused(f"{login.machine}: its host_key is not a public key", "as in ssh_host_ed25519_key.pub")
        client.get_host_keys().add(name, entry.key.get_name(), entry.key)
    elif not login.host_key:
        for line in known.load(settings).items():
            for key in line[1].values():
                client.get_host_keys().add(line[0], key.get_name(), key)


def _secret(login: Login) -> dict[str, Any]:
    if login.key_text:
        return {"pkey": _key(login), "allow_agent": False, "look_for_keys": False}
    return {
        "password": login.password or None,
        "key_filename": login.key_file or None,
        "passphrase": login.passphrase or None,
        "allow_agent": login.own_keys,
        "look_for_keys": login.own_keys,
    }


def _key(login: Login) -> paramiko.PKey:
    import paramiko

    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        with contextlib.suppress(paramiko.SSHException, ValueError):
            return kind.from_private_key(StringIO(login.key_text), login.passphrase or None)
    raise DeployFailed(f"{login.machine}: its private key cannot be read", "Ed25519, ECDSA or RSA, and its passphrase")


def _explain(error: BaseException, login: Login) -> None:
    """Raises ours instead, if it is one that people meet. No words of the server: it may say anything."""
    import paramiko

    if isinstance(error, paramiko.BadHostKeyException):
        known.require(login.host_key, [error.expected_key], error.key, login.hostname, login.port, login.machine)
    tried = "a password" if login.password else "the key" if login.key_file or login.key_text else "the SSH agent"
    if isinstance(error, paramiko.PasswordRequiredException):
        raise Unreachable(f"{who(login)}: the key has a passphrase", "load it into the SSH agent") from None
    if isinstance(error, paramiko.AuthenticationException) or "No authentication methods" in str(error):
        raise Unreachable(
            f"{who(login)} refuses the login of {login.user or 'this user'} with {tried}",
            "look at user and secret in the PADL file, and at sshd's log there",
        ) from None
    if isinstance(error, TimeoutError):
        raise Unreachable(f"{who(login)} does not answer", "is it on, and its port open to this machine?") from None
    if isinstance(error, socket.gaierror):
        raise Unreachable(
            f"{login.machine}: nobody knows the host name {login.hostname!r}", "look at `hostname` in the PADL file"
        ) from None
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        raise Unreachable(f"{who(login)}: nothing listens there", "is sshd running, and on that port?") from None
    if isinstance(error, (paramiko.SSHException, EOFError, ConnectionError)):
        raise _Busy(str(error) or type(error).__name__) from None
    if isinstance(error, OSError):
        raise Unreachable(f"{who(login)}: {error.strerror or error}", "look at the network between") from None


def _wait_for_turn(login: Login, settings: Settings) -> None:
    """Every process that deploys from this home comes one after the other to a machine."""
    folder = settings.home / "connects"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = hashlib.sha256(f"{login.hostname}:{login.port}".encode()).hexdigest()[:16]
    with (folder / name).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        last = float(file.read() or 0)
        time.sleep(min(APART, max(0.0, last + APART - time.time())))
        file.truncate(0)
        file.write(str(time.time()))


def shown_key(hostname: str, port: int, settings: Settings) -> paramiko.PKey:
    """The key that sshd there shows now. No user name and no secret is sent; `Unreachable` without an answer."""
    import paramiko

    nobody = Login(machine=hostname, hostname=hostname, port=port)
    _wait_for_turn(nobody, settings)
    try:
        with socket.create_connection((hostname, port), settings.connect_timeout) as plain:
            transport = paramiko.Transport(plain)
            try:
                transport.banner_timeout = settings.connect_timeout
                transport.start_client(timeout=settings.connect_timeout)
                return transport.get_remote_server_key()
            finally:
                transport.close()
    except ConnectionRefusedError:
        raise Unreachable(f"{who(nobody)}: nothing listens there", "is sshd running, and on that port?") from None
    except (OSError, EOFError, paramiko.SSHException) as error:
        with contextlib.suppress(_Busy):
            _explain(error, nobody)
        raise Unreachable(f"{who(nobody)} does not speak SSH", "is the port sshd's?") from None
