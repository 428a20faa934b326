from __future__ import annotations

import pytest

from packer_lib.runtime.connectors.memory import Memory
from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import ConnectorSuite, Ends, fresh


class TestMemory(ConnectorSuite):
    connector = Memory
    reaches = ()

    @pytest.fixture
    def ends(self) -> Ends:
        queue = QueueSpec("q", "memory", "here", 0, fresh())
        return queue, queue
