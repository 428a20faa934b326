"""What Schemathesis is told of content types that it does not know: `SCHEMATHESIS_HOOKS` names this file."""

from __future__ import annotations

import io

import numpy
import schemathesis
from hypothesis import strategies

CELLS = strategies.floats(-1e6, 1e6).map(repr)
LINES = strategies.lists(strategies.lists(CELLS, min_size=4, max_size=4).map(",".join), min_size=1, max_size=4)


def npy(rows: int) -> bytes:
    file = io.BytesIO()
    numpy.save(file, numpy.ones((rows, 4)))
    return file.getvalue()


schemathesis.openapi.media_type("text/csv", LINES.map("\n".join).map(str.encode))
schemathesis.openapi.media_type("application/x-npy", strategies.integers(0, 3).map(npy))
for kind in ("application/x-protobuf", "application/vnd.google.protobuf"):
    schemathesis.openapi.media_type(kind, strategies.binary(max_size=64))
