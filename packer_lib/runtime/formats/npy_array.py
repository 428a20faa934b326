"""NumPy's .npy arrays as nested lists, never unpickled. Headers are read once each, runs of alike arrays at one go.

The format: numpy/lib/_format_impl.py. What a header claims is compared with what came before memory is taken for it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import numpy
from numpy.lib import format as npy

from . import Format, NotRead, one_line

HEADER_MOST = 4096
LISTS_MOST = 4096  # and two per element, so that no shape makes much of little


class Layout(NamedTuple):
    """What a header says. `size` is in bytes, of the array without its header."""

    dtype: numpy.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    size: int


class Npy(Format):
    """Booleans, integers, floats of up to 64 bits and text, in any shape."""

    media = "application/x-npy"

    def decode(self, data: bytes) -> Any:
        start, layout = _split(data)
        return _array(layout, data[start:]).tolist()

    def encode(self, value: Any) -> bytes:
        array = numpy.asarray(value)
        if array.dtype.kind not in "biufU" or array.dtype.itemsize == 0:
            raise ValueError(f"npy takes numbers, booleans and text of one shape, the step gave {array.dtype}")
        return _header(array.dtype.descr[0][1], array.shape) + array.tobytes()

    def decode_all(self, datas: Sequence[bytes]) -> list[Any]:
        """Arrays that follow each other with the same header become lists in one call."""
        values: list[Any] = []
        for layout, run in groupby(map(_try_split, datas), key=lambda found: found[1]):
            parts = [part for part, _ in run]
            if isinstance(layout, NotRead):
                values += [layout] * len(parts)
            else:
                many = layout._replace(shape=(len(parts), *layout.shape))
                values += _array(many, b"".join(parts)).tolist() if _plain(layout) else _each(layout, parts)
        return values


def rows(data: bytes, plain: bool) -> list[Any]:
    """Those of the array in `data`: arrays of numbers, or `plain` lists, numbers and texts. Raises as `decode`."""
    start, layout = _split(data)
    if not layout.shape:
        raise ValueError("an array without dimensions has no rows")
    array = _array(layout, data[start:])
    return array.tolist() if plain or array.ndim == 1 or array.dtype.kind == "U" else list(array)


def _plain(layout: Layout) -> bool:
    """Whether such arrays can be laid behind each other."""
    return not layout.fortran and layout.size > 0


def _each(layout: Layout, parts: Sequence[bytes]) -> list[Any]:
    return [_array(layout, part).tolist() for part in parts]


def _array(layout: Layout, body: bytes) -> numpy.ndarray[Any, Any]:
    order: Any = "F" if layout.fortran else "C"
    return numpy.frombuffer(body, layout.dtype).reshape(layout.shape, order=order)


def _try_split(data: bytes) -> tuple[bytes, Layout | NotRead]:
    try:
        start, layout = _split(data)
    except Exception as error:
        return b"", NotRead(one_line(error))
    return data[start:], layout


def _split(data: bytes) -> tuple[int, Layout]:
    """Where the body begins, and what the header says of it."""
    version = (data[6], data[7]) if len(data) >= 12 and data.startswith(npy.MAGIC_PREFIX) else None
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError("no .npy header at its beginning")
    width = 2 if version == (1, 0) else 4
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    if start > HEADER_MOST:
        raise ValueError(f"its header claims {start} bytes, at most {HEADER_MOST} are read")
    layout = _layout(data[:start])
    if layout.size != len(data) - start:
        raise ValueError(f"its header says {layout.size} bytes of data, there are {len(data) - start}")
    return start, layout


@lru_cache(maxsize=256)
def _layout(header: bytes) -> Layout:
    version = (header[6], header[7])
    stream = io.BytesIO(header[8:])
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(stream, max_header_size=HEADER_MOST)
    else:
        shape, fortran, dtype = npy.read_array_header_2_0(stream, max_header_size=HEADER_MOST)
    if dtype.hasobject:
        raise ValueError("an array of Python objects is never unpickled (allow_pickle=False)")
    if dtype.kind not in "biufU" or dtype.itemsize == 0 or (dtype.kind == "f" and dtype.itemsize > 8):
        raise ValueError(f"an array of {dtype}; booleans, integers, floats of up to 64 bits and text are read")
    elements, lists = 1, 1
    for length in shape:
        if length < 0:
            raise ValueError(f"its shape is {shape}")
        lists += elements
        elements *= length
    if lists > 2 * elements + LISTS_MOST:
        raise ValueError(f"its shape is {shape}, which makes more lists than elements")
    return Layout(dtype, shape, fortran, elements * dtype.itemsize)


@lru_cache(maxsize=256)
def _header(descr: str, shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()
