"""Names, argv and hints of images: pure, without an engine."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packer_lib.bundle import Bundle, render
from packer_lib.errors import DeployFailed
from packer_lib.hosts import Result
from packer_lib.images import failures, names, saved, words
from packer_lib.images.client import env_lines
from packer_lib.images.model import Registry, registry_of
from packer_lib.plan import Plan, Unit
from packer_lib.settings import Settings
from tests.support import ROOT

SETTINGS = Settings(home=Path("/home/x"))
REPOSITORY = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"  # distribution's reference grammar, one path component
PIPELINES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
UNITS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)
BUNDLE = Bundle(Path("/b"), "b" * 64, "c" * 64, (("model", "d" * 64),))
PLAN = Plan("demo", "api", "local", True, (Unit("model", ()),))


@given(PIPELINES, UNITS)
def test_an_image_has_a_name_that_every_registry_takes(pipeline: str, unit: str) -> None:
    import re

    folder, _, name = names.image(pipeline, unit).partition("/")
    assert folder == "mlpacker"
    assert re.fullmatch(REPOSITORY, name)
    assert len(name) <= 128


@given(PIPELINES, UNITS, PIPELINES, UNITS)
def test_no_two_units_share_a_name(one: str, unit: str, other: str, unit_too: str) -> None:
    same = (one, unit) == (other, unit_too)
    assert (names.image(one, unit) == names.image(other, unit_too)) == same
    assert (names.volume(one, unit) == names.volume(other, unit_too)) == same
    assert (names.door(one, unit) == names.door(other, unit_too)) == same


@pytest.mark.parametrize(
    ("one", "other"), [(("a.b", "c"), ("a", "b-c")), (("a", "b_"), ("a", "b")), (("a..b", "c"), ("a.b", "c"))]
)
def test_names_that_look_alike_stay_apart(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert names.image(*one) != names.image(*other)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("registry:5000", "registry:5000/mlpacker/demo.model:1"),
        ("docker.io/me", "docker.io/me/demo.model:1"),
        ("r.example/team/models", "r.example/team/models/demo.model:1"),
    ],
)
def test_where_an_image_goes_in_a_registry(host: str, expected: str) -> None:
    assert names.pushed(Registry(host), "mlpacker/demo.model:1") == expected


def test_a_tag_says_all_that_goes_into_an_image() -> None:
    tags = {
        names.tag(bundle, settings)
        for bundle in (BUNDLE, replace(BUNDLE, digest="e" * 64))
        for settings in (SETTINGS, replace(SETTINGS, base_image="other"), replace(SETTINGS, platform="linux/arm64"))
    }
    assert len(tags) == 6


def test_labels_are_the_same_for_the_same_image_and_name_its_base() -> None:
    pinned = replace(SETTINGS, base_image="python:3.11@sha256:" + "1" * 64)
    labels = names.labels(BUNDLE, PLAN, PLAN.units[0], pinned)
    assert labels == names.labels(BUNDLE, PLAN, PLAN.units[0], pinned)
    assert labels["org.opencontainers.image.base.name"] == "python:3.11"
    assert labels["org.opencontainers.image.base.digest"] == "sha256:" + "1" * 64
    assert json.loads(labels["io.mlpacker.models"]) == {"model": "d" * 64}


def test_a_pipeline_may_do_without_the_registry() -> None:
    settings = replace(SETTINGS, registry="r:5000", registry_user="u", registry_password="p")
    assert registry_of(settings) == registry_of(settings, PLAN) == Registry("r:5000", "u", "p")
    assert registry_of(settings, replace(PLAN, registry="none")) is None
    assert registry_of(SETTINGS) is None
    assert "p'" not in repr(registry_of(settings))


def test_the_words_of_a_build() -> None:
    what = words.Build(
        "/b", "mlpacker/x:1", "base", {"k": "v w"}, {"ca": '/etc/a,b".crt', "index": "/tmp/i"}, "linux/arm64"
    )
    assert words.build("docker", what) == (
        *("docker", "build", "--progress", "plain", "--tag", "mlpacker/x:1", "--build-arg", "BASE_IMAGE=base"),
        *("--platform", "linux/arm64", "--label", "k=v w", "--secret", 'id=ca,"src=/etc/a,b"".crt"'),
        *("--secret", "id=index,src=/tmp/i", "/b"),
    )


def test_values_of_the_environment_are_in_no_words() -> None:
    what = words.Container("n", "sha256:1", {}, env=True, publish=(("::1", 80, 8080),), hosts=(("m", "1.2.3.4"),))
    argv = words.create("docker", what, "mlpacker")
    assert argv[argv.index("--env-file") + 1] == "/dev/stdin"
    assert argv[argv.index("--publish") + 1] == "[::1]:80:8080"
    assert "m:1.2.3.4" in argv
    assert "--privileged" not in argv
    assert argv[-1] == "sha256:1"


def test_a_line_of_the_environment_is_one_value() -> None:
    assert env_lines({"A": " b=c # 'd'", "E": ""}) == "A= b=c # 'd'\nE=\n"
    for value in ("a\nB=1", "a\rb", "a\0b"):
        with pytest.raises(DeployFailed, match="A has a line break"):
            env_lines({"A": value})


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("write /var/lib/docker/x: no space left on device", "no room on the disk of the engine"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "is the engine running"),
        ("http: server gave HTTP response to HTTPS client", '{"insecure-registries": ["r:5000"]}'),
        ("x509: certificate signed by unknown authority", "/etc/docker/certs.d/r:5000/ca.crt"),
        ("no basic auth credentials", "MLPACKER__REGISTRY__USER"),
        ("unauthorized: authentication required", "(or __PASSWORD_FILE)"),
        ("dial tcp 10.0.0.1:5000: connect: connection refused", "MLPACKER__REGISTRY__HOST"),
        ("no matching manifest for linux/arm64 in the manifest list entries", "MLPACKER__BUILD__PLATFORM"),
    ],
)  # fmt: skip
def test_what_to_do_about_what_an_engine_or_a_registry_says(said: str, advice: str) -> None:
    assert advice in failures.hint(said, failures.HINTS, machine="m1", registry="r:5000")


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("#3 ERROR: pull access denied, repository does not exist", "MLPACKER__BUILD__BASE_IMAGE"),
        ("failed to solve with frontend dockerfile.v0: base:1: not found", "MLPACKER__BUILD__BASE_IMAGE"),
        ("#9 1.2 cause: invalid peer certificate: UnknownIssuer", "MLPACKER__BUILD__CA_BUNDLE"),
        ("#9 1.2 error: dns error: failed to lookup address", "MLPACKER__BUILD__INDEX_URL"),
        ("#9 1.2 error: hash mismatch for numpy", "a mirror that changes packages"),
        ("#9 1.2 /bin/sh: 1: python3: not found", "python3 with venv"),
        ("unknown flag: --secret", "docker-buildx"),
    ],
)
def test_what_to_do_about_what_a_build_says(said: str, advice: str) -> None:
    assert advice in failures.hint(said, failures.BUILD_HINTS, machine="m1", base="base:1", registry="")


def test_of_a_failed_build_the_failing_commands_own_lines_are_told() -> None:
    out = (
        "#8 [build 4/5] COPY requirements.lock ./\n#8 DONE 0.0s\n#9 [build 5/5] RUN --mount=type=secret very long\n"
        "#9 0.3 Using CPython 3.11.2\n#9 1.0 error: no such package: nothere\n#9 ERROR: executor failed running [sh]\n"
        "------\n > [build 5/5] RUN --mount=type=secret very long:\n------\nexecutor failed running [sh]\n"
    )
    assert failures.build_lines(Result(1, err=out)) == "Using CPython 3.11.2\nerror: no such package: nothere"


def test_no_password_is_repeated() -> None:
    settings = replace(SETTINGS, index_url="https://me:hidden@index.example/simple", registry_password="other")
    assert failures.without_secrets("https://me:hidden@index other", settings) == "https://me:***@index ***"


def test_uv_inside_images_is_the_one_that_we_have() -> None:
    import tomllib

    ours = next(p for p in tomllib.loads((ROOT / "uv.lock").read_text())["package"] if p["name"] == "uv")
    assert render.UV["version"] == ours["version"]
    assert set(render.UV["hashes"]) <= {wheel["hash"] for wheel in ours["wheels"]}


OLD = ("aa/layer.tar", "bb/layer.tar", "cc/layer.tar")
NEW = tuple(f"blobs/sha256/{name * 64}" for name in "abc")


def image_tar(layers: tuple[str, ...], links: dict[str, str] | None = None) -> io.BytesIO:
    """What `docker image save` writes, in its order: layers first, manifest last."""
    config = "config.json" if layers == OLD else "blobs/sha256/" + "f" * 64
    chain = [f"sha256:{place}" for place in range(len(layers))]
    files = {layer: layer.encode() * 1000 for layer in layers if layer not in (links or {})}
    files[config] = json.dumps({"rootfs": {"diff_ids": chain}}).encode()
    files["manifest.json"] = json.dumps([{"Config": config, "Layers": layers, "RepoTags": ["x:1"]}]).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    out.seek(0)
    return out


def members(chunks: object) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks)), mode="r:") as tar:  # type: ignore[arg-type]
        return [member.name for member in tar if not member.isreg() or tar.extractfile(member).read()]


@pytest.mark.parametrize("layers", [OLD, NEW])
@pytest.mark.parametrize("known", [0, 1, 3])
def test_a_saved_image_without_the_layers_that_a_machine_has(layers: tuple[str, ...], known: int) -> None:
    image = saved.read(image_tar(layers))
    found = members(image.chunks(known))
    assert [name for name in found if name in layers] == list(layers[known:])
    assert "manifest.json" in found
    assert len(found) == 2 + 3 - known


def test_a_layer_that_comes_twice_is_sent_while_it_is_needed() -> None:
    image = saved.read(image_tar(OLD, {"cc/layer.tar": "../aa/layer.tar"}))
    assert "aa/layer.tar" in members(image.chunks(2))
    assert "aa/layer.tar" not in members(image.chunks(3))


def test_what_is_no_saved_image_is_refused() -> None:
    empty = io.BytesIO()
    with tarfile.open(fileobj=empty, mode="w"):
        pass
    empty.seek(0)
    with pytest.raises(ValueError, match="not one saved image"):
        saved.read(empty)


def test_layers_are_shared_from_the_first_on() -> None:
    chain = ["a", "b", "c"]
    assert saved.shared(chain, []) == 0
    assert saved.shared(chain, [["b", "c"], ["a", "x", "c"]]) == 1
    assert saved.shared(chain, [["a", "b"], ["a", "b", "c", "d"]]) == 3


def test_what_is_sent_is_counted_and_can_be_read_back() -> None:
    sent: list[int] = []
    packed = list(saved.squeezed([b"a" * 100_000, b"b"], sent))
    assert zlib.decompress(b"".join(packed), wbits=31) == b"a" * 100_000 + b"b"
    assert sum(sent) == sum(map(len, packed)) < 1000
