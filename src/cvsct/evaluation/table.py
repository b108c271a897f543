"""A table of text: one value for a page of HTML, Markdown and CSV.

`report/table.html.j2` is its HTML.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_FIGURE = re.compile(r"(?:[\d.,;:%()±≤≥<> eE+–-]|to|HU|mm)*\Z")
"""What follows the sign of a figure, its interval and its unit, and of no command."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a head.

    Args:
        key: names its files.
        caption: what the figures are, and over how many of what.
        marked: rows, by number, to be set off: the paper's own figures, the retest.
        footnotes: sentences to be read after the rows.
    """

    key: str
    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = field(default=frozenset())
    footnotes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError(f"table {self.key}: rows of other lengths than the head's")

    def to_csv(self) -> str:
        """Head and rows; title, caption and footnotes are left to the others."""
        text = io.StringIO()
        rows = [[as_text(cell) for cell in row] for row in (self.head, *self.rows)]
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()

    def to_markdown(self) -> str:
        """With title, caption and footnotes."""
        lines = [_bars(self.head), "|" + "---|" * len(self.head)]
        lines += [_bars(row) for row in self.rows]
        below = "".join(f"\n{footnote}\n" for footnote in self.footnotes)
        return f"### {self.title}\n\n{self.caption}\n\n" + "\n".join(lines) + "\n" + below


def as_text(cell: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula; figures stay as they are."""
    first, rest = cell[:1], cell[1:]
    formula = first in ("=", "@", "\t", "\r") or (first in ("+", "-") and not _FIGURE.match(rest))
    return f"'{cell}" if formula else cell


def _bars(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
