"""The question before a download: asked on a terminal alone, or answered by `--yes` beforehand."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cvsct.cli.console import is_dry_run, is_json, is_quiet
from cvsct.core.errors import one_line

if TYPE_CHECKING:
    from cvsct.core.download import Confirm  # imports urllib, which `--help` needs not wait for

Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Download VGG weights where they are missing; do not ask."),
]


def confirm_download(yes: bool) -> Confirm | None:
    """What answers the question before a download; None where nobody can be asked.

    A dry run, which downloads nothing, asks nothing where the run itself would ask.

    Args:
        yes: whether `--yes` was given.
    """
    if yes or (is_dry_run() and _can_ask()):
        return lambda _: True
    return _ask if _can_ask() else None


def _can_ask() -> bool:
    """Whether somebody reads a question and can answer: not a script, nor ranks of torchrun."""
    if is_quiet() or is_json() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return False
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _ask(question: str) -> bool:
    """Ask on the terminal; anything but yes is no.

    Raises:
        typer.Abort: on Ctrl-C or the end of the input.
    """
    line = one_line(question)
    print(f"{line} [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        answer = sys.stdin.readline()  # not typer's question, which prints a space on stdout
    except KeyboardInterrupt:  # typer would end without the line that says so
        answer = ""
    if not answer:
        print(file=sys.stderr)
        raise typer.Abort
    consents = answer.strip().lower() in ("y", "yes")
    logging.getLogger("cvsct.cli").info("%s %s", line, "yes" if consents else "no")
    return consents
