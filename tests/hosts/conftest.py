"""A real sshd for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from packer_lib.hosts.ssh import SshHost
from packer_lib.settings import Settings
from tests.hosts.sshd import Line, Sshd, running


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def remote(sshd: Sshd, here: Settings) -> Iterator[SshHost]:
    host = sshd.host(here)
    yield host
    host.close()


@pytest.fixture
def line(sshd: Sshd) -> Iterator[Line]:
    found = Line(sshd.port)
    yield found
    found.close()
