"""Table of text that renders to HTML (`report/table.html.j2`), Markdown and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_FIGURE = re.compile(r"(?:[\d.,;:%()±≤≥<> eE+–-]|to|HU|mm)*\Z")
"""Text that may follow the sign of a number: digits, an interval, a unit; no formula matches."""


LONGEST_NUMBER = 28
"""Most characters of a cell that is a number, with its interval and unit."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a header row.

    Args:
        key: name of its files, without suffix.
        caption: what the figures are, with the number of slices or regions behind them.
        head: names of the columns.
        marked: numbers of the rows to highlight, such as the paper's figures and the retest.
        footnotes: sentences to be read after the rows.

    Raises:
        ValueError: if a row is not as long as the head.
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
            raise ValueError(
                f"table {self.key}: a row has another number of cells than the head, "
                f"expected {len(self.head)}; give one cell for each column"
            )

    @property
    def text_columns(self) -> frozenset[int]:
        """Numbers of the columns that hold sentences and not numbers."""
        return frozenset(
            number
            for number in range(1, len(self.head))
            if any(len(row[number]) > LONGEST_NUMBER for row in self.rows)
        )

    def to_csv(self) -> str:
        """Head and rows as CSV, without title, caption and footnotes."""
        text = io.StringIO()
        rows = [[as_text(cell) for cell in row] for row in (self.head, *self.rows)]
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()

    def to_markdown(self) -> str:
        """The whole table as Markdown, with title, caption and footnotes."""
        lines = [_markdown_row(self.head), "|" + "---|" * len(self.head)]
        lines += [_markdown_row(row) for row in self.rows]
        footnotes = "".join(f"\n{footnote}\n" for footnote in self.footnotes)
        return f"### {self.title}\n\n{self.caption}\n\n" + "\n".join(lines) + "\n" + footnotes


def as_text(cell: str) -> str:
    """Quote a cell of a CSV file that a spreadsheet would run as a formula; numbers are kept."""
    first, rest = cell[:1], cell[1:]
    formula = first in ("=", "@", "\t", "\r") or (first in ("+", "-") and not _FIGURE.match(rest))
    return f"'{cell}" if formula else cell


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
