"""Base class of all settings: a frozen model with described, bounded fields; how two differ.

Arguments of public functions that become the fields of a model are refused in the words of an
argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cvsct.core.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)


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


def of_arguments(kind: type[Model], **arguments: Any) -> Model:
    """Model whose fields are arguments that a user gave.

    Raises:
        UsageError: naming every argument with an impossible value.
    """
    try:
        return kind.model_validate(arguments)
    except ValidationError as error:
        raise UsageError("; ".join(map(_impossible, error.errors()))) from None


def _impossible(detail: Any) -> str:
    """What is wrong with one argument."""
    return f"{'.'.join(map(str, detail['loc']))}={detail['input']!r}: {what_must_be(detail)}"


def what_must_be(detail: Any) -> str:
    """Words for an error that pydantic found in a value."""
    message = str(detail["msg"]).removeprefix("Value error, ").replace("Input should", "must", 1)
    return message[:1].lower() + message[1:]


def refuse_outside(
    least: int | float, most: int | float = math.inf, **arguments: int | float | None
) -> None:
    """Refuse numbers that a user gave as arguments and that lie outside a range.

    Raises:
        UsageError: for the first that does, or is no number; None is never refused, NaN always.
    """
    for name, value in arguments.items():
        if value is not None and not isinstance(value, Real):
            raise UsageError(f"{name}={value!r}: must be a number")
        if value is not None and not least <= value <= most:
            wanted = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
            raise UsageError(f"{name}={value}: must be {wanted}")
