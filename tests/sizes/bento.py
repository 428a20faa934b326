"""BentoML's side: the same model by `bentoml build` and `bentoml containerize`, on the same base and Python.

The base gets the CA bundle first, and what a public Python image has and Debian's does not: `python`, and a pip that
may install beside apt's packages.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from packer_lib.settings import Settings

HERE = Path(__file__).parent
BASE, NAME = "mlpacker-sizes/bento-base", "mlpacker-sizes/bento"
PACKAGES = ("bentoml", "scikit-learn", "joblib")
BASE_FILE = """\
ARG BASE
FROM ${BASE}
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
ENV PIP_BREAK_SYSTEM_PACKAGES=1
RUN ln -sf python3 /usr/bin/python
"""
KEEP = """
import shutil, sys
import bentoml
with bentoml.models.create("iris") as kept:
    shutil.copy(sys.argv[1], kept.path_of("model.joblib"))
"""


def base(folder: Path, here: Settings) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text(BASE_FILE)
    shutil.copy(here.ca_bundle or "/etc/ssl/certs/ca-certificates.crt", folder / "ca.crt")
    _run(folder, here.docker, "build", "-q", "-t", BASE, "--build-arg", f"BASE={here.base_image}", str(folder))


def image(folder: Path, model: Path, tag: str) -> tuple[str, float]:
    """Model file (skops) → image; its name, and the seconds from the file in BentoML's store on."""
    import joblib
    import skops.io

    trained = skops.io.load(model, trusted=skops.io.get_untrusted_types(file=model))
    joblib.dump(trained, folder / "model.joblib")
    source = folder / "source"  # all that is in it comes into the image
    source.mkdir(exist_ok=True)
    shutil.copy(HERE / "bento_service.py", source / "service.py")
    _run(source, sys.executable, "-c", KEEP, str(folder / "model.joblib"))
    begun = time.monotonic()
    bento = _run(source, *_bentoml("build", "service:Iris", "--output", "tag")).split("__tag__:")[1].strip()
    _run(source, *_bentoml("containerize", bento, "--backend", "docker", "-t", f"{NAME}:{tag}"))
    return f"{NAME}:{tag}", time.monotonic() - begun


def _bentoml(*words: str) -> tuple[str, ...]:
    return (str(Path(sys.executable).with_name("bentoml")), *words)


def _run(folder: Path, *argv: str) -> str:
    versions = (f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES)
    env = {
        **os.environ,
        "PATH": f"/usr/bin:{os.environ['PATH']}",  # Debian's client, which builds without a plug-in
        "BENTOML_HOME": str(folder.parent / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "DOCKER_BUILDKIT": "1",
        "SIZES_BASE": BASE,
        "SIZES_PACKAGES": " ".join(versions),
    }
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout
