"""Text for a terminal: tables, and suggestions for mistyped names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from cvsct.core.errors import one_line

SHORTEST_PART = 3
"""Characters from which a part of a name is taken for the name."""


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a table of aligned columns; characters that cannot be printed become `?`."""
    shown = [[one_line(cell) or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in shown)
    return "\n".join(lines)


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun, in singular or plural.

    Args:
        one: the noun for 1.
        many: for any other number; `one` with an s if not given.

    Example:
        >>> counted(1, "row"), counted(2, "body", "bodies")
        ('1 row', '2 bodies')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def did_you_mean(wanted: str, choices: Iterable[str]) -> str:
    """A question with the choice nearest to a mistyped name; empty where none is near.

    Example:
        >>> did_you_mean("genrator.width", ["generator.width", "batch"])
        "did you mean 'generator.width'? "
    """
    by_folded = {choice.casefold(): choice for choice in choices}
    word = wanted.strip().casefold()
    near = difflib.get_close_matches(word, list(by_folded), n=1)
    if not near and len(word) >= SHORTEST_PART:
        near = [choice for choice in by_folded if word in choice]
    return f"did you mean {by_folded[near[0]]!r}? " if near else ""
