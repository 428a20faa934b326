"""What a unit takes as a model over the network, on files that the real libraries wrote."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import joblib
import keras
import numpy
import onnx
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from packer_lib.runtime import uploads
from packer_lib.runtime.manifest import settings

ROWS, LABELS = [[0.0], [1.0]], [0, 1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model a format; the names say what is in them, and nothing reads the names."""
    folder = tmp_path_factory.mktemp("uploads")
    model = LogisticRegression().fit(ROWS, LABELS)
    skops.io.dump(model, folder / "skops")
    joblib.dump(model, folder / "joblib")
    joblib.dump(model, folder / "joblib.gz", compress=("gzip", 3))
    (folder / "pickle").write_bytes(pickle.dumps(model))
    (folder / "pickle.0").write_bytes(pickle.dumps(model, 0))
    network = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    network.save(folder / "m.keras")
    (folder / "m.keras").rename(folder / "keras")
    network.save(folder / "m.h5")
    (folder / "m.h5").rename(folder / "h5")
    (folder / "onnx").write_bytes(graph().SerializeToString())
    return folder


def graph() -> onnx.ModelProto:
    """y = x + 1."""
    one = onnx.numpy_helper.from_array(numpy.ones(1, "float32"), "one")
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 1]) for name in "xy"]
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "one"], ["y"])], "g", ends[:1], ends[1:], initializer=[one]
    )
    return onnx.helper.make_model(made)


@pytest.mark.parametrize(("name", "framework"), [("skops", "scikit-learn"), ("keras", "tensorflow"), ("onnx", "onnx")])
def test_formats_that_carry_no_code_pass_by_their_content(files: Path, name: str, framework: str) -> None:
    assert uploads.serializer_of(files / name, framework, False) == name


@pytest.mark.parametrize(
    ("name", "framework", "serializer"),
    [
        ("joblib", "scikit-learn", "joblib"),
        ("joblib.gz", "scikit-learn", "joblib"),
        ("pickle", "scikit-learn", "joblib"),  # joblib reads both
        ("pickle.0", "scikit-learn", "joblib"),
        ("h5", "tensorflow", "h5"),
    ],
)
def test_the_others_are_refused_with_the_remedy_unless_the_unit_allows_them(
    files: Path, name: str, framework: str, serializer: str
) -> None:
    with pytest.raises(uploads.Unacceptable) as refused:
        uploads.serializer_of(files / name, framework, False)
    assert f"send {'skops' if framework == 'scikit-learn' else 'keras'}" in str(refused.value)
    assert uploads.serializer_of(files / name, framework, True) == serializer


def test_a_name_makes_nothing_pass(files: Path, tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_bytes((files / "pickle").read_bytes())
    with pytest.raises(uploads.Unacceptable, match="is joblib"):
        uploads.serializer_of(tmp_path / "model.skops", "scikit-learn", False)


def test_a_model_of_another_framework_says_what_is_taken(files: Path) -> None:
    with pytest.raises(uploads.Unacceptable, match="looks like keras; a step of scikit-learn takes skops"):
        uploads.serializer_of(files / "keras", "scikit-learn", False)


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../b", "a\\b", "c:/x"])
def test_a_member_that_leads_out_of_the_archive_is_refused(files: Path, tmp_path: Path, name: str) -> None:
    bad = tmp_path / "upload"
    bad.write_bytes((files / "keras").read_bytes())
    with zipfile.ZipFile(bad, "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(uploads.Unacceptable, match="leads out of the archive"):
        uploads.serializer_of(bad, "tensorflow", True)


def test_a_zip_bomb_is_refused_unread(tmp_path: Path) -> None:
    bad = tmp_path / "upload"
    with zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", "{}")
        archive.writestr("zeros", bytes(200 << 20))
    with pytest.raises(uploads.Unacceptable, match="zip bomb"):
        uploads.serializer_of(bad, "scikit-learn", False)


def test_a_truncated_archive_is_none(files: Path, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes((files / "skops").read_bytes()[:-30])
    with pytest.raises(uploads.Unacceptable, match="damaged"):
        uploads.serializer_of(tmp_path / "upload", "scikit-learn", False)


@pytest.mark.parametrize(("value", "allowed"), [("true", True), ("", False), ("false", False), ("1", False)])
def test_the_setting_is_off_unless_it_says_true(monkeypatch: pytest.MonkeyPatch, value: str, allowed: bool) -> None:
    monkeypatch.setenv("MLPACKER_UNSAFE_UPLOADS", value)
    assert settings().unsafe_uploads is allowed
