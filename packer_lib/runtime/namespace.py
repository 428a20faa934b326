"""What `import` finds for one code step, so that two steps may each have a `helper.py`; standard library only.

A step's folder comes first on `sys.path` while the step is active, and the modules imported from it are in
`sys.modules` only then. Lazy imports, `importlib` and unpickling inside a handler therefore see what they would see in
`python main.py`. Only one namespace is active at a time, and it stays so until another takes over: a unit with one code
step never switches. The chain runs on one thread; in a unit with several code steps, a thread that a handler leaves
running must not import lazily.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar


class Namespace:
    """The modules of the step in `folder`, whose entry file lies in `folder` or below it."""

    _active: ClassVar[Namespace | None] = None

    def __init__(self, folder: Path, entry: Path) -> None:
        self._paths = [str(path) for path in dict.fromkeys((entry.parent, folder))]
        self._names = frozenset(name for path in self._paths for name in _importable(Path(path)))
        self._own: dict[str, ModuleType] = {}
        self._foreign: dict[str, ModuleType] = {}
        self._count = -1

    def owns(self, name: str) -> bool:
        """Whether `import name` finds a file of this step."""
        return name in self._names

    def activate(self) -> None:
        """This step's folder and modules are what `import` finds from now on; cheap when they are already."""
        if Namespace._active is self:
            return
        if Namespace._active is not None:
            Namespace._active.deactivate()
        self._foreign = self._take()
        sys.modules.update(self._own)
        sys.path[:0] = self._paths
        self._count = len(sys.modules)
        Namespace._active = self

    def deactivate(self) -> None:
        """As it was before `activate`; what this step imported meanwhile is remembered."""
        if Namespace._active is not self:
            return
        self._own = self._take() if len(sys.modules) != self._count else self._give_back()
        sys.modules.update(self._foreign)
        sys.path[:] = [path for path in sys.path if path not in self._paths]
        Namespace._active = None

    def _take(self) -> dict[str, ModuleType]:
        """Removes every module under one of our names, and returns them."""
        if not any(name in sys.modules for name in self._names):
            return {}
        taken = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in self._names}
        for name in taken:
            del sys.modules[name]
        return taken

    def _give_back(self) -> dict[str, ModuleType]:
        """As `_take`, without looking at every module there is: nothing was imported since `activate`."""
        return {name: sys.modules.pop(name) for name in self._own if name in sys.modules}


def _importable(folder: Path) -> set[str]:
    """Top-level names that `import` finds in `folder`. Those of the standard library keep their meaning."""
    files = {path.name.partition(".")[0] for path in folder.glob("*.py")} | {
        path.name.partition(".")[0] for path in folder.glob("*.so")
    }
    packages = {path.name for path in folder.iterdir() if path.is_dir()}
    return {name for name in files | packages if name.isidentifier()} - sys.stdlib_module_names
