"""Base class of all settings: a frozen model with described, bounded fields; how two differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Settings of a method or of a part of one; frozen, and unknown names are refused.

    The docstring below a field is its description, for `cvsct.methods.settings.describe_settings`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def differing_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, old and new value of each setting that differs, in alphabetical order."""
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differing_settings(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}", old, new
