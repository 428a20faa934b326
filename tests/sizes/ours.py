"""Our side: images of the examples, of another model, and of every requirement there is."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from packer_lib import artefacts, bundle, images, padl
from packer_lib import settings as installation
from packer_lib.bundle import lock, locks
from packer_lib.hosts import Host
from packer_lib.hosts.connect import connect
from packer_lib.hosts.local import LocalHost
from packer_lib.hosts.ssh import SshHost
from packer_lib.images import Image, Registry, registry_of, words
from packer_lib.padl.model import Machine
from packer_lib.plan import Plan
from packer_lib.plan import plan as planned
from packer_lib.secrets import Login
from packer_lib.settings import Settings
from tests.lab import lab
from tests.support import ROOT

EXAMPLES = ROOT / "pipelines" / "examples"
MACHINE = "cloud_2"
EVERYTHING = "mlpacker-sizes/everything"


def settings(folder: Path) -> Settings:
    """The lab's, with its registry and a home in `folder`."""
    env = {**lab.settings_env(), **lab.registry_env(), "MLPACKER__PATHS__HOME": str(folder / "home")}
    return installation.read(env)


def registry(here: Settings) -> Registry:
    found = registry_of(here)
    assert found is not None
    return found


def example(folder: Path, name: str, model: str) -> Path:
    """A containerized copy of an example and its model, under an id of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    padl_file = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    padl_file |= {"id": f"sizes-{name}", "containerized": True}
    (folder / "models").mkdir(exist_ok=True)
    shutil.copy(EXAMPLES / "models" / model, folder / "models")
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(padl_file))
    return file


def retrained(model: Path, c: float) -> Path:
    """The iris model of another training, in its place."""
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, species = load_iris(return_X_y=True)
    skops.io.dump(make_pipeline(StandardScaler(), LogisticRegression(C=c)).fit(features, species), model)
    return model


def image(file: Path, here: Settings) -> tuple[Image, float, Path]:
    """PADL file → image; how many seconds that took from the model's file on, and the bundle it was made of."""
    begun = time.monotonic()
    plan = planned(padl.read(file))
    made = _bundle(plan, file.parent / "bundle", here)
    built = images.build(made, plan, plan.units[0], here)
    return built, time.monotonic() - begun, made.path


def _bundle(plan: Plan, folder: Path, here: Settings) -> bundle.Bundle:
    return bundle.write(plan, plan.units[0], artefacts.fetch(plan, plan.units[0], here), folder, here)


def everything(folder: Path, here: Settings) -> Image:
    """The same bundle and Dockerfile with the requirements of every framework and connector."""
    whole = lock.render(lock.merge(file.read_text() for file in sorted(Path(locks.__file__).parent.glob("*.txt"))))
    aside = folder.with_name("everything")
    shutil.copytree(folder, aside)
    (aside / "requirements.lock").chmod(0o644)
    (aside / "requirements.lock").write_text(whole)
    secrets = {"ca": str(here.ca_bundle)} if here.ca_bundle else {}
    argv = words.build(here.docker, words.Build(str(aside), EVERYTHING, here.base_image, {}, secrets))
    host = LocalHost(here)
    done = host.run(argv, env={"DOCKER_BUILDKIT": "1", "PATH": "/usr/bin:/bin", "HOME": str(folder)}, timeout=3600)
    assert done.ok, done.tail(20)
    found = images.inspect(host, EVERYTHING)
    assert found is not None
    return found


@contextmanager
def machine(here: Settings) -> Iterator[Host]:
    there = lab.machine(MACHINE)
    login = Login("m", there.hostname, user=there.user, password=there.password, host_key=there.host_key)
    host = SshHost(Machine("m", there.hostname), login, partial(connect, settings=here))
    try:
        yield host
    finally:
        host.close()


def poured(host: Host, made: Image, here: Settings) -> int:
    """Bytes of `made` that went over the machine's SSH connection (`registry: none`)."""
    return images.deliver(host, replace(made, reference=made.id, digest=""), None, here)
