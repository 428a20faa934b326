"""What the docker client said, for people: the lines that matter, no secret, and what to do about it. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from packer_lib.errors import printable
from packer_lib.hosts import Result
from packer_lib.settings import Settings

# BuildKit's plain output: `#9 4.467 error: …`; its own lines (`#9 DONE`, the command once more) say nothing
STEP_LINE = re.compile(r"#\d+ \d+\.\d+ (?P<text>.*)")
FAILED = re.compile(r"^(?:#\d+ )?(?:ERROR|error|failed to)[: ].*")
LONGEST = 400

HINTS: tuple[tuple[str, str], ...] = (
    (r"no space left on device", "{machine}: no room on the disk of the engine: `docker system df` there says of what "
     "(usually /var/lib/docker)"),
    (r"[Cc]annot connect to the Docker daemon|error during connect|docker\.sock: connect|docker: (?:No such|Perm)",
     "{machine}: is the engine running (systemctl status docker), may this user ask it (group docker), and is "
     "MLPACKER__BUILD__DOCKER the right client?"),
    (r"permission denied while trying to connect", "{machine}: this user may not ask the engine: "
     "add it to the group docker, then log in again"),
    (r"unknown flag: --secret|BuildKit is (?:enabled but|not)|buildx component is missing",
     "this docker client cannot build with BuildKit: install docker-buildx, or name another client in "
     "MLPACKER__BUILD__DOCKER"),
    (r"server gave HTTP response to HTTPS client", "{machine}: the registry speaks plain HTTP, which its engine trusts "
     'only when /etc/docker/daemon.json says {{"insecure-registries": ["{registry}"]}} (then restart docker)'),
    (r"x509|certificate signed by unknown authority|tls: failed to verify", "{machine}: its engine does not trust the "
     "registry's certificate: put its CA into /etc/docker/certs.d/{registry}/ca.crt"),
    (r"unauthorized|no basic auth credentials|authentication required|401|denied: ", "{registry} wants another login: "
     "MLPACKER__REGISTRY__USER and __PASSWORD (or __PASSWORD_FILE), or the Airflow connection"),
    (r"no matching manifest|does not match the specified platform|exec format error",
     "the image is for another kind of machine: set MLPACKER__BUILD__PLATFORM (linux/amd64, linux/arm64), and a base "
     "image that has it"),
    (r"manifest unknown|not found: manifest", "the registry no longer has this image: deploy again, which pushes it"),
    (r"connection refused|no such host|i/o timeout|Client\.Timeout|network is unreachable|deadline exceeded|EOF$",
     "{machine}: {registry} does not answer: is MLPACKER__REGISTRY__HOST right, and reachable from there?"),
)  # fmt: skip
BUILD_HINTS: tuple[tuple[str, str], ...] = (
    HINTS[0], HINTS[1], HINTS[2], HINTS[3],
    (r"failed to (?:solve|resolve)[^\n]*(?:{base}|failed to resolve source metadata)|pull access denied"
     r"|manifest unknown|failed to do request",
     "the base image {base} cannot be fetched: name one that can be in MLPACKER__BUILD__BASE_IMAGE (a Debian or Ubuntu "
     "with python3 and venv), or pull it first"),
    (r"CERTIFICATE_VERIFY_FAILED|invalid peer certificate|UnknownIssuer|SSLError|self.signed certificate",
     "the index is reached through something that has its own certificates: set MLPACKER__BUILD__CA_BUNDLE to a file "
     "with them (e.g. /etc/ssl/certs/ca-certificates.crt)"),
    (r"hash mismatch|Hash mismatch|THESE PACKAGES DO NOT MATCH", "the index offers other files than the lock names: is "
     "MLPACKER__BUILD__INDEX_URL a mirror that changes packages?"),
    (r"401 Unauthorized|403 Forbidden", "the index wants a login: put it into MLPACKER__BUILD__INDEX_URL "
     "(https://user:password@…); it stays a secret"),
    (r"dns error|[Ff]ailed to fetch|Could not connect|Connection refused|NewConnectionError|timed out"
     r"|No matching distrib|Could not find a version", "the package index is not reachable from inside a build: look "
     "at MLPACKER__BUILD__INDEX_URL, MLPACKER__BUILD__CA_BUNDLE and the engine's network"),
    (r"no wheels|has no wheel|is missing .*wheel|no usable wheels", "there is no wheel of it for this Python and "
     "machine: choose a version that has one, or another base image"),
    (r"python3: not found|No module named venv|ensurepip is not", "the base image needs python3 with venv (on Debian: "
     "python3-venv): see MLPACKER__BUILD__BASE_IMAGE"),
    (r"exec format error", HINTS[7][1]),
)  # fmt: skip


def hint(said: str, hints: tuple[tuple[str, str], ...], **values: str) -> str:
    """What to do about the failures that people meet; empty for others."""
    for pattern, text in hints:
        if re.search(pattern.replace("{base}", re.escape(values.get("base", "")) or "(?!)"), said, re.MULTILINE):
            return text.format(**values)
    return ""


def build_lines(result: Result, lines: int = 8) -> str:
    """What the failing command of a build said; else BuildKit's own last word."""
    said = (result.out + "\n" + result.err).splitlines()
    steps = [found["text"] for line in said if (found := STEP_LINE.match(line)) and found["text"].strip()]
    last = [line.partition("ERROR: ")[2] or line for line in said if FAILED.match(line)][-1:]
    if steps and (not last or "executor failed" in last[0] or "did not complete successfully" in last[0]):
        last = steps[-lines:]
    return "\n".join(_short(line) for line in last) or result.tail(3)


def said(result: Result, lines: int = 3) -> str:
    """The client's last words."""
    return "\n".join(_short(line) for line in result.tail(lines).splitlines())


def _short(line: str) -> str:
    return printable(line if len(line) <= LONGEST else f"{line[:LONGEST]}…")


def without_secrets(text: str, settings: Settings) -> str:
    """No password of the index or the registry, whoever repeats it."""
    secret = urlsplit(settings.index_url).password or ""
    for value in (secret, settings.registry_password):
        text = text.replace(value, "***") if value else text
    return text
