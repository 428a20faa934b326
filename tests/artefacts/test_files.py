"""Paths that somebody else wrote never lead out of the roots, and digests say exactly what is in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from packer_lib.artefacts.files import Limits, open_file, read_tree, resolve, tree_digest
from packer_lib.artefacts.model import Unfit

PARTS = ["..", ".", "", "/", "inner", "out", "loop", "up", "etc", "passwd", "proc", "self", "root", "cwd", "fd", "1"]
PARTS += ["%2e%2e", "%252e", "..\\", "....", "\u2025", "\uff0e\uff0e", "~", "$HOME", "a\0b", "file.bin", "secret.bin"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with links out of it, in circles, and one file; a secret beside it."""
    top = tmp_path_factory.mktemp("roots")
    (top / "secret.bin").write_text("secret")
    root = top / "root"
    (root / "inner").mkdir(parents=True)
    (root / "file.bin").write_text("mine")
    (root / "inner/file.bin").write_text("mine")
    (root / "out").symlink_to(top)
    (root / "inner/out").symlink_to("/")
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "alias.bin").symlink_to("inner/file.bin")
    return root


@given(parts=st.lists(st.sampled_from(PARTS) | st.text(max_size=8), max_size=8), absolute=st.booleans())
@hypothesis_settings(max_examples=1500, deadline=None)
def test_no_path_leads_out_of_its_root(home: Path, parts: list[str], absolute: bool) -> None:
    written = "/".join(parts)
    for text in (f"{home}/{written}" if absolute else written, f"/{written}"):
        try:
            real = resolve(text, home, [home])
        except Unfit:
            continue
        assert real == home or home in real.parents
        if real.is_file():
            with open_file(real) as file:
                assert file.read() == b"mine"


def test_a_link_inside_the_root_is_followed(home: Path) -> None:
    assert resolve("alias.bin", home, []) == home / "inner/file.bin"


def test_a_link_put_in_place_after_the_look_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root/inner").mkdir(parents=True)
    (tmp_path / "root/inner/file").write_text("mine")
    real = resolve("inner/file", tmp_path / "root", [])
    (tmp_path / "root/inner/file").unlink()
    (tmp_path / "root/inner/file").symlink_to(tmp_path / "secret")
    with pytest.raises(Unfit):
        open_file(real)
    (tmp_path / "root/inner").rename(tmp_path / "root/former")
    (tmp_path / "file").write_text("secret")
    (tmp_path / "root/inner").symlink_to(tmp_path)
    with pytest.raises(Unfit):
        open_file(real)


def test_the_digest_of_a_folder_depends_on_paths_bytes_and_the_executable_bit_only(tmp_path: Path) -> None:
    def digest(name: str, files: dict[str, str], executable: str = "") -> str:
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
            (tmp_path / name / path).chmod(0o700 if path == executable else 0o604)
        return tree_digest(read_tree(tmp_path / name, Limits(1000, 10)))

    first = digest("first", {"a": "1", "b/c": "2"})
    assert digest("second", {"b/c": "2", "a": "1"}) == first
    others = [
        digest("bytes", {"a": "1", "b/c": "3"}),
        digest("path", {"a": "1", "b/d": "2"}),
        digest("bit", {"a": "1", "b/c": "2"}, "a"),
        digest("more", {"a": "1", "b/c": "2", "d": ""}),
    ]
    assert len({first, *others}) == 5


def test_limits_count_bytes_over_all_files(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(b"x" * 40)
    assert len(read_tree(tmp_path, Limits(120, 3))) == 3
    with pytest.raises(Unfit, match="more than 2 files"):
        read_tree(tmp_path, Limits(120, 2))
    with pytest.raises(Unfit, match="more than 0 MiB"):
        read_tree(tmp_path, Limits(119, 3))
