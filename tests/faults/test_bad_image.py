"""R17: what comes is broken in a way that no check finds before it runs. What was there goes on answering."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.faults.extent import ALL
from tests.faults.failing import fails
from tests.faults.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]
PLACES = {
    "container, edge_node": {"machines": ("edge_node",), "containerized": True},
    "process, bare": {"machines": ("bare",), "containerized": False},
    "process, this machine": {"machines": (), "containerized": False},
}
SAYS = {"crashes": "out of luck", "never healthy": "not ready after", "dies after 10 s": "out of luck"}
FEW = [("container, edge_node", "crashes"), *(("process, this machine", trouble) for trouble in SAYS)]


@pytest.mark.parametrize(("where", "trouble"), itertools.product(PLACES, SAYS) if ALL else FEW)
def test_the_release_before_answers_every_request(place: Callable[..., Site], where: str, trouble: str) -> None:
    how = dict(PLACES[where])
    site = place(*how.pop("machines"), **how)  # type: ignore[misc]
    site.live(2)
    site.write(3, trouble)
    patience = {"MLPACKER__DEPLOY__WATCH_SECONDS": "12" if trouble.startswith("dies") else "1"}
    patience["MLPACKER__DEPLOY__READY_TIMEOUT"] = "10"
    fails(site, f"the new release {trouble}", where, code=7, says=(SAYS[trouble],), **patience)
