"""The test of an image as its task does it, on a real engine: what the container may do, and what a kill leaves."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlpacker_airflow import builder
from mlpacker_airflow.builder import Origin
from mlpacker_airflow.container_test import TestImageOperator

from packer_lib import padl, plan, settings
from packer_lib.errors import BuildFailed
from packer_lib.images import Image
from tests.airflow import padls
from tests.lab import lab

pytestmark = pytest.mark.lab
# Says in one line what it could do; "bad" among the variables of the PADL file is a model that does not load.
PROBE = """\
import os, socket, sys
from pathlib import Path

def can(what):
    try:
        what()
    except OSError:
        return False
    return True

assert sys.argv[1:] == ["--check"], sys.argv
assert os.getuid() == 10001
assert not can(lambda: Path("/app-file").write_text("x")), "its disk can be written"
assert can(lambda: Path("/tmp/file").write_text("x")), "no folder for temporary files"
assert not can(lambda: socket.create_connection(("10.213.0.1", 22), 2)), "there is a network"
assert not [name for name in os.environ if name.startswith("AIRFLOW")], "our environment is there"
assert os.environ["GIVEN"] == "{{ 7 * 7 }}"
if "BAD" in os.environ:
    sys.exit("check failed: the model does not load")
"""


@dataclass(frozen=True)
class Ran:
    """What the operator reads of a run."""

    plan: plan.Plan
    built: Image

    def image(self, unit: str) -> Image:
        return self.built

    def swaps(self, unit: str) -> str:
        return ""


def docker(*words: str, **more: Any) -> str:
    done = subprocess.run([settings.read().docker, *words], capture_output=True, text=True, check=True, **more)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder: Path = tmp_path_factory.mktemp("image")
    (folder / "probe.py").write_text(PROBE)
    (folder / "Dockerfile").write_text(
        f'FROM {lab.base_image}\nCOPY probe.py /\nUSER 10001\nENTRYPOINT ["python3", "/probe.py"]\n'
    )
    name = f"container-test-{uuid.uuid4().hex[:8]}:1"
    docker("build", "--quiet", "--tag", name, str(folder))
    yield Image("", docker("image", "inspect", "--format", "{{.Id}}", name), "linux/amd64", 1, name=name)
    docker("image", "rm", "--force", name)


def run(image: Image, **env: str) -> None:
    text = padls.text(padls.stream() | {"version": "1.1", "env": {"GIVEN": "{{ 7 * 7 }}", **env}})
    pipeline = padl.read_text(text, "/p/file.json")
    task = builder.build(pipeline, Origin("/p/file.json", text, 1.0)).get_task("find.test")
    assert isinstance(task, TestImageOperator)
    task.work(Ran(plan.plan(pipeline), image))  # type: ignore[arg-type]


def containers(image: Image) -> str:
    return docker("ps", "--all", "--quiet", "--filter", f"ancestor={image.id}")


def test_it_has_no_network_no_disk_no_rights_and_nothing_of_ours(image: Image) -> None:
    run(image)
    assert containers(image) == ""


def test_what_a_killed_try_has_left_is_replaced(image: Image) -> None:
    name = f"mlpacker-check-{image.id.removeprefix('sha256:')[:12]}"
    docker("run", "--detach", "--name", name, "--entrypoint", "sleep", image.name, "600")
    run(image)
    assert containers(image) == ""


def test_what_does_not_load_is_said_with_its_place_and_nothing_stays(image: Image) -> None:
    with pytest.raises(BuildFailed, match=r"file\.json:\d+:\d+: pipeline\.find: .*the model does not load"):
        run(image, BAD="1")
    assert containers(image) == ""
