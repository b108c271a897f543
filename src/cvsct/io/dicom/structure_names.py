"""Names of structures and segments as a file gives them, and the choice among them by pattern."""

from __future__ import annotations

import fnmatch
from collections.abc import Container, Sequence

from cvsct.core.errors import SeriesError
from cvsct.core.text import did_you_mean

MAX_CHARACTERS = 64
MAX_SHOWN = 20
"""Names that a message lists before it counts the others."""


def title_of(wanted: str, number: object, taken: Container[str]) -> str:
    """A printable title of at most 64 characters, told from others of the name by its number."""
    title = "".join(char if char.isprintable() else "?" for char in wanted.strip())
    title = title[:MAX_CHARACTERS]
    return title if title and title not in taken else f"{title} {number}".strip()


def matches(title: str, pattern: str) -> bool:
    """Whether a name is the one asked for or fits a pattern with `*` and `?`; case is ignored."""
    title, pattern = title.casefold(), pattern.strip().casefold()
    return title == pattern or fnmatch.fnmatchcase(title, pattern)


def choose(titles: Sequence[str], patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Titles that patterns choose, in the order of the patterns, and patterns that choose none.

    Without patterns all are chosen.
    """
    if not patterns:
        return list(titles), []
    chosen: dict[str, None] = {}
    idle = []
    for pattern in patterns:
        exact = [title for title in titles if title == pattern]
        fitting = exact or [title for title in titles if matches(title, pattern)]
        chosen.update(dict.fromkeys(fitting))
        if not fitting:
            idle.append(pattern)
    return list(chosen), idle


def refuse_unmatched(name: str, patterns: Sequence[str], titles: Sequence[str]) -> None:
    """Refuse a name or pattern that chooses nothing, with what there is.

    Raises:
        SeriesError: if there is such a pattern.
    """
    if not patterns:
        return
    wanted = patterns[0]
    hint = did_you_mean(wanted, titles)
    raise SeriesError(f"{name}: no label {wanted!r}; {hint}choose from {listed(titles)}")


def listed(titles: Sequence[str]) -> str:
    """Names by commas; of very many only the first are told."""
    shown = ", ".join(titles[:MAX_SHOWN]) or "none"
    more = len(titles) - MAX_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
