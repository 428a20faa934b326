"""`python -m tests.sizes`: measures on the lab, writes docs/images/sizes.json and the tables of docs/images.md."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from packer_lib import images
from packer_lib.images import Image
from tests.lab import lab
from tests.lab.place import docker
from tests.sizes import bento, ours, page, store

TURNS = 3


def main() -> None:
    assert lab.is_up(), "this needs the lab: make lab"
    with tempfile.TemporaryDirectory(prefix="mlpacker-sizes-") as folder:
        try:
            figures = measured(Path(folder))
        finally:
            clear()
    print(page.write(figures))


def measured(folder: Path) -> dict[str, Any]:
    here = ours.settings(folder)
    say("our image of the scikit-learn model")
    iris = ours.example(folder / "iris", "iris-rest", "iris.skops")
    first, _, made_of = ours.image(iris, here)
    say("BentoML's image of the same model")
    bento.base(folder / "base", here)
    (folder / "bento").mkdir()
    model = iris.parent / "models" / "iris.skops"
    theirs, _ = bento.image(folder / "bento", model, "1")
    say("a new model, in both")
    warm, theirs_warm = [], []
    for turn in range(TURNS):
        model_bytes = ours.retrained(model, random.uniform(1, 9)).stat().st_size  # none that a cache may have
        second, seconds, _ = ours.image(iris, here)
        warm.append(seconds)
        theirs_second, seconds = bento.image(folder / "bento", model, f"new{turn}")
        theirs_warm.append(seconds)
    change = {
        "model_bytes": model_bytes,
        "ours": {"seconds": min(warm), **moved(first, second, here)},
        "bentoml": {"seconds": min(theirs_warm), **moved_theirs(theirs, theirs_second)},
    }
    say("a TensorFlow unit, and one image with everything")
    lstm, _, _ = ours.image(ours.example(folder / "lstm", "lstm-rest", "lstm.h5"), here)
    everything = ours.everything(made_of, here)
    return {
        "base_bytes": size(here.base_image),
        "images": {
            "ours_scikit_learn": {"bytes": first.size, "layers": layers(first.id)},
            "bentoml_scikit_learn": {"bytes": size(theirs), "layers": layers(theirs)},
            "bentoml_base": {"bytes": size(bento.BASE)},
            "ours_tensorflow": {"bytes": lstm.size},
            "everything": {"bytes": everything.size},
        },
        "new_model": change,
    }


def moved(first: Image, second: Image, here: Any) -> dict[str, int]:
    """Bytes of our first image through the registry, and of the second by either way."""
    registry = ours.registry(here)
    pushed = images.push(first, registry, here)
    again = images.push(second, registry, here)
    taken = through_registry(pushed.reference, again.reference)
    with ours.machine(here) as host:
        images.remove(host, second.id)
        return taken | {"streamed_bytes": ours.poured(host, second, here)}


def moved_theirs(first: str, second: str) -> dict[str, int]:
    """The same of BentoML's."""
    return through_registry(*(store.push(name, "mlpacker-sizes/bento") for name in (first, second)))


def through_registry(first: str, second: str) -> dict[str, int]:
    """Bytes of the first image, and of the second where the first is there already; both by digest in the registry."""
    there, machine = store.blobs(first), lab.machine(ours.MACHINE)
    machine.exec("docker", "pull", "-q", first)
    said = machine.exec("docker", "pull", second)
    taken = {
        "whole_bytes": sum(there.values()),
        "pushed_bytes": store.added(second, there),
        "pulled_bytes": store.pulled(second, said),
    }
    for reference in (first, second):
        store.remove(reference)
    return taken


def size(name: str) -> int:
    return int(docker("image", "inspect", "-f", "{{.Size}}", name))


def layers(name: str) -> list[tuple[int, str]]:
    """The largest layers: their bytes, and what made them."""
    said = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", name)
    pairs = (line.partition(" ") for line in said.splitlines())
    found = [(int(size), text.rpartition("/bin/sh -c ")[2][:160]) for size, _, text in pairs]
    return [pair for pair in sorted(found, reverse=True)[:5] if pair[0] > 1e6]


def clear() -> None:
    """None of the images is left, here or on the machine."""
    client = ("docker", "image", "ls", "-q", "--no-trunc", "--filter")
    machine = lab.machine(ours.MACHINE)
    host = lab.registry().host
    for what in ("reference=mlpacker-sizes/*", "reference=mlpacker/sizes-*", f"reference={host}/mlpacker*/sizes-*",
                 f"reference={host}/mlpacker-sizes/*"):  # fmt: skip
        for found in dict.fromkeys(docker(*client[1:], what).split()):
            docker("image", "rm", "-f", found, check=False)
        for found in dict.fromkeys(machine.exec(*client, what).split()):
            machine.exec("docker", "image", "rm", "-f", found, check=False)


def say(text: str) -> None:
    print(f"[sizes] {text} …", flush=True)


if __name__ == "__main__":
    main()
