"""A release that fails, while its users go on asking: nothing of what was there is different afterwards."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tests.faults.site import Site
from tests.faults.table import TABLE
from tests.faults.users import asking


def fails(
    site: Site, fault: str, where: str, *, code: int, says: tuple[str, ...], during: Any = None, **env: str
) -> None:
    """Deploys what the site has written, with version 2 live: it ends with `code` and `says` all that, users of
    version 2 notice nothing, and what runs is what ran. The fault is there `during` that context."""
    before, kept = site.processes(), site.left()
    at: AbstractContextManager[Any] = during or nullcontext()
    with asking(site.endpoint, [7]) as users, at:
        done = site.deploy(**env)
    TABLE.add(fault, where, users, f"exit {done.returncode}, all as before")
    assert done.returncode == code, done.stderr
    assert [text for text in says if text not in done.stderr] == [], done.stderr
    assert users.lost == 0, users
    assert users.all_among(site.answer(2)), users
    assert site.processes() == before
    left = site.left()
    assert left == kept, f"{left}, not {kept}"
