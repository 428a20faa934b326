"""The one way to say that a request, a schema and a model do not fit each other."""

from __future__ import annotations


class Unfit(ValueError):
    """The request is understood and cannot be answered; its text says what does not fit what."""
