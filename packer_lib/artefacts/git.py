"""Code from a git repository, at a commit. The git CLI by argv, with everything off that a repository could run.

Measured on git 2.39.5: `git clone "--upload-pack=CMD" X` runs CMD, as a ref given as an option does; with `--` in front
both are plain text. `core.symlinks=false` turns a committed link to /etc/passwd into a small text file.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from packer_lib.artefacts.model import Unfit

TIMEOUT = 300.0
COMMIT = re.compile(r"[0-9a-f]{40}")
REF = re.compile(r"(?!.*(\.\.|//|\.lock$|\.lock/|/$|\.$))[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}")
HELPER = re.compile(r"([A-Za-z0-9+.-]+)::")
SCP_LIKE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*@([A-Za-z0-9][A-Za-z0-9.-]*):(?!//)[^\s:][^\s]*")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
# what git and ssh may see of our environment: where they are, how to reach the network, the user's ssh agent
INHERITED = "PATH TMPDIR SSH_AUTH_SOCK http_proxy https_proxy HTTPS_PROXY NO_PROXY SSL_CERT_FILE GIT_SSL_CAINFO"
SSH = "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oConnectTimeout=20"


@dataclass(frozen=True, slots=True)
class Source:
    """A repository and what to take from it: a branch, a tag or a full commit; "" is the default branch."""

    url: str
    ref: str


def is_url(path: str) -> bool:
    """Whether a code step's `path` is a repository, not a folder: `scheme://…`, `user@host:path`, `helper::…`."""
    return bool(URL.match(path) or SCP_LIKE.fullmatch(path) or HELPER.match(path))


def source(url: str, ref: str | None, protocols: Sequence[str]) -> Source:
    """The checked source; `Unfit` for a protocol not in `protocols`, credentials in the URL, a ref that is no name."""
    protocol = _protocol(url)
    if protocol not in protocols:
        hint = f"allowed are {', '.join(protocols)} (setting MLPACKER__FETCH__GIT_PROTOCOLS)"
        raise Unfit(f"git over {protocol!r} is refused", hint, refused=True)
    if ref and not REF.fullmatch(ref):
        raise Unfit(f"{ref!r} is not a branch, tag or commit", "letters, digits and . _ - / + only", key="ref")
    return Source(url, ref or "")


def _protocol(url: str) -> str:
    if helper := HELPER.match(url):
        return f"{helper[1]}::"
    if SCP_LIKE.fullmatch(url):
        return "ssh"
    parts = urlsplit(url)
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    if password or (user and parts.scheme != "ssh"):
        hint = "use an ssh URL with a deploy key or an agent: what is in a PADL file ends up in logs"
        raise Unfit("the URL holds credentials", hint, refused=True)
    if parts.scheme != "file" and not re.match(r"[A-Za-z0-9\[]", parts.hostname or ""):
        raise Unfit("the URL has no host", "write https://host/path.git or git@host:path.git")
    return parts.scheme.lower()


def resolve(wanted: Source, protocols: Sequence[str]) -> str:
    """The commit that the remote's ref is now, without fetching it. A full commit is taken at its word."""
    if COMMIT.fullmatch(wanted.ref):
        return wanted.ref
    branch, tag = f"refs/heads/{wanted.ref}", f"refs/tags/{wanted.ref}"
    names = [branch, f"{tag}^{{}}", tag] if wanted.ref else ["HEAD"]
    listed = _git(protocols, "ls-remote", "--quiet", "--", wanted.url, *names)
    found = {name: commit for commit, _, name in (line.partition("\t") for line in listed.splitlines())}
    commit = next((found[name] for name in names if name in found), "")
    if not COMMIT.fullmatch(commit):
        what = f"branch or tag {wanted.ref!r}" if wanted.ref else "default branch"
        raise Unfit(f"{wanted.url} has no {what}", "set ref to a branch, a tag or the 40 digits of a commit", key="ref")
    return commit


def checkout(url: str, commit: str, protocols: Sequence[str], folder: Path) -> None:
    """The files of `commit` in the empty `folder`, with `.git` beside them; no history, submodules, hooks or links."""
    here = ("-C", str(folder))
    _git(protocols, *here, "init", "--quiet", "--template=")
    _git(protocols, *here, "fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", url, commit)
    _git(protocols, *here, "checkout", "--quiet", "--detach", "--no-recurse-submodules", commit)


def _git(protocols: Sequence[str], *argv: str) -> str:
    """What `git *argv` printed; `Unfit` with the end of its complaint."""
    command = ["git", *_options(protocols), *argv]
    with tempfile.TemporaryDirectory(prefix="mlpacker-home-") as home:
        try:
            done = subprocess.run(
                command, env=_environment(home), cwd=home, capture_output=True, timeout=TIMEOUT, input=b""
            )
        except FileNotFoundError:
            raise Unfit("git is not on this machine", "install it: apt-get install git") from None
        except subprocess.TimeoutExpired:
            raise Unfit(f"git did not end within {TIMEOUT:.0f} s", "is the host reachable from here?") from None
    if done.returncode:
        complaint = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        text = " / ".join(complaint[:3]) or f"exit code {done.returncode}"
        raise Unfit(f"git: {text}", "can this machine's user read the repository?")
    return done.stdout.decode("utf-8", "replace")


def _options(protocols: Sequence[str]) -> list[str]:
    allowed = [f"protocol.{protocol}.allow=always" for protocol in protocols]
    fixed = ["core.hooksPath=/dev/null", "core.symlinks=false", "core.fsmonitor=false", "submodule.recurse=false"]
    fixed += ["http.followRedirects=false", "fetch.fsckObjects=true", "credential.helper=", "advice.detachedHead=false"]
    return [word for option in ["protocol.allow=never", *allowed, *fixed] for word in ("-c", option)]


def _environment(home: str) -> dict[str, str]:
    """No prompt, no configuration of the user or the machine; ssh only to hosts whose key is already known."""
    inherited = {name: os.environ[name] for name in INHERITED.split() if name in os.environ}
    fixed = {"HOME": home, "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    return {**inherited, **fixed, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "GIT_SSH_COMMAND": SSH}
