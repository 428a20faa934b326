# ruff: noqa: PTH110, PTH111, PTH114, PTH118, PTH120, PTH123
"""Looks at a machine and says in one line of JSON what is there: standard library only, Python ≥3.8; changes nothing.

Run as `python3 -I -S - HOME DOCKER WORD…` with this text on standard input; `preflight` judges what it says. A word is
`container`, `native` or `registry:<host>`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ANSWER_WITHIN = 30
UV = ("~/.local/bin/uv", "/usr/local/bin/uv", "/usr/bin/uv")


def main(home: str, program: str, *words: str) -> None:
    facts: dict[str, Any] = {"home": folder(home), "disk": disk(home), "python": list(sys.version_info[:2])}
    facts["arch"] = os.uname().machine
    if "container" in words:
        facts["docker"] = docker(program)
    if "native" in words:
        facts["lingers"] = lingers()
        facts["uv"] = any(os.access(os.path.expanduser(place), os.X_OK) for place in UV)
    allowed = facts.get("docker", {}).get("insecure", [])
    facts["registries"] = {word[9:]: registry(word[9:], allowed) for word in words if word.startswith("registry:")}
    print(json.dumps(facts))


def folder(path: str) -> dict[str, Any]:
    """`path` itself, and the folder that is there of those above it."""
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    ours = os.path.lexists(path)
    state = os.lstat(path) if ours else None
    return {
        "there": there,
        "writable": os.access(there, os.W_OK | os.X_OK),
        "link": os.path.islink(path),
        "owner": state.st_uid if state else os.getuid(),
        "mode": state.st_mode & 0o777 if state else 0o700,
        "uid": os.getuid(),
        "executable": not os.statvfs(there).f_flag & os.ST_NOEXEC,
    }


def disk(path: str) -> dict[str, int]:
    """Free bytes and files, as far as this user may use them."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return {"bytes": found.f_bavail * found.f_frsize, "files": found.f_favail if found.f_files else -1}


def docker(program: str) -> dict[str, Any]:
    code, out, err = call(program, "info", "--format", "{{json .}}")
    if code == 127:
        return {"client": False, "engine": False, "said": ""}
    try:
        info = json.loads(out) or {}
    except ValueError:
        info = {}
    errors = info.get("ServerErrors") or ([err.strip()] if code else [])
    root = info.get("DockerRootDir") or "/var/lib/docker"
    return {
        "client": True,
        "engine": bool(info.get("ServerVersion")) and not errors,
        "version": info.get("ServerVersion") or "",
        "arch": info.get("Architecture") or "",
        "said": " ".join(str(error) for error in errors)[:500],
        "disk": disk(root),
        "installed": os.path.exists("/var/run/docker.sock") or os.path.exists("/lib/systemd/system/docker.service"),
        "insecure": insecure(info.get("RegistryConfig") or {}),
    }


def insecure(config: dict[str, Any]) -> list[str]:
    """Registries, and networks of them, that the engine speaks to without TLS."""
    entries = (config.get("IndexConfigs") or {}).items()
    networks = config.get("InsecureRegistryCIDRs") or []
    return [name for name, entry in entries if not entry.get("Secure", True)] + list(networks)


def allows(host: str, insecure: list[str]) -> bool:
    """Whether the engine speaks to that registry without TLS."""
    import ipaddress
    import socket

    if host in insecure:
        return True
    try:
        address = ipaddress.ip_address(socket.gethostbyname(host.partition(":")[0]))
    except (OSError, ValueError):
        return False
    return any(address in ipaddress.ip_network(network) for network in insecure if "/" in network)


def lingers() -> dict[str, Any]:
    """Whether processes of this user outlive his logins: logind may be told to end them."""
    import pwd

    user = pwd.getpwuid(os.getuid()).pw_name
    killed = False
    for place in ("/etc/systemd/logind.conf", "/usr/lib/systemd/logind.conf"):
        killed = killed or "\nkilluserprocesses=yes" in ("\n" + text(place)).lower().replace(" ", "")
    return {
        "killed": killed and os.path.exists("/run/systemd/system"),
        "lingering": os.path.exists(os.path.join("/var/lib/systemd/linger", user)),
        "user": user,
    }


def registry(host: str, insecure: list[str]) -> dict[str, Any]:
    """How its `/v2/` answers there: `https`, `http` (plain only, `allowed` or not), or neither and why."""
    import http.client
    import ssl
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    said = ""
    for scheme in ("https", "http"):
        try:
            urlopen(scheme + "://" + host + "/v2/", timeout=10).close()  # noqa: S310
        except HTTPError as answer:
            if answer.code in (401, 403):
                return {"scheme": scheme, "said": "", "allowed": allows(host, insecure)}
            said = said or str(answer)
        except (URLError, OSError, ssl.SSLError, http.client.HTTPException) as error:
            said = said or str(getattr(error, "reason", error))
        else:
            return {"scheme": scheme, "said": "", "allowed": allows(host, insecure)}
    return {"scheme": "", "said": said, "allowed": False}


def call(*argv: str) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_WITHIN, check=False
        )
    except OSError:
        return 127, "", ""
    except subprocess.TimeoutExpired:
        return 124, "", "no answer in {} s".format(ANSWER_WITHIN)  # noqa: UP032
    return done.returncode, done.stdout, done.stderr


def text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
