"""R18 on this machine alone, operation by operation: also a unit that is created or removed when the deployer dies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packer_lib.hosts import Result
from packer_lib.hosts.local import LocalHost
from packer_lib.plan import Plan
from packer_lib.release import supervisor
from packer_lib.settings import Settings
from tests.faults.extent import sampled
from tests.tiny import Tiny, tiny

pytestmark = [pytest.mark.native, pytest.mark.slow, pytest.mark.timeout(3600)]
NEVER = 10**9


class Dying(LocalHost):
    """This machine, until the deployer is killed at its operation number `last`; from then on nothing works."""

    def __init__(self, settings: Settings, last: int) -> None:
        super().__init__(settings)
        self.left = last

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def run(self, *args: Any, **kwargs: Any) -> Result:
        self._count()
        return super().run(*args, **kwargs)

    def put(self, *args: Any, **kwargs: Any) -> None:
        self._count()
        super().put(*args, **kwargs)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    made = tiny(tmp_path, monkeypatch)
    yield made
    made.undeploy()


@pytest.mark.parametrize("then", ["one", "three"], ids=["a unit is replaced", "one is removed, another created"])
def test_a_deploy_may_be_killed_at_any_point_and_run_again(here: Tiny, then: str) -> None:
    """Every operation in turn is the last one of a killed deploy; the next deploy always ends in the same state."""
    here.deploy(here.plan("one"))
    here.told = {"one": {"factor": 2, "number": -1}}
    operations = _killed_after(here, NEVER, here.plan(then))
    assert operations > 40
    here.deploy(here.plan("one"))
    for turn, number in enumerate(sampled(range(operations))):
        here.told = {"one": {"factor": 2, "number": turn}}
        assert _killed_after(here, number, here.plan(then)) == number
        here.deploy(here.plan("one"))
        assert (here.unit("one")["state"], here.ask(1, "one")) == ("running", 2), number
        assert not [path for path in here.left() if _is_left_over(path)], number
        assert len(supervisor.ask_all(LocalHost(here.settings), here.layout)) == 2, number  # it and its door


def _is_left_over(path: str) -> bool:
    return "three" in path or ".put-" in path or path.endswith(".next")


def _killed_after(here: Tiny, operations: int, plan: Plan) -> int:
    """How many there were."""
    host = Dying(here.settings, operations)
    try:
        here.deploy(plan, host=host)
    except KeyboardInterrupt:
        _forget_lock(here)
    return operations - max(host.left, 0)


def _forget_lock(here: Tiny) -> None:
    """The killed deployer was this very process, which lives on: say that it does not."""
    for details in here.settings.home.glob("locks/*/details"):
        details.write_text(json.dumps({**json.loads(details.read_text()), "started": "1"}))
