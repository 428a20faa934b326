"""A unit as a folder that runs anywhere: entry point, the runtime it uses, code, models and exact requirements."""

from __future__ import annotations

from packer_lib.bundle.write import Bundle, open_bundle, write

__all__ = ["Bundle", "open_bundle", "write"]
