"""What the tests on a lab machine share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import place as places


@pytest.fixture
def place(tmp_path: Path) -> Iterator[places.Place]:
    with places.made("cloud_2", tmp_path) as made:
        yield made
