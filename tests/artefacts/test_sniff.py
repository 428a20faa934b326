"""What a model file is by its first bytes, on files that the real libraries wrote."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from packer_lib.artefacts import sniff
from packer_lib.artefacts.model import Unfit
from tests.artefacts import cases


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small model a serializer."""
    import h5py
    import joblib
    import skops.io
    from sklearn.linear_model import LinearRegression

    folder = tmp_path_factory.mktemp("models")
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    cases.write_model(folder, "m.pickle", model)
    joblib.dump(model, folder / "m.joblib")
    skops.io.dump(model, folder / "m.skops")
    h5py.File(folder / "m.h5", "w").close()
    with zipfile.ZipFile(folder / "m.keras", "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    (folder / "m.savedmodel").mkdir()
    (folder / "m.savedmodel/saved_model.pb").write_bytes(b"\x08\x01")
    return {path.suffix[1:]: path for path in folder.iterdir()}


def test_every_serializer_recognises_its_own_files_and_no_other(models: dict[str, Path]) -> None:
    accepted = {name: {serializer for serializer in models if fits(path, serializer)} for name, path in models.items()}
    pickles = {"pickle", "joblib"}  # joblib without compression writes a pickle
    assert accepted == {name: pickles if name in pickles else {name} for name in models}


def fits(path: Path, serializer: str) -> bool:
    try:
        sniff.check(path, serializer)
    except Unfit:
        return False
    return True


@pytest.mark.parametrize("compress", ["zlib", "gzip", "bz2", "lzma", "xz", ("zlib", 1), ("zlib", 9)])
def test_joblib_is_recognised_in_each_of_its_compressors(tmp_path: Path, compress: str | tuple[str, int]) -> None:
    import joblib

    joblib.dump([1, 2], tmp_path / "m.joblib", compress=compress if isinstance(compress, tuple) else (compress, 3))
    assert fits(tmp_path / "m.joblib", "joblib")
    assert not fits(tmp_path / "m.joblib", "pickle")


@pytest.mark.parametrize("serializer", ["joblib", "pickle", "skops", "h5", "keras", "savedmodel"])
@pytest.mark.parametrize(
    "content", [b"", b"\x89HDF", b"PK\x03\x04", b"hello, world", b"\x80\xff", b"<html>404</html>", b"xyz"]
)
def test_damaged_and_foreign_files_are_none_of_ours(tmp_path: Path, serializer: str, content: bytes) -> None:
    (tmp_path / "model").write_bytes(content)
    assert not fits(tmp_path / "model", serializer)


def test_a_zip_of_something_else_is_none_of_ours(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("readme.txt", "x")
    (tmp_path / "m.skops").write_bytes(data.getvalue())
    assert sniff.kinds(tmp_path / "m.skops") == ()


@pytest.mark.parametrize("zip64", [False, True])
def test_a_zip_with_a_directory_that_fills_the_memory_is_not_read(tmp_path: Path, zip64: bool) -> None:
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 0 if zip64 else 1 << 30, 0, 0)
    if zip64:
        record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 1 << 30, 0)
        end = record + struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1) + end
    with (tmp_path / "m.skops").open("wb") as file:
        file.write(b"PK\3\4")
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.write(end)
    tracemalloc.start()
    assert sniff.kinds(tmp_path / "m.skops") == ()
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_large_zip_is_read_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(b"{}")
        archive.comment = b"x" * 60_000
    assert sniff.kinds(tmp_path / "m.keras") == ("keras",)


def test_the_message_suggests_the_serializer_that_fits(models: dict[str, Path]) -> None:
    with pytest.raises(Unfit) as unfit:
        sniff.check(models["skops"], "joblib")
    assert "looks like skops" in unfit.value.message
    assert unfit.value.hint == "set serializer to 'skops'"
