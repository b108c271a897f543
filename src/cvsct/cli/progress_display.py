"""How long work shows itself: a bar on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import atexit
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar

from cvsct.core.progress import Progress


def progress() -> Progress:
    """A bar on a terminal, else a plain line now and then."""
    if not sys.stderr.isatty():
        return _plain_progress()
    bar = Bar(console=Console(stderr=True), transient=True)
    atexit.register(bar.stop)  # an error must not leave the terminal without its cursor
    tasks: dict[str, Any] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            bar.start()
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)
        if done >= total:
            bar.stop()

    return show


def _plain_progress(every_s: float = 10.0) -> Progress:
    last: dict[str, float] = {}

    def show(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - last.get(what, -every_s) >= every_s:
            last[what] = now
            print(f"{what} {done}/{total}", file=sys.stderr, flush=True)

    return show
