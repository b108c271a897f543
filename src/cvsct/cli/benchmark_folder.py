"""The folders of `cvsct benchmark`: the scans it takes, and its own output, claimed for one run."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cvsct.errors import UsageError

PLAN, MODELS = "plan.json", "models"
TRAIN, TEST, REPEAT = "train", "test", "repeat"


def scanners_of(data: Path) -> tuple[str, str]:
    """Names of the two scanners (or kernels) that are both trained on and tested.

    Raises:
        UsageError: if the folder is laid out otherwise.
    """
    held = {
        part: {each.name for each in (data / part).iterdir() if each.is_dir()}
        if (data / part).is_dir()
        else set()
        for part in (TRAIN, TEST)
    }
    both = sorted(name for name in held[TRAIN] & held[TEST] if not name.startswith("."))
    if len(both) != 2:
        shown = [f"{part}/: {', '.join(sorted(each)) or 'none'}" for part, each in held.items()]
        raise UsageError(
            f"{data}: expected the same two scanners under {TRAIN}/ and {TEST}/, found "
            f"{'; '.join(shown)}; lay the scans out as {TRAIN}/A, {TRAIN}/B, {TEST}/A, {TEST}/B, "
            f"and {REPEAT}/A, {REPEAT}/B where a target was scanned twice"
        )
    return both[0], both[1]


def fingerprint(data: Path) -> dict[str, Any]:
    """How many files and bytes each part holds: enough to notice other data."""
    found = {}
    for part in (TRAIN, TEST, REPEAT):
        files = [file for file in (data / part).rglob("*") if file.is_file()]
        found[part] = [len(files), sum(file.stat().st_size for file in files)]
    return found


@contextlib.contextmanager
def claimed(out: Path, plan: Mapping[str, Any]) -> Iterator[None]:
    """The folder made ours: new, or begun with the same plan and not at work elsewhere.

    One that holds nothing but `models/` is taken too: trained elsewhere, on a GPU perhaps.
    """
    from cvsct.runs import refuse_existing, write_json

    path = out / PLAN
    if not path.exists():
        if not (out.is_dir() and {each.name for each in out.iterdir()} == {MODELS}):
            refuse_existing(out)
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, plan)
    with path.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{out}: another benchmark is at work in this folder") from None
        before = json.load(stream)
        changed = [key for key in plan if before.get(key) != plan[key]]
        if changed:
            raise UsageError(
                f"{out}: was begun with other {', '.join(changed)}; give the same to go on "
                "(methods and seeds may be added), or name a new folder"
            )
        yield
