"""Whether the `path` of a step can be a model or code at all, by its text; standard library only.

Whether this installation allows the URL's scheme or the folder is decided where it is fetched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

GIT_SCHEMES = ("https", "http", "ssh", "git", "file")
SCHEMA_SUFFIXES = (".json", ".yaml", ".yml")
EXAMPLE = "write it like https://host/path or git@host:path"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)")
_HELPER = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*::")
_SCP = re.compile(r"(?:([^/@:]+)@)?([^/@:]+):(.*)")
_ADDRESS = re.compile(r"(?:(?P<user>[^/@]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/@:]*)(?::[0-9]{1,5})?(?P<path>/.*)?")


@dataclass(frozen=True, slots=True)
class Fault:
    message: str
    hint: str = ""


def is_git(path: str) -> bool:
    """A URL of a git repository, in the form with a scheme or in scp's `user@host:path`; else a folder."""
    return bool(_SCHEME.fullmatch(path) or _HELPER.match(path) or _SCP.fullmatch(path))


def is_url(path: str) -> bool:
    return bool(_SCHEME.fullmatch(path))


def model_fault(path: str) -> Fault | None:
    """What is wrong with a model's path; None when nothing is."""
    if fault := _fault_of_any(path):
        return fault
    match = _SCHEME.fullmatch(path)
    return _spaces(path) or _address_fault(*match.groups()) if match else _folder_fault(path)


def code_fault(path: str) -> Fault | None:
    """What is wrong with the path of code; None when nothing is."""
    if fault := _fault_of_any(path):
        return fault
    return _git_fault(path) if is_git(path) else _folder_fault(path)


def schema_fault(path: str) -> Fault | None:
    """What is wrong with the path of a schema; None when nothing is. It is a file beside the PADL file or in a root."""
    if fault := _fault_of_any(path):
        return fault
    if is_git(path):
        return Fault("a schema is not fetched from a URL", "put the file beside the PADL file, or the schema in here")
    if not path.endswith(SCHEMA_SUFFIXES):
        return Fault(f"'{path[-40:]}' does not tell the syntax", f"a file that ends in {', '.join(SCHEMA_SUFFIXES)}")
    return _folder_fault(path)


def _fault_of_any(path: str) -> Fault | None:
    if match := _CONTROL.search(path):
        return Fault(f"the path has the control character U+{ord(match.group()):04X} in it")
    if path.startswith("-"):
        return Fault(
            "the path begins with '-', which programs take for an option",
            "a folder of this name is written with ./ before it",
        )
    return None


def _git_fault(path: str) -> Fault | None:
    if _HELPER.match(path):
        return Fault("git remote helpers (name::address) are not allowed", f"write a URL of {', '.join(GIT_SCHEMES)}")
    if fault := _spaces(path):
        return fault
    match = _SCHEME.fullmatch(path)
    if match is None:
        return _scp_fault(path)
    if match.group(1).lower() not in GIT_SCHEMES:
        return Fault(f"git over {match.group(1)} is not known", f"allowed: {', '.join(GIT_SCHEMES)}")
    return None if match.group(1).lower() == "file" else _address_fault(*match.groups())


def _scp_fault(path: str) -> Fault | None:
    match = _SCP.fullmatch(path)
    if match and any((part or "").startswith("-") for part in match.groups()):
        return _option()
    return None


def _address_fault(scheme: str, address: str) -> Fault | None:
    match = _ADDRESS.fullmatch(address)
    if match is None or not match["host"]:
        return Fault("the URL names no host", EXAMPLE)
    user = match["user"] or ""
    if ":" in user or (user and scheme.lower() in ("http", "https")):
        return Fault("the URL has credentials in it", "leave them out; git has credential helpers and SSH keys")
    parts = (user, match["host"], (match["path"] or "").lstrip("/"))
    return _option() if any(part.startswith("-") for part in parts) else None


def _option() -> Fault:
    return Fault("a part of the URL begins with '-', which git and ssh take for an option", EXAMPLE)


def _spaces(path: str) -> Fault | None:
    return (
        Fault("the URL has white space in it", "take it out; a space that belongs there is written %20")
        if re.search(r"\s", path)
        else None
    )


def _folder_fault(path: str) -> Fault | None:
    if "\\" in path:
        return Fault("the path has a backslash in it", "separate folders by '/'")
    if path.startswith("~"):
        return Fault("'~' is not expanded", "write the path relative to the PADL file, or absolute")
    if _leaves(path):
        return Fault("the path leaves its folder by '..'", "files stay beside the PADL file or under a model root")
    return None


def _leaves(path: str) -> bool:
    """Whether some prefix of `path` is above where it begins."""
    depth = 0
    for part in path.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return True
    return False
