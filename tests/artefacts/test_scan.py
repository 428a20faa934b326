"""Honest models of the real libraries are not suspected; what the scan allows is what it means to; it is bounded."""

from __future__ import annotations

import importlib
import io
import os
import pickle
import pkgutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import keras
import numpy
import pytest
import sklearn
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from packer_lib.runtime.model_files import apart, names
from packer_lib.runtime.model_files.examine import Report, examine
from packer_lib.runtime.model_files.names import Standing, standing
from tests.support import ROOT

pytestmark = pytest.mark.slow  # more than `make check` has time for

ROWS = numpy.random.default_rng(0).random((60, 4))
LABELS = numpy.arange(60) % 3
TEXTS = ["alpha beta", "gamma delta", "beta eve", "delta alpha"] * 15
CLEAN = Report()
PROTOCOLS = (0, 2, pickle.DEFAULT_PROTOCOL, pickle.HIGHEST_PROTOCOL)


def estimators() -> dict[str, Any]:
    scaled = make_pipeline(StandardScaler(), LogisticRegression())
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), [0]), (StandardScaler(), [1, 2]))
    return {
        "pipeline": scaled,
        "forest": RandomForestClassifier(5, random_state=numpy.random.RandomState(0)),
        "gradient boosting": GradientBoostingClassifier(n_estimators=3),
        "histograms": HistGradientBoostingClassifier(max_iter=3),
        "svc": SVC(),
        "k-means": KMeans(3, n_init=1),
        "neighbours": KNeighborsClassifier(algorithm="kd_tree"),
        "gauss": GaussianProcessRegressor(RBF()),
        "mlp": MLPClassifier(max_iter=5),
        "isolation": IsolationForest(n_estimators=5),
        "search": GridSearchCV(LogisticRegression(), {"C": [1, 2]}, scoring="accuracy"),
        "calibrated": CalibratedClassifierCV(GaussianNB()),
        "stacked": StackingClassifier([("a", GaussianNB()), ("b", SVC())]),
        "columns": make_pipeline(columns, LogisticRegression()),
        "function": make_pipeline(FunctionTransformer(numpy.log1p), LogisticRegression()),
        "text": make_pipeline(TfidfVectorizer(), SGDClassifier()),
    }


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    return fit()


def fit() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: model.fit(TEXTS if name == "text" else ROWS, LABELS) for name, model in estimators().items()}


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them in all formats, by a process of its own: dill, which another test may have imported into this one,
    changes what pickle and joblib write."""
    folder = tmp_path_factory.mktemp("dumped")
    code = f"from tests.artefacts import test_scan; test_scan.dump_all({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    return folder


def dump_all(folder: str) -> None:
    for name, model in fit().items():
        for protocol in PROTOCOLS:
            Path(folder, f"{name}.{protocol}.pickle").write_bytes(pickle.dumps(model, protocol))
            joblib.dump(model, Path(folder, f"{name}.{protocol}.joblib"), protocol=protocol)
        skops.io.dump(model, Path(folder, f"{name}.skops"))


@pytest.mark.parametrize("name", estimators())
def test_an_honest_model_of_scikit_learn_is_clean_in_every_format(dumped: Path, name: str) -> None:
    for protocol in PROTOCOLS:
        for serializer in ("pickle", "joblib"):
            assert examine(dumped / f"{name}.{protocol}.{serializer}", serializer) == CLEAN, (protocol, serializer)
    assert examine(dumped / f"{name}.skops", "skops") == CLEAN


@pytest.mark.parametrize("compressor", ["zlib", "gzip", "bz2", "lzma", "xz"])
def test_a_compressed_joblib_file_is_read_through(tmp_path: Path, fitted: dict[str, Any], compressor: str) -> None:
    joblib.dump(fitted["forest"], tmp_path / "m", compress=(compressor, 3))
    assert examine(tmp_path / "m", "joblib") == CLEAN


@pytest.mark.parametrize(
    "dtype", ["f4", "i8", "?", "c16", "S5", "U7", "M8[ns]", "m8[s]", "O", [("a", "f4"), ("b", "U3")]]
)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5)])
def test_an_array_of_any_type_is_passed_over_to_its_last_byte(
    tmp_path: Path, dtype: Any, shape: tuple[int, ...]
) -> None:
    joblib.dump([numpy.zeros(shape, dtype), numpy.asfortranarray(numpy.zeros(shape, dtype)), 1], tmp_path / "m")
    assert examine(tmp_path / "m", "joblib") == CLEAN


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("name", ["lstm", "convolution", "two outputs"])
def test_an_honest_model_of_keras_is_clean(tmp_path: Path, name: str, suffix: str) -> None:
    layers = keras.layers
    inner = layers.Input((4,))
    found = {
        "lstm": [
            layers.Input((30, 3)),
            layers.LSTM(8),
            layers.RepeatVector(30),
            layers.TimeDistributed(layers.Dense(3)),
        ],
        "convolution": [
            layers.Input((8, 8, 1)),
            layers.Conv2D(2, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ],
        "two outputs": keras.Model(
            inner, [layers.Dense(2, activation=keras.activations.gelu)(inner), layers.ReLU()(inner)]
        ),
    }[name]
    model = keras.Sequential(found) if isinstance(found, list) else found
    model.save(tmp_path / f"m.{suffix}")
    assert examine(tmp_path / f"m.{suffix}", suffix) == CLEAN


def modules() -> Iterator[Any]:
    """Every module of scikit-learn that can be imported here."""
    for found in pkgutil.walk_packages(sklearn.__path__, "sklearn."):
        if ".tests" in found.name or ".externals" in found.name or found.name.endswith(("conftest", "__main__")):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield importlib.import_module(found.name)
        except ImportError:
            continue


# of other packages, imported into scikit-learn's modules under names that look like its classes; none does anything
HARMLESS = {
    "abc",
    "numbers",
    "collections.abc",
    "collections",
    "typing",
    "_io",
    "enum",
    "_cyutility",
    "View.MemoryView",
}


def test_no_name_that_is_allowed_in_scikit_learn_is_something_elses() -> None:
    found = {
        (module.__name__, name, value.__module__)
        for module in modules()
        for name, value in vars(module).items()
        if callable(value) and standing(module.__name__, name) is Standing.KNOWN
        if (getattr(value, "__module__", None) or "").partition(".")[0] not in {"sklearn", "numpy", "scipy", ""}
    }
    assert {foreign for foreign in found if foreign[2] not in HARMLESS} == set()


FORBIDDEN = """
    os.system posix.system builtins.eval builtins.getattr builtins.__import__ operator.attrgetter functools.partial
    importlib.import_module socket.socket numpy.load numpy.f2py.crackfortran.myeval ensurepip._run_pip timeit.timeit
    numpy.testing._private.utils.runstring joblib.load joblib.numpy_pickle.load sklearn.datasets._base.urlretrieve
    sklearn.utils.discovery.import_module cloudpickle.cloudpickle._make_function pandas.read_pickle torch.load
    pip._internal.cli.main.main cProfile.run bentoml.Service __main__.Mine
