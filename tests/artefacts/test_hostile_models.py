"""T4: hostile model files. Nothing of ours runs any; all say why, with exit code 4, pinned or not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from packer_lib import artefacts
from packer_lib.errors import PolicyRefused
from packer_lib.padl.model import Step
from packer_lib.plan import Plan
from packer_lib.release import deploy
from tests.artefacts import cases, hostile

pytestmark = pytest.mark.slow  # more than `make check` has time for

NAMES = tuple(hostile.cases(Path("canary")))
REASONS = {
    "reduce": "names posix.system, which is no part of a model",
    "protocol 0": "names posix.system",
    "eval": "names builtins.eval",
    "object array": "names posix.system",
    "in xz": "names posix.system",
    "broken behind it": "names posix.system",
    "second pickle": "has more behind its end",
    "truncated joblib": "ends 4",
    "truncated h5": "ends early",
    "bomb in zlib": "as a bomb does",
    "bomb in keras": "as a zip bomb does",
    "lambda in h5": "has a Lambda layer, which is Python code of its author",
    "escaped lambda in h5": "has a Lambda layer",
    "lambda in keras": "has a Lambda layer",
    "os.system in keras": "names os.system",
    "get_file in keras": "names keras.utils.get_file",
    "vocabulary by path": "reads '/etc/passwd'",
    "zip slip in keras": "'../../canary' leads out of the archive",
    "zip slip in skops": "'/tmp/canary' leads out of the archive",
    "external data": "has data in another file",
    "truncated onnx": "ends early",
    "file written by a graph": "has the operation WriteFile",
    "truncated skops": "none of the formats we know, or damaged",
}


@pytest.fixture(autouse=True)
def canary(tmp_path: Path) -> Iterator[Path]:
    """What a model would create that somebody ran."""
    place = tmp_path / "canary"
    yield place
    assert not place.exists(), "something of the file ran"


def planned(folder: Path, name: str, canary: Path, pinned: bool) -> tuple[Plan, Step]:
    """A pipeline of one step with that model, which nobody has looked at."""
    serializer, make = hostile.cases(canary)[name]
    data = make()
    path = hostile.write(folder, serializer, data)
    sha256 = hashlib.sha256(data).hexdigest() if pinned and serializer != "savedmodel" else None
    framework = hostile.FRAMEWORK.get(serializer, "scikit-learn")
    step = cases.model(path, serializer, framework=framework, sha256=sha256)
    return cases.plan(folder, step), step


@pytest.mark.parametrize("pinned", [False, True], ids=["unpinned", "pinned"])
@pytest.mark.parametrize("name", NAMES)
def test_validate_refuses_it_and_says_why(tmp_path: Path, canary: Path, name: str, pinned: bool) -> None:
    plan, step = planned(tmp_path, name, canary, pinned)
    with pytest.raises(PolicyRefused) as refused:
        artefacts.require(plan, cases.settings(tmp_path))
    assert refused.value.exit_code == 4
    assert step.path in str(refused.value)
    assert REASONS.get(name, "") in str(refused.value)


@pytest.mark.parametrize("name", NAMES)
def test_fetching_refuses_it_before_there_is_a_bundle(tmp_path: Path, canary: Path, name: str) -> None:
    plan, _ = planned(tmp_path, name, canary, pinned=True)
    with pytest.raises(PolicyRefused, match="step 'classify'"):
        artefacts.fetch(plan, plan.units[0], cases.settings(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_a_swap_refuses_it_too(tmp_path: Path, canary: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, step = planned(tmp_path, name, canary, pinned=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PolicyRefused, match="step 'classify'"):
        artefacts.fetch_another(plan, step, step.path, "", cases.settings(tmp_path))


@pytest.mark.parametrize("name", ["reduce", "object array", "lambda in h5"])
def test_a_deploy_ends_there_and_leaves_nothing(tmp_path: Path, canary: Path, name: str) -> None:
    plan, _ = planned(tmp_path, name, canary, pinned=True)
    with pytest.raises(PolicyRefused):
        deploy(plan, cases.settings(tmp_path), progress=lambda text: None)
    assert not (tmp_path / "home").exists()


def test_the_canary_is_one(tmp_path: Path, canary: Path) -> None:
    """That the files above do what they claim, for who unpickles them: otherwise none of these tests could fail."""
    import pickle

    for data in (hostile.pickled(tmp_path / "a"), hostile.evaluated(tmp_path / "b")):
        pickle.loads(data)
    assert (tmp_path / "a").exists()
    assert (tmp_path / "b").exists()
