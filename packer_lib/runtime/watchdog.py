"""Notices that a unit does nothing although messages wait for it, and ends it in the end; standard library only.

What is not ready, because a broker is away, is not stalled: it says so by itself. What was in hand when it was ended
counts as a death, see deliveries.py, so that a message that hangs its unit is quarantined in the end.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from threading import Event, Thread, get_ident
from typing import Any

from .manifest import STALLED
from .probes import State

log = logging.getLogger("mlpacker.watchdog")

LAST_LINES = 6


class Watchdog:
    """Sets `state.stalled` once the thread that made this has not moved a message for `seconds` although `waiting()`
    says what waits (or ""), and clears it when it moves again. When it stands still for as long again, `end` is called
    with an exit code: the process is left as it is, and another takes its place. 0 seconds: never."""

    def __init__(
        self,
        state: State,
        waiting: Callable[[], str],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        end: Callable[[int], Any] = os._exit,
    ) -> None:
        self._state, self._waiting, self._seconds, self._clock = state, waiting, seconds, clock
        self._end = end
        self._watched = get_ident()
        self._since = clock()
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        if self._seconds > 0:
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(5)
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        """What never lets another thread run (a regular expression without end) stops this one, too: a timer of
        Python's own, which needs none, ends the process then, with exit code 1."""
        pause = min(5.0, self._seconds / 4)
        faulthandler.dump_traceback_later(2 * self._seconds + pause, exit=True)
        while not self._stop.wait(pause):
            faulthandler.dump_traceback_later(2 * self._seconds + pause, exit=True)
            try:
                self.look()
            except Exception:
                log.exception("looking for what waits failed")

    def look(self) -> None:
        """One look: the time runs from the last moment at which a batch was moved or nothing waited."""
        now = self._clock()
        what = "" if self._state.reason else self._waiting()
        self._since = now if not what else max(self._since, self._state.moved)
        idle = now - self._since
        if idle <= self._seconds:
            if self._state.stalled:
                log.warning("it moves again")
            self._state.stalled = ""
        elif not self._state.stalled:
            self._state.stalled = f"no progress for {idle:.0f} s: {what}"
            log.error("%s; it stands in:\n%s", self._state.stalled, _where(self._watched))
        elif idle > 2 * self._seconds:
            text = "no progress for %.0f s: %s; it is ended (exit code %d), it stands in:\n%s"
            log.critical(text, idle, what, STALLED, _where(self._watched))
            self._end(STALLED)


def _where(thread: int) -> str:
    frame: Any = sys._current_frames().get(thread)
    return "".join(traceback.format_stack(frame)[-LAST_LINES:]) if frame else "a thread that has ended"
