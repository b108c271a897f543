"""A table of text that renders to CSV, Markdown and HTML alike."""

from __future__ import annotations

import csv
import html
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
        marked: rows, by number, to be set off: the paper's own figures, a ceiling.
    """

    key: str
    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = field(default=frozenset())

    def __post_init__(self) -> None:
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError(f"table {self.key}: rows of other lengths than the head's")

    def to_csv(self) -> str:
        """Head and rows; title and caption are left to the others."""
        text = io.StringIO()
        rows = [[as_text(cell) for cell in row] for row in (self.head, *self.rows)]
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()

    def to_markdown(self) -> str:
        """With title and caption."""
        lines = [_bars(self.head), "|" + "---|" * len(self.head)]
        lines += [_bars(row) for row in self.rows]
        return f"### {self.title}\n\n{self.caption}\n\n" + "\n".join(lines) + "\n"

    def to_html(self, level: int = 2) -> str:
        """A heading and a table with its caption; text is escaped.

        Args:
            level: of the heading; 0 for none.
        """
        title = f"<h{level}>{html.escape(self.title)}</h{level}>\n" if level else ""
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.head)
        body = "\n".join(
            f"<tr{' class=marked' if number in self.marked else ''}>"
            f'<th scope="row">{html.escape(row[0])}</th>'
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
            + "</tr>"
            for number, row in enumerate(self.rows)
        )
        return (
            f"{title}<table>\n"
            f"<caption>{html.escape(self.caption)}</caption>\n"
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
        )


def as_text(cell: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula; figures stay as they are."""
    first, rest = cell[:1], cell[1:]
    formula = first in ("=", "@", "\t", "\r") or (first in ("+", "-") and not _FIGURE.match(rest))
    return f"'{cell}" if formula else cell


def _bars(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
