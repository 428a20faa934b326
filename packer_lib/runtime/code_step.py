"""A code step: the user's own function, imported from the step's folder; standard library only.

The function gets one value a call and returns one value, `None` to drop it, or a generator for many. Globals of its
module are kept between calls.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import invalidate_caches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import GeneratorType, ModuleType
from typing import Any

from .contract import HandlerUnusable, StepFailed
from .manifest import StepSpec
from .namespace import Namespace

REASON_LIMIT = 500


class CodeStep:
    """The code step `spec` of the bundle in `bundle`."""

    framework = "python"
    mark = b""

    def __init__(self, spec: StepSpec, bundle: Path) -> None:
        self.spec = spec
        self._folder = (bundle / spec.path).resolve()
        self._entry = self._folder / spec.entrypoint
        self._handler: Callable[[Any], Any] | None = None
        self._namespace: Namespace | None = None

    def load(self) -> None:
        """Imports the entry file and finds the function; `HandlerUnusable` says what is wrong in which line of it."""
        if not self._entry.is_file():
            raise HandlerUnusable(self._missing_file())
        namespace = self._namespace = Namespace(self._folder, self._entry)
        namespace.activate()
        self._handler = find_handler(self._import(namespace), self.spec.function, self._label())

    def run(self, values: Sequence[Any]) -> list[list[Any] | StepFailed]:
        """Per value what the handler made of it: no value, one, or many."""
        if self._handler is None or self._namespace is None:
            raise RuntimeError(f"step {self.spec.name!r} is not loaded")
        self._namespace.activate()
        return [self._handle(self._handler, value) for value in values]

    def columns(self) -> tuple[str, ...]:
        return ()

    def tensors(self) -> tuple[None, None]:
        return None, None

    def close(self) -> None:
        if self._namespace is not None:
            self._namespace.deactivate()

    def _handle(self, handler: Callable[[Any], Any], value: Any) -> list[Any] | StepFailed:
        try:
            answer = handler(value)
            if isinstance(answer, GeneratorType):
                return list(answer)
        except (Exception, SystemExit) as error:
            failed = StepFailed(self.spec.name, "handle", self._explain(error))
            failed.__cause__ = error
            return failed
        return [] if answer is None else [answer]

    def _import(self, namespace: Namespace) -> ModuleType:
        name = f"mlpacker_code:{self.spec.name.replace('.', '/')}"
        found = spec_from_file_location(name, self._entry)
        if found is None or found.loader is None:
            raise HandlerUnusable(
                f"{self._label()} is not a Python file; entrypoint names the file that has the function"
            )
        invalidate_caches()
        module = sys.modules[name] = module_from_spec(found)
        if namespace.owns(
            self._entry.stem
        ):  # so that `from main import x` in a neighbouring file does not run it twice
            sys.modules[self._entry.stem] = module
        try:
            found.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise HandlerUnusable(
                f"{self._label()} cannot be imported: {self._explain(error)}{_remedy(error)}"
            ) from error
        return module

    def _label(self) -> str:
        return f"{self.spec.path}/{self.spec.entrypoint}"

    def _missing_file(self) -> str:
        there = sorted(path.name for path in self._folder.glob("*.py")) if self._folder.is_dir() else []
        near = get_close_matches(self.spec.entrypoint, there, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{self._label()} does not exist; Python files there: {', '.join(there) or 'none'}{hint}"

    def _explain(self, error: BaseException) -> str:
        """Type, message and the deepest line that is the user's own: `ValueError: no speed (main.py:12)`."""
        place = _place(error, self._folder)
        text = f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__
        return f"{text} ({place})" if place else text


def find_handler(module: ModuleType, function: str, label: str) -> Callable[[Any], Any]:
    """`function` of `module`, or `HandlerUnusable` with the callables that are there."""
    if not hasattr(module, function):
        own = sorted(
            name
            for name, item in vars(module).items()
            if callable(item) and getattr(item, "__module__", "") == module.__name__
        )
        near = get_close_matches(function, own, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise HandlerUnusable(f"{label} has no function {function!r}; there is {', '.join(own) or 'none'}{hint}")
    handler: Callable[[Any], Any] = getattr(module, function)
    if not callable(handler):
        raise HandlerUnusable(f"{label}: {function!r} is {type(handler).__name__}, not a function")
    if inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler):
        raise HandlerUnusable(f"{label}: {function!r} is async; write it with plain `def`")
    _check_arity(handler, f"{label}: {function!r}")
    return handler


def _check_arity(handler: Callable[[Any], Any], label: str) -> None:
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # some built-in callables have none
    try:
        signature.bind(None)
    except TypeError:
        raise HandlerUnusable(f"{label} takes {signature}; it is called with one value") from None


def one_line(error: BaseException) -> str:
    """The message of `error` on one line, cut to a length that fits headers and logs."""
    text = " ".join(str(error).split())
    return text if len(text) <= REASON_LIMIT else f"{text[:REASON_LIMIT]}…"


def _place(error: BaseException, folder: Path) -> str:
    """`file:line` of the deepest frame inside `folder`; for a syntax error the line it names."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
    own = [(Path(file), line) for file, line in places if Path(file).is_relative_to(folder)]
    return f"{own[-1][0].relative_to(folder)}:{own[-1][1]}" if own else ""


def _remedy(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "; a package belongs in the step's requirements.txt, a file of your own beside the entry file"
    return ""
