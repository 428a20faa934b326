"""Where a unit's log lines go and what they look like, under REST and stream alike; standard library only."""

from __future__ import annotations

import logging
import sys


class OneLine(logging.Formatter):
    """Whatever a message holds, it stays one line; a traceback follows on its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def to_stderr(level: str, unit: str) -> None:
    """Everything of ours from `level` on, of others from warnings on; `unit` stands in every line."""
    handler = logging.StreamHandler(sys.stderr)
    unit = unit.replace("%", "%%")
    handler.setFormatter(OneLine(f"%(asctime)s %(levelname)-7s {unit}: %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("mlpacker").setLevel(level.upper())
