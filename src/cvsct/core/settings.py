"""Base class of all settings: a frozen model with described, bounded fields."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Settings of a method or of a part of one; frozen, and unknown names are refused.

    The docstring below a field is its description, for `cvsct.methods.settings.describe_settings`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
