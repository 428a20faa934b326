"""What Python and the C library are told about memory, each measured; standard library only."""

from __future__ import annotations

import ctypes
import gc

M_TRIM_THRESHOLD, M_TOP_PAD, M_ARENA_MAX = -1, -2, -8  # of glibc's malloc.h


def keep_freed() -> None:
    """A batch takes some megabytes and frees them again; glibc gives them back to the system and asks for them
    anew each time, which took a quarter of the engine's time. One heap for all threads: what a connection had fetched
    would stay in the heap of its thread while the next one fills another. mallopt(3); other C libraries have no such
    call."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 256 << 20)
        mallopt(M_TOP_PAD, 32 << 20)
        mallopt(M_ARENA_MAX, 1)


def collect_less() -> None:
    """A batch is tens of thousands of objects, none of them garbage; looking through them for cycles after every 700,
    as Python does, took half of a stream's time, and where a model goes a tenth of a second in which nobody is
    answered. What was imported is never looked through again; models are, for one that is replaced is to go."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
