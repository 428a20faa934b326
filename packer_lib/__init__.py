"""MLPacker: packages and deploys analytic pipelines described in PADL. See docs/architecture.md for the map."""

__version__ = "0.1.0"
