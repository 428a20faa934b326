"""What `docker image save` writes, and the part of it that another engine lacks. Standard library only.

A tar with `manifest.json`, which names the configuration and the layers in their order: `<id>/layer.tar` of older
engines, `blobs/sha256/…` (the OCI layout) of newer ones. An engine that loads it skips a layer that it has before it
opens its file: what it has need not be in there.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from posixpath import dirname, join, normpath
from typing import IO

CHUNK = 1 << 18
END = bytes(1024)  # two empty blocks end a tar


@dataclass(frozen=True, slots=True)
class Saved:
    """`layers` are the files of the layers in order, `chain` their digests; `members` their places by name."""

    file: IO[bytes]
    id: str
    layers: tuple[str, ...]
    chain: tuple[str, ...]
    members: tuple[tuple[str, int, int], ...]
    links: dict[str, str]

    def chunks(self, known: int = 0) -> Iterator[bytes]:
        """The tar without the files of the first `known` layers, in pieces."""
        wanted = {self._place(layer) for layer in self.layers[known:]}
        absent = {self._place(layer) for layer in self.layers[:known]} - wanted
        for name, begin, end in self.members:
            if name not in absent:
                yield from _pieces(self.file, begin, end)
        yield END

    def _place(self, layer: str) -> str:
        """A layer that comes twice is a link to its first file."""
        return self.links.get(layer, layer)


def read(file: IO[bytes]) -> Saved:
    """`ValueError` when it is not what one image was saved as."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        found = tar.getmembers()
        ends = [*(member.offset for member in found[1:]), tar.offset]
        try:
            (image,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
            config = tar.extractfile(image["Config"]).read()  # type: ignore[union-attr]
        except (KeyError, ValueError) as error:
            raise ValueError(f"not one saved image: {error}") from None
    identity = image["Config"].rpartition("/")[2].removesuffix(".json")
    return Saved(
        file,
        f"sha256:{identity}",
        tuple(image["Layers"]),
        tuple(json.loads(config)["rootfs"]["diff_ids"]),
        tuple((member.name, member.offset, end) for member, end in zip(found, ends, strict=True)),
        {
            member.name: normpath(join(dirname(member.name), member.linkname))
            for member in found
            if member.issym() or member.islnk()
        },
    )


def _pieces(file: IO[bytes], begin: int, end: int) -> Iterator[bytes]:
    file.seek(begin)
    left = end - begin
    while left > 0 and (piece := file.read(min(CHUNK, left))):
        left -= len(piece)
        yield piece


def shared(chain: Sequence[str], others: Iterable[Sequence[str]]) -> int:
    """How many layers from the first on some other image has too: layers are known by all that is below them."""
    return max((_prefix(chain, other) for other in others), default=0)


def _prefix(one: Sequence[str], other: Sequence[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def squeezed(chunks: Iterable[bytes], sent: list[int]) -> Iterator[bytes]:
    """gzip, which every engine takes; the fastest level: layers are mostly code. `sent` gets the size of each piece."""
    press = zlib.compressobj(1, wbits=31)
    for chunk in chunks:
        if piece := press.compress(chunk):
            sent.append(len(piece))
            yield piece
    last = press.flush()
    sent.append(len(last))
    yield last


def known_chains(lines: Collection[str]) -> list[list[str]]:
    """From `words.chains`: a JSON list a line."""
    return [json.loads(line) or [] for line in lines if line.strip()]
