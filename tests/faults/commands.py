"""Commands run in this process, as a user would type them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from cvsct import cli


def call(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def files_under(folder: Path) -> dict[Path, bytes]:
    """Every file, with its content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
