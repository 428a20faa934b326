"""What steps are made of: model files by sha256, code at a git commit, in a content-addressed store.

`check` says what is wrong without touching anything, `require` raises it, `fetch` brings it into the store;
`fetch_another` a model for a step that is deployed.
"""

from __future__ import annotations

from packer_lib.artefacts.another import fetch_another
from packer_lib.artefacts.check import check, require
from packer_lib.artefacts.fetch import fetch
from packer_lib.artefacts.model import Artefact

__all__ = ["Artefact", "check", "fetch", "fetch_another", "require"]
