"""What every framework must do, for every serializer, with models that were really trained."""

from __future__ import annotations

import math
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy
import pytest

from packer_lib.runtime.catalogue import FRAMEWORKS, find
from packer_lib.runtime.contract import BadInput, Framework, ModelUnusable

WINDOW, FEATURES = 30, 3


@dataclass(frozen=True)
class Case:
    """A trained model: where each serializer's file is, rows to ask about, and the model's own answers to them."""

    framework: str
    files: dict[str, Path]
    rows: list[Any]
    answers: list[Any]
    shape: str


@pytest.fixture(scope="session")
def scikit_learn(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """StandardScaler + LogisticRegression on the 569 rows of the breast-cancer data."""
    import skops.io
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(rows, labels)
    folder = tmp_path_factory.mktemp("scikit-learn")
    files = {name: folder / f"model.{name}" for name in ("joblib", "pickle", "skops")}
    joblib.dump(model, files["joblib"])
    files["pickle"].write_bytes(pickle.dumps(model))
    skops.io.dump(model, files["skops"])
    return Case("scikit-learn", files, rows[:50].tolist(), model.predict(rows[:50]).tolist(), "(30,)")


@pytest.fixture(scope="session")
def onnx(scikit_learn: Case, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The same classifier, converted; its first output is what `predict` answers."""
    import skl2onnx

    model = joblib.load(scikit_learn.files["joblib"])
    converted = skl2onnx.to_onnx(model, numpy.array(scikit_learn.rows[:1], dtype="float32"))
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    file.write_bytes(converted.SerializeToString())
    return Case("onnx", {"onnx": file}, scikit_learn.rows, scikit_learn.answers, "(30,)")


@pytest.fixture(scope="session")
def tensorflow(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A small LSTM autoencoder trained on sine waves: windows of 30 × 3, reconstructed."""
    from tensorflow import keras

    time = numpy.arange(200)[:, None] * numpy.array([[0.11, 0.23, 0.37]])
    wave = numpy.sin(time).astype("float32")
    windows = numpy.stack([wave[start : start + WINDOW] for start in range(len(wave) - WINDOW)])
    layers = [
        keras.Input((WINDOW, FEATURES)),
        keras.layers.LSTM(4),
        keras.layers.RepeatVector(WINDOW),
        keras.layers.LSTM(4, return_sequences=True),
        keras.layers.TimeDistributed(keras.layers.Dense(FEATURES)),
    ]
    keras.utils.set_random_seed(7)
    model = keras.Sequential(layers)
    model.compile(optimizer="adam", loss="mae")
    model.fit(windows, windows, epochs=1, verbose=0)
    folder = tmp_path_factory.mktemp("tensorflow")
    files = {"h5": folder / "model.h5", "keras": folder / "model.keras", "savedmodel": folder / "saved"}
    model.save(files["h5"])
    model.save(files["keras"])
    model.export(files["savedmodel"], verbose=False)
    rows = windows[:9]
    return Case("tensorflow", files, rows.tolist(), model.predict(rows, verbose=0).tolist(), "(30, 3)")


EVERY = [(framework.name, serializer) for framework in FRAMEWORKS.values() for serializer in framework.serializers]


@pytest.fixture
def case(request: pytest.FixtureRequest, framework: str) -> Case:
    found: Case = request.getfixturevalue(framework.replace("-", "_"))
    return found


@pytest.fixture
def loaded(case: Case, serializer: str) -> Framework:
    model = new(case.framework, serializer)
    model.load_model(str(case.files[serializer]))
    return model


def new(framework: str, serializer: str) -> Framework:
    made: Framework = find("framework", framework, FRAMEWORKS).load()(serializer)
    return made


def is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    return type(value) in (int, float, str, bool)


@pytest.mark.parametrize(("framework", "serializer"), EVERY)
class TestEveryFramework:
    def test_answers_a_batch_as_the_model_itself_does(self, case: Case, loaded: Framework) -> None:
        assert numpy.allclose(loaded.get_model_result(case.rows), case.answers, atol=1e-5)

    def test_answers_any_batch_size_alike(self, case: Case, loaded: Framework) -> None:
        one_by_one = [answer for row in case.rows for answer in loaded.get_model_result([row])]
        assert numpy.allclose(one_by_one, loaded.get_model_result(case.rows), atol=1e-5)

    def test_answers_plain_python_values_one_per_instance(self, case: Case, loaded: Framework) -> None:
        answers = loaded.get_model_result(case.rows[:3])
        assert isinstance(answers, list)
        assert len(answers) == 3
        assert is_plain(answers)

    def test_says_what_it_takes_and_gives(self, case: Case, loaded: Framework) -> None:
        assert loaded.takes is not None
        assert loaded.takes.shape == (-1, *numpy.shape(case.rows[0]))
        assert loaded.takes.datatype == {"scikit-learn": "FP64"}.get(case.framework, "FP32")
        assert loaded.gives is not None
        answers = numpy.array(loaded.get_model_result(case.rows))
        assert loaded.gives.shape == (-1, *answers.shape[1:])
        assert loaded.gives.datatype == {"i": "INT64", "f": "FP64"}[answers.dtype.kind]

    def test_takes_arrays_as_a_code_step_may_make_them(self, case: Case, loaded: Framework) -> None:
        answers = loaded.get_model_result([numpy.array(row) for row in case.rows])
        assert numpy.allclose(answers, case.answers, atol=1e-5)

    def test_refuses_another_shape_and_says_both(self, case: Case, loaded: Framework) -> None:
        with pytest.raises(BadInput) as raised:
            loaded.get_model_result([case.rows[0][:-1]])
        got = case.shape.replace("30", "29")
        assert str(raised.value) == f"expected {case.shape}, got {got}"

    @pytest.mark.parametrize("wrong", [[[1.0], [1.0, 2.0]], [["a"] * 30], [[None] * 30], [{"a": 1}], [5.0]])
    def test_refuses_what_is_no_number(self, loaded: Framework, wrong: list[Any]) -> None:
        with pytest.raises(BadInput):
            loaded.get_model_result(wrong)

    def test_can_be_asked_again_after_a_refusal(self, case: Case, loaded: Framework) -> None:
        with pytest.raises(BadInput):
            loaded.get_model_result([5.0])
        assert len(loaded.get_model_result(case.rows[:2])) == 2

    def test_refuses_a_damaged_file(self, case: Case, serializer: str, tmp_path: Path) -> None:
        damaged = tmp_path / case.files[serializer].name
        copy_damaged(case.files[serializer], damaged)
        with pytest.raises(ModelUnusable):
            new(case.framework, serializer).load_model(str(damaged))

    def test_refuses_the_files_of_other_serializers(self, case: Case, serializer: str) -> None:
        same = {"joblib", "pickle"}  # a joblib file may well be a plain pickle
        for other, file in case.files.items():
            if other != serializer and not {other, serializer} <= same:
                with pytest.raises(ModelUnusable, match="serializer is"):
                    new(case.framework, serializer).load_model(str(file))


def copy_damaged(source: Path, target: Path) -> None:
    """The first half of a file; of a folder, the first half of its graph."""
    if source.is_dir():
        shutil.copytree(source, target)
        source, target = source / "saved_model.pb", target / "saved_model.pb"
    content = source.read_bytes()
    target.write_bytes(content[: len(content) // 2])


class Doubler:
    """A class that is of no library."""

    def predict(self, rows: Any) -> Any:
        return rows * 2


class Canary:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (self.path,))


def test_skops_refuses_a_type_of_its_authors_own_by_name(tmp_path: Path) -> None:
    import skops.io

    skops.io.dump(Doubler(), tmp_path / "model.skops")
    with pytest.raises(ModelUnusable, match=r"refused: .*Doubler"):
        new("scikit-learn", "skops").load_model(str(tmp_path / "model.skops"))


def test_a_pickle_under_the_name_of_skops_is_never_unpickled(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "model.skops").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(ModelUnusable, match="not a zip archive"):
        new("scikit-learn", "skops").load_model(str(tmp_path / "model.skops"))
    assert not canary.exists()


def test_a_model_of_another_scikit_learn_says_both_versions(tmp_path: Path, scikit_learn: Case) -> None:
    import sklearn

    old = scikit_learn.files["pickle"].read_bytes()
    old = old.replace(sklearn.__version__.encode(), b"0.9.0").replace(b"LogisticRegression", b"LogisticRegressioN")
    (tmp_path / "old.pickle").write_bytes(old)
    with pytest.raises(ModelUnusable, match=r"written by scikit-learn 0\.9\.0, this unit has " + sklearn.__version__):
        new("scikit-learn", "pickle").load_model(str(tmp_path / "old.pickle"))


def test_a_model_that_needs_a_missing_package_names_it(tmp_path: Path) -> None:
    (tmp_path / "model.pickle").write_bytes(b"cno_such_package.models\nModel\n.")
    with pytest.raises(ModelUnusable, match="needs the package 'no_such_package'"):
        new("scikit-learn", "pickle").load_model(str(tmp_path / "model.pickle"))


def test_what_has_no_predict_is_no_model(tmp_path: Path) -> None:
    joblib.dump([1, 2, 3], tmp_path / "list.joblib")
    with pytest.raises(ModelUnusable, match="holds list, which has no predict method"):
        new("scikit-learn", "joblib").load_model(str(tmp_path / "list.joblib"))


def test_text_models_get_text_and_labels_come_back_as_text(tmp_path: Path) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(["good day", "bad luck"] * 3, ["yes", "no"] * 3)
    joblib.dump(model, tmp_path / "text.joblib")
    loaded = new("scikit-learn", "joblib")
    loaded.load_model(str(tmp_path / "text.joblib"))
    assert loaded.get_model_result(["a good one", "bad"]) == ["yes", "no"]


def test_one_feature_models_take_plain_numbers_and_regressions_give_them(tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    joblib.dump(LinearRegression().fit([[1.0], [2.0]], [2.0, 4.0]), tmp_path / "line.joblib")
    loaded = new("scikit-learn", "joblib")
    loaded.load_model(str(tmp_path / "line.joblib"))
    [answer] = loaded.get_model_result([3.0])
    assert math.isclose(answer, 6.0)


def test_one_text_among_numbers_does_not_change_its_neighbours() -> None:
    from packer_lib.runtime.frameworks.scikit_learn import as_array

    assert as_array([[1.5], ["x"]]).tolist() == [[1.5], ["x"]]


def test_a_lambda_layer_is_refused_and_its_code_never_runs(tmp_path: Path, tensorflow: Case) -> None:
    import tensorflow as tf

    canary = tmp_path / "canary"
    path = str(canary)
    layer = tf.keras.layers.Lambda(lambda rows: (open(path, "w").close(), rows)[1], output_shape=(2,))  # noqa: PTH123
    model = tf.keras.Sequential([tf.keras.Input((2,)), layer])
    for serializer in ("keras", "h5"):
        file = tmp_path / f"model.{serializer}"
        model.save(file)
        canary.unlink(missing_ok=True)
        with pytest.raises(ModelUnusable, match="lambda layer"):
            new("tensorflow", serializer).load_model(str(file))
        assert not canary.exists()


def test_a_recurrent_h5_of_keras_2_gives_the_answers_that_keras_2_gave() -> None:
    """Written by tf-keras 2.21 (Keras 2); the first two of its 30 reconstructed rows are below."""
    loaded = new("tensorflow", "h5")
    loaded.load_model(str(Path(__file__).parent / "data" / "keras2_lstm.h5"))
    window = numpy.sin(numpy.arange(90).reshape(30, 3) / 9)
    expected = [[-0.00519308, 0.01838754, -0.00089822], [-0.00774925, 0.02852564, -0.00308504]]
    assert numpy.allclose(loaded.get_model_result([window])[0][:2], expected, atol=1e-6)


def test_several_outputs_come_as_an_object_by_name(tmp_path: Path, tensorflow: Case) -> None:
    import tensorflow as tf

    entry = tf.keras.Input((2,))
    outputs = [tf.keras.layers.Dense(1, name="low")(entry), tf.keras.layers.Dense(3, name="high")(entry)]
    model = tf.keras.Model(entry, outputs)
    model.save(tmp_path / "two.keras")
    loaded = new("tensorflow", "keras")
    loaded.load_model(str(tmp_path / "two.keras"))
    low, high = model.predict(numpy.ones((1, 2)), verbose=0)
    [answer] = loaded.get_model_result([[1, 1]])
    assert numpy.allclose(answer["low"], low[0])
    assert numpy.allclose(answer["high"], high[0])


def test_a_model_of_two_inputs_is_refused(tmp_path: Path, tensorflow: Case) -> None:
    import tensorflow as tf

    entries = [tf.keras.Input((2,)), tf.keras.Input((2,))]
    tf.keras.Model(entries, tf.keras.layers.Add()(entries)).save(tmp_path / "two.keras")
    with pytest.raises(ModelUnusable, match="has 2 inputs"):
        new("tensorflow", "keras").load_model(str(tmp_path / "two.keras"))
