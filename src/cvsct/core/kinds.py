"""Arguments of the wrong kind, such as a path where a volume is needed, refused in words."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cvsct.core.errors import UsageError, one_line

PATH = (str, os.PathLike)
"""Kinds of a path."""
PATH_WORDS = "a path (text or pathlib.Path)"

MAX_SHOWN_CHARS = 60


def refuse_other_kind(kinds: type | tuple[type, ...], wanted: str, **arguments: object) -> None:
    """Refuse arguments that are of another kind than a function takes.

    Args:
        kinds: what it takes.
        wanted: the same in words, and what to do instead, as the end of a sentence.
        arguments: values by the names of the arguments.

    Raises:
        UsageError: for the first that is of another kind.
    """
    for name, value in arguments.items():
        if not isinstance(value, kinds):
            raise UsageError(f"{name}: {kind_of(value)}, expected {wanted}")


def refuse_no_path(instead: str = "", **arguments: object) -> None:
    """Refuse arguments that are no paths.

    Args:
        instead: what to do with something else, as the end of a sentence.

    Raises:
        UsageError: for the first that is none.
    """
    refuse_other_kind(PATH, PATH_WORDS + (f"; {instead}" if instead else ""), **arguments)


def refuse_given_no_path(**arguments: object) -> None:
    """Refuse arguments that are no paths; those that are None or empty text are not given.

    Raises:
        UsageError: for the first that is none.
    """
    for name, value in arguments.items():
        if value is not None and not (isinstance(value, str) and not value):
            refuse_other_kind(PATH, PATH_WORDS, **{name: value})


def refuse_other_kinds_in(
    kinds: type | tuple[type, ...], wanted: str, values: Any, name: str
) -> list[Any]:
    """The values of an argument, one or several, all of the kinds that a function takes.

    Raises:
        UsageError: if it is neither, naming the first value of another kind by its number.
    """
    if isinstance(values, kinds):
        return [values]
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise UsageError(f"{name}: {kind_of(values)}, expected {wanted}")
    listed = list(values)
    for number, value in enumerate(listed, start=1):
        refuse_other_kind(kinds, wanted, **{f"{name} {number}": value})
    return listed


def texts(values: str | Iterable[str]) -> tuple[str, ...]:
    """Texts of an argument that takes several; one alone is not taken for its letters."""
    return (values,) if isinstance(values, str) else tuple(values)


def kind_of(value: object) -> str:
    """What a value is, in words.

    Example:
        >>> kind_of(None), kind_of(3), kind_of("scans")
        ('None', 'the int 3', "the text 'scans'")
    """
    if value is None:
        return "None"
    if isinstance(value, str | int | float):
        kind = "text" if isinstance(value, str) else type(value).__name__
        return f"the {kind} {_short(repr(value))}"
    if isinstance(value, Path):
        return f"the path {_short(str(value))}"
    name = type(value).__name__
    article = "an" if name[0] in "aeiouAEIO" or name.startswith("nd") else "a"  # an ndarray
    return f"{article} {name}"


def _short(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= MAX_SHOWN_CHARS else f"{line[:MAX_SHOWN_CHARS]}..."
