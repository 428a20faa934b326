"""Code steps as users write them: their imports, their mistakes, and what they are told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packer_lib.runtime.code_step import CodeStep
from packer_lib.runtime.contract import HandlerUnusable, StepFailed
from tests.runtime.handmade import code_step


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """A test leaves `sys.path` and `sys.modules` as they were."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("mlpacker_code:"):
            del sys.modules[name]


def load(folder: Path, files: dict[str, str] | str, name: str = "step", **props: Any) -> CodeStep:
    step = CodeStep(code_step(folder, name, files, **props), folder)
    step.load()
    return step


def refusal(folder: Path, files: dict[str, str] | str, **props: Any) -> str:
    with pytest.raises(HandlerUnusable) as raised:
        load(folder, files, **props)
    return str(raised.value)


def test_one_value_none_and_a_generator(tmp_path: Path) -> None:
    text = "def handler(value):\n    return {0: None, 1: 'one'}.get(value, (n for n in range(value)))"
    assert load(tmp_path, text).run([0, 1, 3]) == [[], ["one"], [0, 1, 2]]


def test_an_empty_generator_drops_the_value(tmp_path: Path) -> None:
    assert load(tmp_path, "def handler(value):\n    return\n    yield").run([1]) == [[]]


def test_false_values_are_values(tmp_path: Path) -> None:
    assert load(tmp_path, "def handler(value):\n    return value").run([0, "", [], False]) == [[0], [""], [[]], [False]]


def test_globals_are_kept_between_calls(tmp_path: Path) -> None:
    step = load(tmp_path, "seen = []\ndef handler(value):\n    seen.append(value)\n    return len(seen)")
    assert step.run([5, 5]) == [[1], [2]]
    assert step.run([5]) == [[3]]


def test_a_raising_handler_fails_its_value_only_and_names_the_users_line(tmp_path: Path) -> None:
    files = {
        "main.py": "import units\ndef handler(value):\n    return units.convert(value)",
        "units.py": "def convert(value):\n    return 1 / value",
    }
    good, bad, again = load(tmp_path, files).run([2, 0, 4])
    assert (good, again) == ([0.5], [0.25])
    assert isinstance(bad, StepFailed)
    assert (bad.step, bad.stage) == ("step", "handle")
    assert bad.reason == "ZeroDivisionError: division by zero (units.py:2)"
    assert isinstance(bad.__cause__, ZeroDivisionError)


def test_a_generator_that_raises_gives_nothing(tmp_path: Path) -> None:
    step = load(tmp_path, "def handler(value):\n    yield 1\n    raise ValueError('no\\n more')")
    [failed] = step.run([1])
    assert isinstance(failed, StepFailed)
    assert failed.reason == "ValueError: no more (main.py:3)"


def test_a_handler_that_exits_fails_its_value_and_not_the_unit(tmp_path: Path) -> None:
    [failed] = load(tmp_path, "import sys\ndef handler(value):\n    sys.exit(3)").run([1])
    assert isinstance(failed, StepFailed)
    assert failed.reason == "SystemExit: 3 (main.py:3)"


def test_a_neighbouring_file_a_package_and_a_data_file_are_found(tmp_path: Path) -> None:
    files = {
        "main.py": (
            "from pathlib import Path\nimport helper\nfrom features.scale import factor\n"
            "limit = int((Path(__file__).parent / 'limit.txt').read_text())\n"
            "def handler(value):\n    return helper.add(value) * factor + limit"
        ),
        "helper.py": "def add(value):\n    return value + 1",
        "features/__init__.py": "",
        "features/scale.py": "factor = 10",
        "limit.txt": "7",
    }
    assert load(tmp_path, files).run([1]) == [[27]]


def test_an_entry_file_in_a_folder_finds_its_neighbours_and_the_root(tmp_path: Path) -> None:
    files = {
        "src/main.py": "import beside\nimport above\nhandler = lambda value: (beside.x, above.x)",
        "src/beside.py": "x = 1",
        "above.py": "x = 2",
    }
    assert load(tmp_path, files, entrypoint="src/main.py").run([0]) == [[(1, 2)]]


MAIN = """
import importlib, pickle
import helper

def handler(value):
    from lazy import name as lazy
    import package.inner
    again = importlib.import_module("helper").name
    thing = pickle.loads(pickle.dumps(helper.Thing()))
    return [helper.name, lazy, package.inner.name, again, thing.name]
"""


def test_two_steps_each_have_a_helper_of_their_own_at_import_and_later(tmp_path: Path) -> None:
    steps = []
    for name in ("one", "two"):
        files = {
            "main.py": MAIN,
            "helper.py": f"name = {name!r}\nclass Thing:\n    name = {name!r}",
            "lazy.py": f"name = {name!r}",
            "package/inner.py": f"name = {name!r}",
        }
        steps.append(load(tmp_path, files, name))
    for _ in range(2):  # forth and back: both lazy modules are there the second time
        for step in steps:
            assert step.run([0]) == [[[step.spec.name] * 5]]


