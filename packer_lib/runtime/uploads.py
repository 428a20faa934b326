"""What a unit takes as a model over the network: formats that cannot run code of their author, by their content.

skops, ONNX and `.keras` pass. joblib, pickle and `.h5` are refused unless the unit was started with
`MLPACKER_UNSAFE_UPLOADS=true`. All are looked through first, by the same code as before a deploy (model_files/).
Standard library only; imports the runtime only.
"""

from __future__ import annotations

from pathlib import Path

from .catalogue import FRAMEWORKS
from .model_files import apart
from .model_files.kinds import FOLDERS, UNSAFE, kinds

SETTING = "MLPACKER_UNSAFE_UPLOADS"


class Unacceptable(Exception):
    """The upload is not used; the text says why, and what would be."""


def serializer_of(path: Path, framework: str, allow_unsafe: bool) -> str:
    """The serializer of the upload at `path`, for a step of `framework`; `Unacceptable`.

    `allow_unsafe`: formats that can carry code are taken, too (`Settings.unsafe_uploads`). Takes seconds for a large
    file: not for the thread of an event loop.
    """
    known = FRAMEWORKS[framework].serializers
    found = () if path.is_dir() else kinds(path)
    kind = next((one for one in found if one in known), "")
    if not kind:
        is_one = f"looks like {found[0]}" if found else "is none of the formats we know, or damaged"
        raise Unacceptable(f"the upload {is_one}; a step of {framework} takes {_listed(framework, allow_unsafe)}")
    if kind in UNSAFE and not allow_unsafe:
        raise Unacceptable(
            f"the upload is {kind}, which can run code of its author when it is loaded; send"
            f" {_listed(framework, False)}, or use mlpacker swap with its sha256 ({SETTING}=true would allow it here)"
        )
    if reason := apart.look(path, kind).refused:
        raise Unacceptable(f"the upload ({kind}) {reason}")
    return kind


def _listed(framework: str, allow_unsafe: bool) -> str:
    serializers = FRAMEWORKS[framework].serializers
    return " or ".join(one for one in serializers if one not in FOLDERS and (allow_unsafe or one not in UNSAFE))
