"""How long work shows itself: a bar on a terminal, plain lines elsewhere, with rate and time left.

Elsewhere the first line comes at once, and then one at least every ten seconds, also while the
work itself has nothing new to tell.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from cvsct.cli.console import is_quiet
from cvsct.core.progress import Progress, silent

EVERY_S = 10.0


def progress() -> Progress:
    """A bar on a terminal, else a plain line now and then; nothing with `--quiet`."""
    if is_quiet():
        return silent
    if sys.stderr.isatty():
        return _bar()
    display = PlainProgress()
    _ENDS.append(display.close)
    return display


_ENDS: list[Callable[[], None]] = []


def stop_progress() -> None:
    """End what shows progress, also where the work has not come to its end."""
    while _ENDS:
        _ENDS.pop()()


class Rate:
    """How fast work goes on, from its beginning to now.

    Work that was done before the first report, by an earlier run, does not count.
    """

    def __init__(self, done: int, now_s: float) -> None:
        self._first, self._since_s = done, now_s

    def words(self, done: int, total: int, now_s: float) -> str:
        """`, 3.1/s, 45 s left`; empty as long as it cannot be told."""
        seconds, new = now_s - self._since_s, done - self._first
        if seconds < 1 or new <= 0:
            return ""
        per_s = new / seconds
        rate = f"{per_s:.3g}/s" if per_s >= 1 else f"{60 * per_s:.3g}/min"
        return f", {rate}" + (f", {duration((total - done) / per_s)} left" if done < total else "")


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class PlainProgress:
    """Lines on stderr that are no terminal's; a thread repeats the last where nothing is told."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._repeater: threading.Thread | None = None
        self._closed = threading.Event()
        self._rates: dict[str, Rate] = {}
        self._open: tuple[str, int, int] | None = None
        self._printed: tuple[str, float] = ("", -every_s)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take the state of the work; see `core.progress.Progress`."""
        now_s = time.monotonic()
        with self._lock:
            if self._repeater is None:
                self._repeater = threading.Thread(target=self._repeat, daemon=True)
                self._repeater.start()
            self._rates.setdefault(what, Rate(done, now_s))
            ended = done >= total
            self._open = None if ended else (what, done, total)
            last_what, last_s = self._printed
            if ended or what != last_what or now_s - last_s >= self._every_s:
                self._print(what, done, total, now_s)
            if ended:
                del self._rates[what]

    def close(self) -> None:
        """Print nothing more."""
        self._closed.set()

    def _repeat(self) -> None:
        while not self._closed.wait(self._every_s / 4):
            with self._lock:
                now_s = time.monotonic()
                if self._open and now_s - self._printed[1] >= self._every_s:
                    self._print(*self._open, now_s)

    def _print(self, what: str, done: int, total: int, now_s: float) -> None:
        self._printed = what, now_s
        rate = self._rates[what].words(done, total, now_s)
        print(f"{what} {done}/{total}{rate}", file=sys.stderr, flush=True)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    rates: dict[str, Rate] = {}
    tasks: dict[str, Any] = {}
    bar = Bar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    _ENDS.append(bar.stop)  # an error must not leave the terminal without its cursor

    def show(what: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        if done < total:
            bar.start()
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total, rate="")
            rates[what] = Rate(done, now_s)
        rate = rates[what].words(done, done, now_s).removeprefix(", ")
        bar.update(tasks[what], completed=done, total=total, rate=rate)
        if done >= total:
            bar.stop()

    return show
