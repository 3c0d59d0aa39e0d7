"""Puts code around a method of the product, in this process only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def wrap(owner: type, name: str, make: Callable[[Any], Any]) -> None:
    """Replaces a method by what `make` builds from it; a method that is not there is an error."""
    setattr(owner, name, make(getattr(owner, name)))