"""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *((module, name) for module, _, name in (path.rpartition(".") for path in FORBIDDEN.split())),
        ("sklearn.ensemble", "joblib.load"),
        ("mycompany", "os.system"),
    ],
)
def test_what_can_do_more_than_hold_a_model_is_forbidden(module: str, name: str) -> None:
    assert standing(module, name) is Standing.FORBIDDEN


@pytest.mark.parametrize(
    ("module", "name"), [("xgboost.sklearn", "XGBClassifier"), ("mycompany.models", "Outer.Inner")]
)
def test_a_package_that_we_do_not_know_is_unknown(module: str, name: str) -> None:
    assert standing(module, name) is Standing.UNKNOWN


def test_every_closed_package_is_written_as_it_is_imported() -> None:
    assert {name for name in names.CLOSED if not name.isidentifier()} == set()
    assert not names.CLOSED & sys.stdlib_module_names - {"__main__"}


def test_a_file_that_takes_too_long_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"\x80\x04(" + b"(lp0\n0" * 3_000_000 + b"N.")
    started = time.monotonic()
    assert "within 1 s" in apart.look(tmp_path / "m", "pickle", seconds=1).refused
    assert time.monotonic() - started < 5


def test_a_file_that_fills_the_memory_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "m").open("wb") as file:  # a frame as long as the file, which is sparse
        file.write(b"\x80\x04\x95" + (3 << 30).to_bytes(8, "little"))
        file.truncate(4 << 30)
    assert "memory" in apart.look(tmp_path / "m", "pickle").refused.lower()


def test_a_large_model_takes_seconds_and_little_memory(tmp_path: Path) -> None:
    joblib.dump({"coef_": numpy.random.default_rng(0).random(12 << 20)}, tmp_path / "m")
    started = time.monotonic()
    assert apart.look(tmp_path / "m", "joblib") == CLEAN
    assert time.monotonic() - started < 10


def test_a_pickle_that_would_recurse_for_ever_ends(tmp_path: Path) -> None:
    data = io.BytesIO()
    inner: Any = 1
    for _ in range(50):
        inner = numpy.array([inner, None], dtype=object)
    joblib.dump(inner, data)
    (tmp_path / "m").write_bytes(data.getvalue()[:-1] * 40)
    assert examine(tmp_path / "m", "joblib").refused
