"""docs/images.md says what docs/images/sizes.json has."""

from __future__ import annotations

import json

from tests.sizes import page


def test_the_tables_are_those_of_the_figures() -> None:
    assert page.tables(json.loads(page.FIGURES.read_text())) in page.PAGE.read_text()
