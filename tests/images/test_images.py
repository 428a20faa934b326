"""Images on the lab's engines and registries: built, kept clean of secrets, checked, pushed, delivered, removed."""

from __future__ import annotations

import os
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from packer_lib import images
from packer_lib.bundle import Bundle, open_bundle
from packer_lib.errors import BuildFailed, DeployFailed, PushFailed
from packer_lib.hosts import Host
from packer_lib.hosts.connect import connect
from packer_lib.hosts.local import LocalHost
from packer_lib.hosts.ssh import SshHost
from packer_lib.images import Image, saved
from packer_lib.padl.model import Machine
from packer_lib.plan import Plan
from packer_lib.secrets import Login
from packer_lib.settings import Settings
from tests.images import cases
from tests.lab import lab

pytestmark = pytest.mark.lab
PIPELINE = "c-images"
SMALL = 200_000  # bytes: a model and what surrounds it


@pytest.fixture(scope="module", autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    cases.clear(PIPELINE)
    for machine in lab.machines():
        cases.clear(PIPELINE, (cases.DOCKER, "exec", machine.container, "docker"))


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A machine with an engine of its own, reached by SSH, without our images."""
    machine = lab.machine("cloud_1")
    cases.clear(PIPELINE, (cases.DOCKER, "exec", machine.container, "docker"))
    login = Login("m", machine.hostname, user=machine.user, password=machine.password, host_key=machine.host_key)
    here = cases.settings(tmp_path_factory.mktemp("far"))
    host = SshHost(Machine("m", machine.hostname), login, partial(connect, settings=here))
    yield host
    host.close()


def made(folder: Path, settings: Settings, factor: float = 2.0, *, code: str = "") -> tuple[Plan, Bundle]:
    plan = cases.plan(folder, PIPELINE, code=bool(code))
    return plan, cases.bundle(folder, plan, settings, factor, code or "return value")


def build(folder: Path, settings: Settings, factor: float = 2.0, *, code: str = "") -> Image:
    plan, bundle = made(folder, settings, factor, code=code)
    return images.build(bundle, plan, plan.units[0], settings)


def layers(image: Image) -> list[str]:
    return cases.docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", image.id).strip("[]\n").split(",")


def told(folder: Path) -> tuple[Path, Path]:
    """A docker client that writes down what it is asked, and where."""
    log, client = folder / "asked", folder / "docker"
    log.touch()
    client.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {cases.DOCKER} "$@"\n')
    client.chmod(0o755)
    return client, log


def test_an_unchanged_bundle_is_not_built_again(tmp_path: Path) -> None:
    client, log = told(tmp_path)
    settings = cases.settings(tmp_path, docker=str(client))
    first = build(tmp_path, settings, code="return 1")
    assert [line for line in log.read_text().splitlines() if line.startswith("build ")]
    log.write_text("")
    assert build(tmp_path, settings, code="return 1") == first
    assert [line.split()[:2] for line in log.read_text().splitlines()] == [["image", "inspect"]]


def test_a_new_model_is_the_last_two_layers_only(tmp_path: Path) -> None:
    settings = cases.settings(tmp_path)
    one, other = (layers(build(tmp_path, settings, factor)) for factor in (2.0, 3.0))
    assert len(one) == len(other)
    assert [a == b for a, b in zip(one, other, strict=True)] == [True] * (len(one) - 2) + [False] * 2


def test_an_image_is_what_it_says_and_runs_as_nobody_in_particular(tmp_path: Path) -> None:
    settings = cases.settings(tmp_path)
    plan, bundle = made(tmp_path, settings)
    image = images.build(bundle, plan, plan.units[0], settings)
    config = cases.docker("image", "inspect", "--format", "{{.Config.User}} {{json .Config.Labels}}", image.id)
    assert config.startswith("10001:10001 ")
    for text in (bundle.digest, bundle.lock_digest, bundle.models[0][1], settings.base_image):
        assert text in config
    assert image.arch.startswith("linux/")
    assert image.reference == image.id
    assert (
        cases.docker("image", "inspect", "--format", "{{json .Config.Healthcheck.Test}}", image.id).count("/readyz")
        == 1
    )


def test_no_secret_of_a_build_is_in_the_image(tmp_path: Path) -> None:
    sentinel, in_ca = f"s3cret-{uuid.uuid4().hex}", f"ca-{uuid.uuid4().hex}"
    settings = cases.settings(tmp_path)
    assert settings.ca_bundle is not None
    bundle_file = tmp_path / "ca.crt"
    bundle_file.write_text(f"# {in_ca}\n{settings.ca_bundle.read_text()}")
    settings = replace(settings, ca_bundle=bundle_file, index_url=f"https://reader:{sentinel}@pypi.org/simple")
    plan, bundle = made(tmp_path, settings, code="return 'secrets'")
    image = images.build(_uncached(bundle), plan, plan.units[0], settings)
    seen = [
        cases.docker("image", "history", "--no-trunc", image.id),
        cases.docker("image", "inspect", image.id),
    ]
    for secret in (sentinel, in_ca):
        assert not [text for text in seen if secret in text]
        assert not _files_with(image, secret.encode())
    assert _files_with(image, b"'secrets'") == ["app/code/model/main.py"]  # the search finds what is there


def _uncached(bundle: Bundle) -> Bundle:
    """The same bundle for which every command of the build has to run."""
    dockerfile, lock = bundle.path / "Dockerfile", bundle.path / "requirements.lock"
    dockerfile.write_text(dockerfile.read_text().replace("AS build\n", f"AS build\nENV AGAIN={uuid.uuid4().hex}\n"))
    lock.write_text(f"# {uuid.uuid4().hex}\n{lock.read_text()}")
    return open_bundle(bundle.path)


def _files_with(image: Image, needle: bytes) -> list[str]:
    """Files in any layer whose bytes hold `needle`."""
    found = []
    archive = Path(os.environ.get("TMPDIR", "/tmp")) / f"{uuid.uuid4().hex}.tar"
    try:
        cases.docker("image", "save", "--output", str(archive), image.id)
        with tarfile.open(archive) as outer:
            for member in outer:
                data = outer.extractfile(member) if member.isreg() else None
                if data and member.name.endswith("layer.tar"):
                    with tarfile.open(fileobj=data) as layer:
                        found += [
                            inner.name
                            for inner in layer
                            if inner.isreg() and needle in layer.extractfile(inner).read()  # type: ignore[union-attr]
                        ]
                elif data and needle in data.read():
                    found.append(member.name)
    finally:
        archive.unlink(missing_ok=True)
    return found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_image": "localhost:1/nothere:1"}, ["MLPACKER__BUILD__BASE_IMAGE", "localhost:1/nothere:1"]),
        ({"index_url": "https://me:hidden@127.0.0.1:1/simple"}, ["MLPACKER__BUILD__INDEX_URL"]),
        ({"ca_bundle": Path("/nowhere.crt")}, ["MLPACKER__BUILD__CA_BUNDLE"]),
        ({"docker": "/nowhere/docker"}, ["MLPACKER__BUILD__DOCKER"]),
    ],
    ids=["base image", "index", "CA bundle", "client"],
)
def test_a_build_that_fails_says_which_setting_to_look_at(
    tmp_path: Path, changes: dict[str, object], words: list[str]
) -> None:
    settings = replace(cases.settings(tmp_path), **changes)
    plan, bundle = made(tmp_path, settings, code="return 'fails'")
    with pytest.raises(BuildFailed) as failed:
        images.build(_uncached(bundle), plan, plan.units[0], settings)
    assert all(word in str(failed.value) for word in words), str(failed.value)
    assert "hidden" not in str(failed.value)


def test_a_check_has_no_network_nothing_to_write_to_and_leaves_nothing(tmp_path: Path) -> None:
    settings = cases.settings(tmp_path)
    tries = {
        "socket.create_connection(('10.213.0.31', 1883), 2)": "OSError|unreachable",
        "open('/app/x', 'w')": "Read-only",
    }
    for attempt, said in tries.items():
        image = build(tmp_path, settings, code=f"return value\nimport socket\n{attempt}")
        with pytest.raises(BuildFailed, match=said):
            images.check(image, settings)
    fine = build(
        tmp_path, settings, code="return value\nimport os\nopen('/tmp/x', 'w')\nassert os.environ['A'] == ' b '"
    )
    images.check(fine, settings, {"A": " b "})
    assert cases.docker("container", "ls", "--all", "--quiet", "--filter", "label=io.mlpacker.kind=check") == ""


def test_an_image_that_has_passed_is_not_checked_again(tmp_path: Path) -> None:
    client, log = told(tmp_path)
    settings = cases.settings(tmp_path, docker=str(client))
    image = build(tmp_path, settings, code="return 1")
    images.check(image, settings)
    log.write_text("")
    images.check(image, settings)
    assert log.read_text() == ""


@pytest.mark.parametrize("auth", [False, True])
def test_a_pushed_image_is_named_by_its_digest(tmp_path: Path, auth: bool) -> None:
    settings = cases.settings(tmp_path, auth=auth)
    image = build(tmp_path, settings, code="return 'pushed'")
    pushed = images.push(image, images.registry_of(settings), settings)
    assert pushed.reference.startswith(f"{lab.registry(auth).host}/mlpacker/{PIPELINE}.model@sha256:")
    assert images.push(image, images.registry_of(settings), settings) == pushed
    found = images.inspect(LocalHost(settings), pushed.reference)
    assert found is not None
    assert found.id == image.id


def test_without_a_registry_nothing_is_pushed(tmp_path: Path) -> None:
    settings = cases.settings(tmp_path, registry=False)
    image = build(tmp_path, settings, code="return 1")
    assert images.push(image, images.registry_of(settings), settings) == image


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"registry_password": "wrong-one"}, "MLPACKER__REGISTRY__USER"),
        ({"registry_user": ""}, "MLPACKER__REGISTRY__USER"),
        ({"registry": "127.0.0.1:1"}, "MLPACKER__REGISTRY__HOST"),
    ],
)
def test_a_registry_that_refuses_is_told_with_its_words_and_the_setting(
    tmp_path: Path, changes: dict[str, str], word: str
) -> None:
    settings = replace(cases.settings(tmp_path, auth=True), **changes)
    image = build(tmp_path, settings, code="return 1")
    with pytest.raises(PushFailed, match=word) as failed:
        images.push(image, images.registry_of(settings), settings)
    assert "wrong-one" not in str(failed.value)


@pytest.mark.parametrize("auth", [False, True])
def test_a_machine_pulls_by_digest_with_a_login_that_does_not_stay(tmp_path: Path, far: Host, auth: bool) -> None:
    settings = cases.settings(tmp_path, auth=auth)
    registry = images.registry_of(settings)
    image = images.push(build(tmp_path, settings, code=f"return 'pulled {auth}'"), registry, settings)
    assert not images.present(far, image)
    assert images.deliver(far, image, registry, settings) == 0
    assert images.present(far, image)
    assert images.deliver(far, image, registry, settings) == 0
    named = far.run((far.docker, "image", "inspect", "--format", "{{.RepoTags}}", image.reference)).out
    assert image.name in named  # so that `docker image prune` leaves it
    assert far.run(("find", far.home, "-name", ".docker*")).out == ""
    assert "auths" not in far.run(("cat", f"{far.environ['HOME']}/.docker/config.json")).out
    images.remove(far, image.reference)
    assert not images.present(far, image)


def test_a_wrong_login_of_a_machine_is_told(tmp_path: Path, far: Host) -> None:
    settings = cases.settings(tmp_path, auth=True)
    registry = images.registry_of(settings)
    assert registry is not None
    image = images.push(build(tmp_path, settings, code="return 'login'"), registry, settings)
    with pytest.raises(DeployFailed, match="MLPACKER__REGISTRY__USER"):
        images.deliver(far, image, replace(registry, password="wrong"), settings)


def test_over_ssh_only_the_layers_go_that_a_machine_lacks(tmp_path: Path, far: Host) -> None:
    settings = cases.settings(tmp_path, registry=False)
    first = build(tmp_path, settings, 2.0)
    whole = images.deliver(far, first, None, settings)
    assert whole > 10 * SMALL
    assert images.deliver(far, first, None, settings) == 0
    second = build(tmp_path, settings, 3.0)
    assert 0 < images.deliver(far, second, None, settings) < SMALL
    assert images.present(far, second)
    here, there = LocalHost(settings), far
    for host in (here, there):
        found = images.inspect(host, second.reference)
        assert found is not None
        assert found.id == second.id
    checked = far.run((far.docker, "run", "--rm", "--network", "none", second.reference, "--check"))
    assert checked.ok, checked.tail()


def test_a_machine_that_lacks_more_than_it_seemed_gets_the_whole(
    tmp_path: Path, far: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = cases.settings(tmp_path, registry=False)
    image = build(tmp_path, settings, code="return 'whole'")
    monkeypatch.setattr(saved, "shared", lambda chain, others: len(chain))
    assert images.deliver(far, image, None, settings) > 10 * SMALL
    assert images.present(far, image)


def test_an_image_for_another_kind_of_machine_is_refused_before_anything_is_sent(tmp_path: Path, far: Host) -> None:
    settings = cases.settings(tmp_path, registry=False)
    image = replace(build(tmp_path, settings, code="return 1"), arch="linux/arm64")
    with pytest.raises(DeployFailed, match=r"built for linux/arm64.*is linux/amd64") as refused:
        images.deliver(far, image, None, settings)
    assert "MLPACKER__BUILD__PLATFORM=linux/amd64" in refused.value.hint


def test_an_image_that_came_two_ways_loses_the_names_of_one(tmp_path: Path, far: Host) -> None:
    settings = cases.settings(tmp_path)
    registry, built = images.registry_of(settings), build(tmp_path, settings, code="return 'two ways'")
    pushed = images.push(built, registry, settings)
    for gone, kept in ((pushed, built), (built, pushed)):
        assert images.deliver(far, built, None, settings) >= 0
        assert images.deliver(far, pushed, registry, settings) == 0
        images.remove(far, gone.reference, [kept.reference])
        tags = far.run((far.docker, "image", "inspect", "--format", "{{.RepoTags}}", kept.reference))
        assert tags.ok
        assert len(tags.out.split()) == 1
    images.remove(far, pushed.reference)
    assert not far.run((far.docker, "image", "inspect", built.id)).ok


def test_a_removed_image_leaves_no_name(tmp_path: Path) -> None:
    settings = cases.settings(tmp_path)
    image = images.push(build(tmp_path, settings, code="return 'removed'"), images.registry_of(settings), settings)
    images.check(image, settings)
    images.remove(LocalHost(settings), image.reference)
    assert image.id not in cases.docker("image", "ls", "--all", "--quiet", "--no-trunc")
    assert not list((settings.home / "checked").iterdir())
    images.remove(LocalHost(settings), image.reference)


def test_a_forgotten_pipeline_has_no_image_where_it_was_built(tmp_path: Path) -> None:
    settings, pipeline = cases.settings(tmp_path), f"{PIPELINE}-forgotten"
    plan = cases.plan(tmp_path, pipeline, code=True)
    registry = images.registry_of(settings)
    found = []
    for answer in ("return 'one'", "return 'two'"):
        bundle = cases.bundle(tmp_path, plan, settings, answer=answer)
        found.append(images.push(images.build(bundle, plan, plan.units[0], settings), registry, settings))
    listing = ("image", "ls", "--all", "--quiet", "--no-trunc", "--filter", f"label=io.mlpacker.pipeline={pipeline}")
    assert set(cases.docker(*listing).split()) == {image.id for image in found}
    images.forget(LocalHost(settings), pipeline)
    assert cases.docker(*listing) == ""
    images.forget(LocalHost(replace(settings, docker="/nowhere/docker")), pipeline)
