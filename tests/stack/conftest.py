"""The stack once for all of this folder's tests; what it leaves on the engine afterwards is an error."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.stack import Stack, build_images
from tests.support import require


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    require("docker-compose", "apt-get install docker-compose")
    build_images()
    with tempfile.TemporaryDirectory(prefix="mlpacker-stack-") as folder:
        Path(folder).chmod(0o755)
        found = Stack(Path(folder), f"mlpackertest{os.getpid()}")
        try:
            found.up()
            yield found
        finally:
            found.down()
            assert found.left() == []
