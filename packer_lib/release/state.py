"""What a process is doing, in supervisor's words, whatever runs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class State:
    """`word` is RUNNING, STARTING, BACKOFF, FATAL, EXITED, STOPPED, STOPPING; UNKNOWN without a process of that name.

    `pid` is 0 without one; `id` a container's; `text` what is known of why.
    """

    word: str
    pid: int = 0
    text: str = ""
    id: str = ""

    @property
    def alive(self) -> bool:
        return self.word in ("RUNNING", "STARTING")
