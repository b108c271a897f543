"""The one kind of settings: a frozen model whose fields say what they mean, with bounds."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Settings of a method, or of a part of one: unknown names are refused, values do not change.

    The docstring below a field is its description, for `cvsct.methods.settings.describe_settings`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
