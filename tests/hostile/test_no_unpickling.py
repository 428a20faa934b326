"""T3: what could run a file's code is called in the loader of models, and nowhere else in what we ship."""

from __future__ import annotations

import ast
import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from packer_lib.runtime.model_files import pickles
from tests.support import ROOT

SOURCES = sorted(path for part in ("packer_lib", "plugins", "dags") for path in (ROOT / part).rglob("*.py"))
LOADER = {"packer_lib/runtime/frameworks/scikit_learn.py"}
LOADS = {"load", "loads", "load_all", "full_load", "unsafe_load", "Unpickler"}
MODULES = {"pickle", "_pickle", "joblib", "cloudpickle", "dill", "marshal", "shelve", "torch", "yaml", "jsonpickle"}
# beside the loader: the walk through a pickle, which is an unpickler that finds nothing
MAY_IMPORT = {*LOADER, "packer_lib/runtime/model_files/pickles.py"}


def name(source: Path) -> str:
    return source.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[str]:
    """Top-level modules, by every form of import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def loads(tree: ast.AST) -> Iterator[str]:
    """`module.load` and its like, wherever they are named."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=called) if module in MODULES and called in LOADS:
                yield f"{module}.{called}"


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_only_the_loader_of_models_unpickles(source: Path) -> None:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    if name(source) not in LOADER:
        assert list(loads(tree)) == []
    dangerous = MODULES - {"yaml"}  # whose safe loader reads PADL files
    if name(source) not in MAY_IMPORT:
        assert dangerous.isdisjoint(imported(tree))


def test_the_gate_sees_what_it_is_for() -> None:
    tree = ast.parse("import torch\ndef f(x):\n    return torch.load(x), yaml.load(x)\n")
    assert sorted(loads(tree)) == ["torch.load", "yaml.load"]
    assert list(imported(tree)) == ["torch"]


def test_the_walk_through_a_pickle_finds_nothing_to_call(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {tmp_path / 'canary'}",)

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        walk = pickles.Walk(io.BytesIO(pickle.dumps([Evil()], protocol)), set(), arrays=True)
        (made,) = walk.load()
        assert isinstance(made, pickles.Named)
    assert not (tmp_path / "canary").exists()
