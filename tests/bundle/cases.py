"""Bundles of every kind of unit, written once for these tests."""

from __future__ import annotations

from pathlib import Path

from packer_lib import artefacts, bundle
from packer_lib.bundle import Bundle
from packer_lib.padl.model import PackageMode, Step
from tests.artefacts import cases

MQTT = {"inputs": ("q1",), "outputs": ("q2",)}
KAFKA = {"inputs": ("k1",), "outputs": ("k2",)}
WEBSOCKET = {"inputs": ("w1",), "outputs": ("q2",)}
ALONE: dict[str, tuple[str, ...]] = {"inputs": (), "outputs": ()}
KERAS = {"path": "model.h5", "serializer": "h5", "framework": "tensorflow"}
KINDS: dict[str, tuple[PackageMode, tuple[Step, ...]]] = {
    "stream-code-mqtt": ("stream", (cases.code(**MQTT),)),
    "stream-sklearn-mqtt": ("stream", (cases.model(**MQTT),)),
    "stream-tensorflow-kafka": ("stream", (cases.model(**KERAS, **KAFKA),)),
    "stream-code-websocket": ("stream", (cases.code(**WEBSOCKET),)),
    "stream-chain-kafka": (
        "stream",
        (cases.code(inputs=("k1",), outputs=("classify",)), cases.model(inputs=("prepare",), outputs=("k2",))),
    ),
    "stream-schema-npy": (
        "stream",
        (cases.code(inputs=("h1",), outputs=("k2",), input_format="npy", output_format="msgpack"),),
    ),
    "api-code": ("api", (cases.code(**ALONE),)),
    "api-sklearn": ("api", (cases.model(**ALONE),)),
    "api-tensorflow": ("api", (cases.model(**KERAS, **ALONE),)),
}


def write(folder: Path, kind: str, output: Path | None = None) -> Bundle:
    """The bundle of that kind, from artefacts in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    cases.write_code(folder)
    cases.write_model(folder)
    (folder / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    mode, steps = KINDS[kind]
    plan, settings = cases.plan(folder, *steps, mode=mode), cases.settings(folder)
    unit = plan.units[0]
    return bundle.write(plan, unit, artefacts.fetch(plan, unit, settings), output or folder / "bundle", settings)


def files(bundle: Bundle) -> dict[str, bytes]:
    """Every file of a bundle by its path."""
    found = (path for path in bundle.path.rglob("*") if path.is_file())
    return {path.relative_to(bundle.path).as_posix(): path.read_bytes() for path in found}
