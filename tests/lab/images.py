"""The lab's images: the base by debootstrap as root on Debian, else from Debian's own image; the others from the base.

An image carries the digest of what it was made from, so that the second `make lab` builds nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from string import Template

from tests.lab import brokers, engine
from tests.lab.place import FOLDER, HERE, LabError, client, docker, program, run, say
from tests.lab.spec import BASE_IMAGE, KAFKA, LABEL

PARENTS = {"bare": "base", "machine": "bare", "registry": "base", "mosquitto": "base", "kafka": "base"}
EXTRAS = {"bare": ("machine.sh",), "mosquitto": ("mosquitto.conf",), "kafka": ("kafka.sh",)}
INCLUDE = "python3,python3-venv,python3-pip,ca-certificates"
NOT_NEEDED = ("var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/lib/apt/lists/*", "var/log/*")
NOT_READ = ("usr/share/doc/*", "usr/share/man/*/*", "usr/share/locale/*")
SLIM = """\
FROM debian:bookworm-slim
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      python3 python3-venv python3-pip ca-certificates && rm -rf /var/lib/apt/lists/*
"""


def up() -> None:
    """Makes every image that is missing or was made from something else."""
    _base()
    for name, parent in PARENTS.items():
        _build(name, BASE_IMAGE if parent == "base" else f"mlpacker-lab/{parent}")


def _base() -> None:
    if docker("image", "inspect", "-f", "{{.Id}}", BASE_IMAGE, check=False):
        return
    if os.geteuid() == 0 and program("apt-get"):
        _import_base(_debootstrap())
        return
    say("building the base image from debian:bookworm-slim …")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Dockerfile").write_text(SLIM)
        docker("build", "-q", "-t", BASE_IMAGE, folder)


def _debootstrap() -> Path:
    """The tarball of a minimal Debian with Python, made once (about 40 s)."""
    tarball = FOLDER / "bookworm.tar"
    if tarball.exists():
        return tarball
    if program("debootstrap") is None:
        engine.apt_install("debootstrap")
    say("making the base image's files (debootstrap, about a minute) …")
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        root, half = f"{folder}/root", f"{folder}/half.tar"
        run(("debootstrap", "--variant=minbase", f"--include={INCLUDE}", "bookworm", root))
        excludes = tuple(f"--exclude=./{pattern}" for pattern in (*NOT_NEEDED, *NOT_READ))
        run(("tar", "-C", root, *excludes, "-cf", half, "."))
        Path(half).rename(tarball)
    return tarball


def _import_base(tarball: Path) -> None:
    say("importing the base image …")
    changes = ("-c", 'CMD ["bash"]', "-c", f"LABEL {LABEL}=base")
    docker("import", *changes, str(tarball), BASE_IMAGE)


def _build(name: str, parent: str) -> None:
    tag = f"mlpacker-lab/{name}"
    with tempfile.TemporaryDirectory() as temporary:
        context = Path(temporary)
        _fill(name, context)
        made_from = _digest(context, docker("image", "inspect", "-f", "{{.Id}}", parent))
        if docker("image", "inspect", "-f", f'{{{{index .Config.Labels "{LABEL}"}}}}', tag, check=False) == made_from:
            return
        say(f"building {tag} …")
        docker("build", "-q", "-t", tag, "--label", f"{LABEL}={made_from}", "--build-arg", f"BASE={parent}", temporary)


def _fill(name: str, context: Path) -> None:
    shutil.copy(HERE / "images" / f"{name}.Dockerfile", context / "Dockerfile")
    for extra in EXTRAS.get(name, ()):
        shutil.copy(HERE / "images" / extra, context)
    if name == "kafka":
        _fill_kafka(context)


def _fill_kafka(context: Path) -> None:
    """Maven's jars, and the configuration of brokers.py with a listener that the whole lab reaches."""
    if not brokers.kafka_fetched():
        if shutil.which("mvn") is None or shutil.which("java") is None:
            _install_maven()
        say("fetching Kafka through Maven (43 MB) …")
        brokers.fetch_kafka()
    shutil.copytree(brokers.LIBS, context / "libs")
    shutil.copy(brokers.HERE / "log4j2.properties", context)
    text = Template((brokers.HERE / "server.properties").read_text())
    text_for_lab = text.substitute(port=KAFKA.port, controller=9093, data="/data/kafka").replace(
        f"PLAINTEXT://127.0.0.1:{KAFKA.port}", f"PLAINTEXT://{KAFKA.name}:{KAFKA.port}"
    )
    (context / "server.properties").write_text(
        text_for_lab.replace(f"listeners=PLAINTEXT://{KAFKA.name}", "listeners=PLAINTEXT://0.0.0.0", 1)
    )


def _install_maven() -> None:
    if os.geteuid() != 0 or program("apt-get") is None:
        raise LabError("Kafka's jars come from Maven: apt-get install default-jre-headless maven")
    engine.apt_install("default-jre-headless", "maven")


def _digest(context: Path, parent: str) -> str:
    total = hashlib.sha256(parent.encode())
    for file in sorted(path for path in context.rglob("*") if path.is_file()):
        total.update(f"{file.relative_to(context)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def name_server() -> str:
    """The text of a resolv.conf that works inside containers: the one the engine makes on its default bridge."""
    argv = (client(), "run", "--rm", "--label", f"{LABEL}=probe", BASE_IMAGE, "cat", "/etc/resolv.conf")
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
