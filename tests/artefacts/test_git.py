"""Code from real repositories, and what a hostile URL, ref or repository does not get to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from packer_lib import artefacts
from packer_lib.artefacts import Artefact, git
from packer_lib.artefacts.model import Unfit
from packer_lib.errors import BuildFailed, MLPackerError, PolicyRefused
from packer_lib.settings import Settings
from tests.artefacts import cases
from tests.artefacts.cases import Repository

EVERY = ("https", "ssh", "file")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def fetch(folder: Path, url: str, ref: str | None = None, settings: Settings | None = None) -> Artefact:
    plan = cases.plan(folder, cases.code(url, ref=ref))
    return artefacts.fetch(plan, plan.units[0], settings or cases.settings(folder, git_protocols=EVERY))[0]


def test_the_default_branch_is_fetched_and_its_commit_recorded(tmp_path: Path, repository: Repository) -> None:
    found = fetch(tmp_path, repository.url)
    assert (found.commit, found.source) == (repository.first, repository.url)
    assert [path.name for path in found.path.iterdir()] == ["main.py"]
    assert found.path.name == found.digest


def test_a_branch_a_tag_an_annotated_tag_and_a_commit_give_their_commit(tmp_path: Path, repository: Repository) -> None:
    repository.run("tag", "v1")
    repository.run("tag", "--annotate", "--message=x", "v2")
    repository.run("checkout", "--quiet", "-b", "feature/x")
    (repository.folder / "main.py").write_text("def handler(value): return 2\n")
    second = repository.commit()
    wanted = {
        "main": repository.first,
        "v1": repository.first,
        "v2": repository.first,
        "feature/x": second,
        second: second,
    }
    assert {ref: fetch(tmp_path, repository.url, ref).commit for ref in wanted} == wanted


def test_a_commit_that_was_fetched_needs_no_remote_again(tmp_path: Path, repository: Repository) -> None:
    first = fetch(tmp_path, repository.url, repository.first)
    repository.folder.rename(tmp_path / "gone")
    assert fetch(tmp_path, repository.url, repository.first) == first


def test_a_missing_ref_is_named_with_the_repository(tmp_path: Path, repository: Repository) -> None:
    with pytest.raises(BuildFailed, match=r"step 'prepare': .*has no branch or tag 'nope'"):
        fetch(tmp_path, repository.url, "nope")


def test_a_repository_that_is_not_there_is_a_clear_failure(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="nothing"):
        fetch(tmp_path, f"file://{tmp_path}/nothing")


def test_local_protocols_need_a_setting(tmp_path: Path, repository: Repository) -> None:
    with pytest.raises(PolicyRefused, match="git over 'file' is refused"):
        fetch(tmp_path, repository.url, settings=cases.settings(tmp_path))


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% {canary}",
        "ext::sh",
        "fd::17",
        "git://host.example/x.git",
        "http://host.example/x.git",
        "ssh://-oProxyCommand=touch${{IFS}}{canary}/x",
        "-oProxyCommand=touch@host:x",
        "git@-oProxyCommand=touch:x",
        "--upload-pack=touch {canary}",
        "--upload-pack=touch {canary}://x",
        "https://user:secret@host.example/x.git",
        "https://token@host.example/x.git",
        "https://-x/y",
        "file:///etc",
        "FILE:///etc",
    ],
)
def test_hostile_urls_run_nothing_and_are_refused(tmp_path: Path, url: str) -> None:
    canary = tmp_path / "canary"
    plan = cases.plan(tmp_path, cases.code(url.format(canary=canary)))
    settings = cases.settings(tmp_path)
    assert artefacts.check(plan, settings)
    with pytest.raises(MLPackerError) as failed:
        artefacts.fetch(plan, plan.units[0], settings)
    assert not canary.exists()
    assert "secret" not in failed.value.message


@pytest.mark.parametrize(
    "ref",
    [
        "--upload-pack=touch {canary}",
        "-q",
        "main:refs/heads/x",
        "+main",
        "a..b",
        "HEAD^{{/x}}",
        "main\n--x",
        "@{{-1}}",
        "x.lock",
    ],
)
def test_hostile_refs_run_nothing_and_are_refused(tmp_path: Path, repository: Repository, ref: str) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(BuildFailed, match="is not a branch, tag or commit"):
        fetch(tmp_path, repository.url, ref.format(canary=canary))
    assert not canary.exists()


def test_without_our_checks_the_argument_order_alone_keeps_a_url_and_a_ref_plain_text(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    hostile = git.Source(f"--upload-pack=touch {canary}", "main")
    with pytest.raises(Unfit):
        git.resolve(hostile, EVERY)
    with pytest.raises(Unfit):
        git.checkout(str(tmp_path), f"--upload-pack=touch {canary}", EVERY, tmp_path)
    with pytest.raises(Unfit, match=r"transport 'ext' not allowed"):
        git.resolve(git.Source(f"ext::sh -c touch% {canary}", ""), EVERY)
    assert not canary.exists()


def test_a_committed_link_becomes_a_small_text_file_and_is_refused_as_a_requirement(
    tmp_path: Path, repository: Repository
) -> None:
    (repository.folder / "requirements.txt").symlink_to("/etc/passwd")
    repository.commit()
    with pytest.raises(PolicyRefused, match=r"requirements.txt:1: step 'prepare': '/etc/passwd' is refused"):
        fetch(tmp_path, repository.url)
    assert not any("root:" in path.read_text() for path in (tmp_path / "home").rglob("*") if path.is_file())


def test_hooks_filters_and_submodules_of_a_repository_do_nothing(tmp_path: Path, repository: Repository) -> None:
    canary, other = tmp_path / "canary", Repository(tmp_path / "other")
    (repository.folder / ".gitattributes").write_text("*.py filter=evil\n")
    (repository.folder / ".githooks").mkdir()
    hook = repository.folder / ".githooks/post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {canary}\n")
    hook.chmod(0o755)
    repository.run("submodule", "--quiet", "add", other.url, "sub")
    repository.commit()
    (tmp_path / ".gitconfig").write_text(
        f'[filter "evil"]\n\tsmudge = touch {canary}\n[core]\n\thooksPath = .githooks\n'
    )
    os.environ["GIT_CONFIG_GLOBAL"] = str(tmp_path / ".gitconfig")
    try:
        found = fetch(tmp_path, repository.url)
    finally:
        del os.environ["GIT_CONFIG_GLOBAL"]
    assert not canary.exists()
    assert not (found.path / "sub/main.py").exists()


def test_ssh_never_asks_and_never_trusts_an_unknown_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin/ssh"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/argv\nexit 255\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(BuildFailed):
        fetch(tmp_path, "git@git.example.com:packer/code/preparation.git", settings=cases.settings(tmp_path))
    said = (tmp_path / "argv").read_text().splitlines()
    assert "-oBatchMode=yes" in said
    assert "-oStrictHostKeyChecking=yes" in said
    assert said[-2:] == ["git@git.example.com", "git-upload-pack 'packer/code/preparation.git'"]


@pytest.mark.parametrize(
    "path",
    ["git@git.example.com:packer/code.git", "https://host.example/a.git", "ssh://git@host.example:2222/a.git"],
)
def test_urls_as_people_write_them_are_repositories(path: str) -> None:
    assert git.is_url(path)
    assert git.source(path, None, ("https", "ssh")) == git.Source(path, "")


@pytest.mark.parametrize("path", ["./code", "code", "../code", "/srv/code", "a:b", "code@v2", "-x"])
def test_folders_are_not_taken_for_repositories(path: str) -> None:
    assert not git.is_url(path)
