"""Two hundred SIGKILLs of `cvsct harmonize` over two hundred series: `-m tests.faults.kills`.

A run is killed at a random moment, whole, its parent or one of its workers, and started again.
After every kill, each series that has its name must be whole; at the end all must be there, with
the bytes of an undisturbed run and nothing beside them. Where all are done before all kills are,
it begins anew. Killed trainings: tests/training/test_resume.py.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cvsct import cli
from tests.faults.finding import Finding, script
from tests.faults.models import write_model
from tests.faults.workers import undisturbed
from tests.support.faulty_cohort import content, write_tree

GOAL = "SIGKILLs at random moments: no file truncated, no series lost, the bytes undisturbed"
SERIES = 200
SLICES = 2
VICTIMS = ("all", "parent", "worker")
LATEST_S = 0.0075
"""A kill comes at most so long after the first series of a run, times how many there are."""
_STARTS_S = 30.0
"""Longest wait for a run to begin with its work; a kill before that meets little."""
_GIVES_UP = 3
"""Times as many runs as kills."""


@dataclass
class Killing:
    """A command that is killed again and again."""

    words: list[str]
    log: Path
    rng: np.random.Generator
    began: Callable[[], bool]
    within_s: float
    kills: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def once(self) -> bool:
        """Run it and kill it some time; gives whether it came through."""
        process = _LOADED.Process(target=_command, args=(self.words, str(self.log)))
        process.start()
        if self.rng.random() < 0.75:  # the others are killed while they start
            limit = time.monotonic() + _STARTS_S
            while process.is_alive() and not self.began() and time.monotonic() < limit:
                time.sleep(0.002)
        process.join(self.rng.uniform(0, self.within_s))
        victim = str(self.rng.choice(VICTIMS))
        if process.is_alive() and process.pid:
            self._kill(process.pid, victim)
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            said = self.log.read_text()[-300:]
            self.failures.append(f"exit code {process.exitcode} after a kill: {said}")
        return process.exitcode == 0

    def _kill(self, pid: int, victim: str) -> None:
        workers = _children(pid)
        with contextlib.suppress(ProcessLookupError):
            if victim == "worker" and workers:
                os.kill(workers[-1], signal.SIGKILL)
            elif victim == "all":
                os.killpg(pid, signal.SIGKILL)
            else:
                victim = "parent"
                os.kill(pid, signal.SIGKILL)
            self.kills[victim] += 1


def _command(words: list[str], log: str) -> None:
    """The command, in a process that has loaded its libraries; what it says goes into a log."""
    with contextlib.suppress(PermissionError):  # it leads a group already
        os.setsid()
    with Path(log).open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    cli.main(words)


_LOADED = multiprocessing.get_context("forkserver")
_LOADED.set_forkserver_preload(["cvsct.cli", "cvsct.cli.harmonize_cohort", "cvsct.io.read"])


def killed_cohort(folder: Path, count: int, seed: int, series: int = SERIES) -> Finding:
    """So many kills over a cohort of small series."""
    model, tree = write_model(folder / "model"), write_tree(folder / "tree", series, SLICES)
    whole, source = undisturbed(model, tree, folder / "whole"), _state(tree)
    out, rng = folder / "out", np.random.default_rng(seed)
    words = _harmonize(tree, model, out)
    before = [0]

    def began() -> bool:
        done = len(_folders(out))
        return done > before[0]

    killing = Killing(words, folder / "log", rng, began, LATEST_S * series)
    rounds, runs = 0, 0
    while killing.kills.total() < count and runs < _GIVES_UP * count:
        runs += 1
        before[0] = len(_folders(out))
        through = killing.once()
        print(dict(killing.kills), killing.failures, file=sys.stderr, flush=True)
        killing.failures += _not_whole(out, whole)
        if through:
            rounds += 1
            killing.failures += _not_done(out, whole, series)
            shutil.rmtree(out)
    killing.failures += _through(words)
    killing.failures += _not_done(out, whole, series)
    if _state(tree) != source:
        killing.failures.append("the source has changed")
    figures = {"series": series, "runs": runs + 1, "finished": rounds + 1, **killing.kills}
    return Finding(GOAL, killing.kills.total(), tuple(killing.failures), figures)


def killed_series(folder: Path, count: int, seed: int) -> Finding:
    """So many kills of a run over a single series: OUT is whole or not there."""
    model, tree = write_model(folder / "model"), write_tree(folder / "tree", 1, 48)
    whole = undisturbed(model, tree, folder / "whole")
    place, out, rng = folder / "place", folder / "place" / "out", np.random.default_rng(seed)
    place.mkdir()
    began = lambda: any(place.glob(".out.partial-*"))  # noqa: E731
    killing = Killing(_harmonize(tree, model, out), folder / "log", rng, began, within_s=0.1)
    runs = 0
    while killing.kills.total() < count and runs < _GIVES_UP * count:
        runs += 1
        killing.once()
        if out.exists():
            killing.failures += _differing(content(out), whole)
            if not (out / "manifest.json").exists():
                killing.failures.append("OUT is there without a manifest")
            shutil.rmtree(out)
    killing.failures += _through(killing.words)
    killing.failures += _differing(content(out), whole)
    left = [path.name for path in place.iterdir() if path != out]
    if left:
        killing.failures.append(f"left behind: {left}")
    figures = {"runs": runs + 1, **killing.kills}
    goal = "SIGKILLs of a single series: OUT is whole or not there, nothing left"
    return Finding(goal, killing.kills.total(), tuple(killing.failures), figures)


def both(folder: Path, count: int, seed: int) -> Finding:
    """The cohort, and a fifth as many kills of a single series."""
    (folder / "one").mkdir()
    cohort = killed_cohort(folder, count, seed)
    one = killed_series(folder / "one", max(1, count // 5), seed)
    return Finding(
        GOAL,
        cohort.count,
        cohort.failures + one.failures,
        {**cohort.figures, "single_series": {"kills": one.count, **one.figures}},
    )


def _harmonize(tree: Path, model: Path, out: Path) -> list[str]:
    return ["harmonize", str(tree), "--model", str(model), "--out", str(out)]


def _through(words: list[str]) -> list[str]:
    """The command as a user starts it, undisturbed."""
    command = [sys.executable, "-m", "cvsct.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [f"the last run: code {done.returncode}: {done.stderr[-300:]}"] * bool(done.returncode)


def _folders(out: Path) -> list[Path]:
    return [path for path in out.glob("????????????????") if path.is_dir()]


def _state(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def _not_whole(out: Path, whole: dict[str, bytes]) -> list[str]:
    """Series that have their name and are not what they should be."""
    found = []
    for folder in _folders(out):
        wanted = {name for name in whole if name.startswith(folder.name)}
        held = {f"{folder.name}/{path.name}" for path in folder.iterdir()}
        if held != wanted or any((out / name).read_bytes() != whole[name] for name in held):
            found.append(f"{folder.name} is not whole: {len(held)} of {len(wanted)} files")
    return found


def _not_done(out: Path, whole: dict[str, bytes], series: int) -> list[str]:
    found = _differing(content(out), whole)
    left = [path.name for path in out.rglob("*") if path.name.startswith(".")]
    if left:
        found.append(f"left behind: {left}")
    with contextlib.closing(sqlite3.connect(out / "journal.sqlite")) as journal:
        rows = dict(journal.execute("SELECT status, COUNT(*) FROM series GROUP BY status"))
    if rows != {"done": series}:
        found.append(f"the journal says {rows}")
    if not (out / "manifest.json").exists():
        found.append("no manifest")
    return found


def _differing(held: dict[str, bytes], whole: dict[str, bytes]) -> list[str]:
    found = [f"{len(whole.keys() - held.keys())} files lost"] if whole.keys() - held.keys() else []
    found += [f"{name} was not expected" for name in held.keys() - whole.keys()]
    return found + [f"{name} differs" for name in held.keys() & whole.keys()
                    if held[name] != whole[name]]  # fmt: skip


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


if __name__ == "__main__":
    script(both, 200)
