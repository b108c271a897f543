"""What a goal came to, and the command line that all of them share."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """What was done, and where the goal was missed.

    Args:
        goal: in words, what must hold.
        count: how many kills, files, values were tried.
        failures: what went against the goal; none where it is reached.
        skipped: why nothing could be tried.
    """

    goal: str
    count: int
    failures: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""


Goal = Callable[[Path, int, int], Finding]
"""Tries a goal in an empty folder, so many times, with a seed."""


def scratch() -> Path | None:
    """Memory rather than a disk, where there is such a folder: thousands of files are flushed."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else None


def script(goal: Goal, count: int, arguments: Sequence[str] | None = None) -> None:
    """Try a goal from the command line: one line of JSON, exit code 1 if it is missed.

    Args:
        count: how many make the goal.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a file to which the line is appended")
    given = parser.parse_args(arguments)
    begun, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        found = goal(Path(folder), given.count, given.seed)
    about = asdict(found) | {
        "failures": found.failures[:SHOWN],
        "n_failures": len(found.failures),
        "seed": given.seed,
        "seconds": round(time.monotonic() - begun, 1),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
    }
    line = json.dumps(about)
    print(line)
    if given.out:
        with given.out.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
    sys.exit(1 if found.failures else 0)


def _commit() -> str:
    asked = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
