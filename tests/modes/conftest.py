"""One Airflow for all modes, and nothing of it left on any machine when they are through."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.modes.installation import Installation, installation


@pytest.fixture(scope="package")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("modes")) as made:
        yield made
