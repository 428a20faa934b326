"""Which lines of a requirements.txt are taken, and which refused with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from packer_lib.artefacts import requirements
from packer_lib.artefacts.model import Unfit


def read(folder: Path, text: str) -> list[tuple[str, int]]:
    (folder / "requirements.txt").write_text(text, encoding="utf-8")
    return [(str(wish.requirement), wish.line) for wish in requirements.read(folder, "code")]


def test_names_versions_markers_extras_and_comments_are_taken(tmp_path: Path) -> None:
    text = "\ufeff# ours\nnumpy>=2,<3  # arrays\n\nuvicorn[standard]==0.30\npandas ; python_version < '3.12'\r\n"
    assert read(tmp_path, text + "six \\\n  >=1\n") == [
        ("numpy<3,>=2", 2),
        ("uvicorn[standard]==0.30", 4),
        ('pandas; python_version < "3.12"', 5),
        ("six>=1", 6),
    ]


def test_hashes_are_dropped_because_the_lock_has_its_own(tmp_path: Path) -> None:
    assert read(tmp_path, f"six==1.17.0 \\\n    --hash=sha256:{'0' * 64}\n") == [("six==1.17.0", 1)]


def test_no_file_means_no_requirements(tmp_path: Path) -> None:
    assert requirements.read(tmp_path, "code") == ()


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "--editable=./x",
        "-r other.txt",
        "-c constraints.txt",
        "--index-url https://elsewhere.example/simple",
        "-i https://elsewhere.example/simple",
        "--extra-index-url=https://elsewhere.example/simple",
        "--find-links /tmp",
        "--trusted-host elsewhere.example",
        "--no-binary :all:",
        "--pre",
        "file:///etc/passwd",
        "./local",
        "/etc/passwd",
        "six @ file:///tmp/six.whl",
        "six @ https://elsewhere.example/six.whl",
        "https://elsewhere.example/six.whl",
        "git+https://elsewhere.example/six.git",
        "six @ git+ssh://git@elsewhere.example/six.git",
        "six --index-url https://elsewhere.example/simple",
        "six\\\n--index-url https://elsewhere.example",
    ],
)
def test_what_would_fetch_from_elsewhere_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(Unfit) as refused:
        read(tmp_path, f"numpy\n{line}\n")
    assert refused.value.refused
    assert (refused.value.file, refused.value.line) == ("code/requirements.txt", 2)


@pytest.mark.parametrize("line", ["six==", "two words", "${TOKEN}", "six; python == 3", "\x1b]0;x", "six==1\u20282"])
def test_what_is_no_requirement_is_an_error_with_its_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(Unfit) as unfit:
        read(tmp_path, f"numpy\n{line}\n")
    assert unfit.value.line == 2


def test_a_binary_or_an_endless_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(b"numpy\n\xff\xfe\n")
    with pytest.raises(Unfit, match="not UTF-8"):
        requirements.read(tmp_path, "code")
    (tmp_path / "requirements.txt").write_bytes(b"#" * (257 << 10))
    with pytest.raises(Unfit, match="larger than 256 KiB"):
        requirements.read(tmp_path, "code")
