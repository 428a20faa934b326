"""The names that a pickle, or a joblib file, refers to: its own program, run with nothing that does anything.

Python's unpickler in Python, whose only way to anything outside is `find_class`: here that gives a `Named`, which takes
every call and keeps nothing. So the file is read exactly as joblib reads it, arrays between the instructions included,
which is where scanners that only list instructions stop looking.
Source: pickletools; joblib 1.6 numpy_pickle.py (`NumpyArrayWrapper.read_array`).
"""

from __future__ import annotations

import math
import pickle
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import Any, BinaryIO, ClassVar

WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
DTYPE = ("numpy", "dtype")
MAKERS = {("copyreg", "_reconstructor"), ("copyreg", "__newobj__")}  # of an object of the class that they are given
NO_TYPE = "has an array of no known type"
OBJECT_FLAG = 1  # NPY_ITEM_REFCOUNT of a dtype's state: its items are objects
CHUNK = 1 << 20
LARGE = 1 << 16  # texts and bytes from here on are passed over; no name is so long
MOST = 1 << 46  # bytes of an array: far more than a file may have, and far from overflowing 64 bits


class Unreadable(ValueError):
    """No pickle, or one that ends early or does what no honest one does."""


class Named:
    """Whatever the file calls `module.name`, and everything made by it."""

    def __init__(self, name: tuple[str, str], args: tuple[Any, ...] = ()) -> None:
        self.name, self.args = name, args
        self.state: Any = None

    def __call__(self, *args: Any) -> Named:
        if self.name in MAKERS and args and isinstance(args[0], Named):
            return Named(args[0].name)
        return Named(self.name, args)

    def ignore(self, *args: Any) -> None:
        """In place of every change that an unpickler makes."""

    append = extend = add = update = __setitem__ = ignore


_Unpickler: Any = vars(pickle)["_Unpickler"]  # the one in Python, which joblib extends, too


class Walk(_Unpickler):  # type: ignore[misc]
    """Of the pickle in `file`; `names` is what it refers to. `arrays`: as joblib reads it."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def __init__(self, file: BinaryIO, names: set[tuple[str, str]], arrays: bool) -> None:
        super().__init__(file, encoding="latin-1")
        self.file, self.names, self.arrays = file, names, arrays

    def find_class(self, module: str, name: str) -> Named:
        if self.proto < 3:  # names of Python 2, as the unpickler reads them
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.names.add((module, name))
        return Named((module, name))

    def get_extension(self, _code: int) -> None:
        raise Unreadable("names something by a number, which only its author's program knows")

    def load_newobj(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.stack[-1](*args)

    def load_newobj_ex(self) -> None:
        kwargs, args = self.stack.pop(), self.stack.pop()
        self.stack[-1] = self.stack[-1](*args, *kwargs.values())

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Named):
            raise Unreadable("gives a state to a value that has none")
        made: Named = self.stack[-1]
        if made.name == DTYPE:
            made.state = state
        elif made.name == WRAPPER and self.arrays:
            self._pass_over(state)
            self.stack[-1] = Named(("numpy", "ndarray"))

    def _pass_over(self, state: Any) -> None:
        """The array that follows in the file: its items, or a pickle of them."""
        if not isinstance(state, dict):
            raise Unreadable("has an array without a description")
        size = itemsize(state.get("dtype"))
        if size is None:
            Walk(self.file, self.names, arrays=True).load()
            return
        shape = state.get("shape")
        if not isinstance(shape, tuple) or not all(type(one) is int and one >= 0 for one in shape):
            raise Unreadable("has an array without a shape")
        if state.get("numpy_array_alignment_bytes") is not None:
            skip(self.file, self.file.read(1)[0])
        if (whole := math.prod((size, *shape))) > MOST:
            raise Unreadable("has an array that is larger than any")
        skip(self.file, whole)

    def _load_large(self, length: bytes, empty: Any) -> None:
        size = int.from_bytes(length, "little")
        if size < LARGE:
            data = self.read(size)
            self.append(data if isinstance(empty, bytes) else data.decode("utf-8", "surrogatepass"))
            return
        for start in range(0, size, CHUNK):
            self.read(min(CHUNK, size - start))
        self.append(empty)

    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BINBYTES[0]] = lambda self: self._load_large(self.read(4), b"")
    dispatch[pickle.BINBYTES8[0]] = lambda self: self._load_large(self.read(8), b"")
    dispatch[pickle.BYTEARRAY8[0]] = lambda self: self._load_large(self.read(8), b"")
    dispatch[pickle.BINUNICODE[0]] = lambda self: self._load_large(self.read(4), "")
    dispatch[pickle.BINUNICODE8[0]] = lambda self: self._load_large(self.read(8), "")


def names(file: BinaryIO, arrays: bool) -> set[tuple[str, str]]:
    """(module, name) of everything that the pickle in `file` refers to; `Unreadable`."""
    found: set[tuple[str, str]] = set()
    try:
        Walk(file, found, arrays).load()
        more = file.read(1)
    except Exception as error:  # whatever a damaged file makes of it
        why = str(error) if isinstance(error, Unreadable) else f"{type(error).__name__}: {error}"
        raise Damaged(why, found) from None
    if more:
        raise Damaged("has more behind its end", found)
    return found


class Damaged(Unreadable):
    """`found` is what was named before the fault: `pickle` would have run that far, too."""

    def __init__(self, why: str, found: set[tuple[str, str]]) -> None:
        super().__init__(why)
        self.found = found


def skip(file: BinaryIO, size: int) -> None:
    """`Unreadable` when there is less."""
    while size > 0:
        part = len(file.read(min(size, CHUNK)))
        if not part:
            raise Unreadable(f"ends {size} bytes early, in an array")
        size -= part


def itemsize(dtype: Any) -> int | None:
    """Of an array's items in bytes, None for objects. Nothing but what numpy writes is taken, so that an array is never
    longer or shorter here than it is for numpy."""
    match dtype:
        case Named(
            name=("numpy", "dtype"),
            args=(str() as code, *_),
            state=(_, _, inner, _, _, int() as size, _, int() as flags, *_),
        ):
            if re.fullmatch(r"O\d?", code) or (code[:1] == "V" and flags & OBJECT_FLAG):
                return None
            if flags & OBJECT_FLAG or inner is not None:
                raise Unreadable(NO_TYPE)
            if size >= 0 and re.fullmatch(r"[SUV]\d*", code):
                return size
            if size == -1 and re.fullmatch(r"[?biufcMm]\d*", code):
                return int(code[1:] or 1)
    raise Unreadable(NO_TYPE)