def test_what_a_step_imports_is_gone_when_it_closes(tmp_path: Path) -> None:
    step = load(tmp_path, {"main.py": "import only_here\nhandler = print", "only_here.py": ""})
    assert "only_here" in sys.modules
    step.close()
    assert "only_here" not in sys.modules
    assert not any(path.startswith(str(tmp_path)) for path in sys.path)


def test_a_step_may_have_files_named_like_ours_or_like_an_installed_package(tmp_path: Path) -> None:
    import packer_lib  # ours, under a name that the step uses too

    files = {
        "main.py": "import packer_lib\nhandler = lambda value: packer_lib.name",
        "packer_lib.py": "name = 'theirs'",
    }
    step = load(tmp_path, files)
    assert step.run([0]) == [["theirs"]]
    step.close()
    assert sys.modules["packer_lib"] is packer_lib


def test_an_entry_file_named_like_a_standard_module_harms_nobody(tmp_path: Path) -> None:
    import code

    step = load(tmp_path, {"code.py": "handler = lambda value: value"}, entrypoint="code.py")
    assert step.run([1]) == [[1]]
    assert sys.modules["code"] is code


def test_a_circular_import_of_the_entry_file_runs_it_once(tmp_path: Path) -> None:
    files = {
        "main.py": "runs = globals().get('runs', 0) + 1\nimport part\ndef handler(value):\n    return part.runs()",
        "part.py": "def runs():\n    import main\n    main.runs += 1\n    return main.runs",
    }
    step = load(tmp_path, files)
    assert step.run([0, 0]) == [[2], [3]]


def test_classes_of_the_entry_file_can_be_pickled(tmp_path: Path) -> None:
    text = (
        "import pickle\nclass Thing:\n    pass\n"
        "def handler(value):\n    return type(pickle.loads(pickle.dumps(Thing()))) is Thing"
    )
    assert load(tmp_path, text).run([0]) == [[True]]


class TestRefusals:
    def test_no_entry_file(self, tmp_path: Path) -> None:
        text = refusal(tmp_path, {"mian.py": ""})
        assert text == "code/step/main.py does not exist; Python files there: mian.py (did you mean 'mian.py'?)"

    def test_no_such_function(self, tmp_path: Path) -> None:
        text = refusal(tmp_path, "from json import dumps\ndef handle(value): ...\ndef other(): ...\nx = 1")
        assert text == "code/step/main.py has no function 'handler'; there is handle, other (did you mean 'handle'?)"

    def test_another_function_by_name(self, tmp_path: Path) -> None:
        assert load(tmp_path, "def score(value):\n    return value", function="score").run([1]) == [[1]]

    def test_not_a_function(self, tmp_path: Path) -> None:
        assert refusal(tmp_path, "handler = 3") == "code/step/main.py: 'handler' is int, not a function"

    def test_an_async_function(self, tmp_path: Path) -> None:
        assert "is async; write it with plain `def`" in refusal(tmp_path, "async def handler(value): ...")

    def test_a_function_of_two_values(self, tmp_path: Path) -> None:
        text = refusal(tmp_path, "def handler(value, context): ...")
        assert text == "code/step/main.py: 'handler' takes (value, context); it is called with one value"

    def test_an_error_at_import_with_its_line(self, tmp_path: Path) -> None:
        files = {"main.py": "import part\n", "part.py": "x = 1\ny = {}['speed']\n"}
        assert refusal(tmp_path, files) == "code/step/main.py cannot be imported: KeyError: 'speed' (part.py:2)"

    def test_a_syntax_error_with_its_line(self, tmp_path: Path) -> None:
        text = refusal(tmp_path, "x = 1\ndef handler(value:\n    return 1\n")
        assert text.startswith("code/step/main.py cannot be imported: SyntaxError: ")
        assert text.endswith("(main.py:2)")

    def test_a_missing_package_with_the_remedy(self, tmp_path: Path) -> None:
        text = refusal(tmp_path, "import no_such_package")
        assert "ModuleNotFoundError: No module named 'no_such_package' (main.py:1)" in text
        assert "requirements.txt" in text

    def test_a_file_that_exits_at_import(self, tmp_path: Path) -> None:
        assert "SystemExit: 2 (main.py:1)" in refusal(tmp_path, "raise SystemExit(2)")

    def test_a_file_that_is_no_python(self, tmp_path: Path) -> None:
        text = refusal(tmp_path, {"run.sh": "echo"}, entrypoint="run.sh")
        assert text == "code/step/run.sh is not a Python file; entrypoint names the file that has the function"
