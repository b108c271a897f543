"""Text for a terminal, whatever characters a file's header held."""

from __future__ import annotations

from collections.abc import Sequence

from cvsct.core.errors import one_line


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells each as aligned text, whatever characters a file's header held."""
    shown = [[one_line(cell) or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in shown)
    return "\n".join(lines)
