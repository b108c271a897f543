"""Folders of `cvsct benchmark`: the scans it takes, models, its output claimed for one run."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from cvsct.errors import UsageError

PLAN, MODELS = "plan.json", "models"
MINUTES = "minutes_a_direction"
"""In the plan."""
TRAIN, TEST, REPEAT, PAIRED = "train", "test", "repeat", "paired"


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


def training_part(data: Path, names: Sequence[str], kind: str) -> str:
    """The part that methods of a kind learn from: paired ones from PAIRED where it is there.

    Raises:
        UsageError: if it is there, but not for both scanners.
    """
    if kind != "paired" or not (data / PAIRED).is_dir():
        return TRAIN
    missing = [name for name in names if not (data / PAIRED / name).is_dir()]
    if missing:
        raise UsageError(
            f"{data / PAIRED}: holds no {' and no '.join(missing)}; lay the paired scans out as "
            f"{PAIRED}/{names[0]} and {PAIRED}/{names[1]}, or take the folder away to learn from "
            f"{TRAIN}/"
        )
    return PAIRED


def fingerprint(data: Path, parts: Sequence[str]) -> dict[str, Any]:
    """How many files and bytes each part holds: enough to notice other data."""
    found = {}
    for part in parts:
        files = [file for file in (data / part).rglob("*") if file.is_file()]
        found[part] = [len(files), sum(file.stat().st_size for file in files)]
    return found


def manifest_of(folder: Path) -> dict[str, Any]:
    """What a command wrote of itself."""
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def fit_s(model: Path) -> float:
    """Seconds a training took; one that was interrupted counts its own minutes."""
    about = manifest_of(model)
    return float(max(about["timings_s"]["training"], 60 * about["figures"].get("minutes", 0)))


def model_mb(model: Path) -> float:
    """Size of what SHA256SUMS lists: checkpoints and logs are no part of a model."""
    from cvsct.models.bundle import SUMS_FILE

    names = [line.partition("  ")[2] for line in (model / SUMS_FILE).read_text().splitlines()]
    return sum((model / name).stat().st_size for name in names) / 1e6


@contextlib.contextmanager
def claimed(out: Path, plan: Mapping[str, Any]) -> Iterator[None]:
    """The folder made ours: new, or begun with the same plan and not at work elsewhere.

    One that holds nothing but `models/` is taken too: trained elsewhere, on a GPU perhaps. Paired
    scans may come later, with the first method that learns from them.
    """
    from cvsct.runs import refuse_existing, write_json

    path = out / PLAN
    if not path.exists():
        if not (out.is_dir() and {each.name for each in out.iterdir()} == {MODELS}):
            refuse_existing(out)
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, plan)
    with contextlib.ExitStack() as stack:
        before = _begun(_locked(stack.enter_context(path.open()), out))
        added = {key: plan[key] for key in (PAIRED,) if key in plan and key not in before}
        changed = [key for key in plan if key not in added and before.get(key) != plan[key]]
        if changed:
            raise UsageError(
                f"{out}: was begun with other {', '.join(changed)}; give the same to go on "
                "(methods and seeds may be added), or name a new folder"
            )
        if added:
            write_json(path, {**before, **added})
            _locked(stack.enter_context(path.open()), out)  # the lock was the old file's
        yield


def _begun(plan: IO[str]) -> dict[str, Any]:
    """The plan as it would be written now: minutes were a training's while all served both ways."""
    before: dict[str, Any] = json.load(plan)
    if "max_minutes" in before:
        minutes = before.pop("max_minutes")
        before[MINUTES] = minutes and minutes / 2
    return before


def _locked(stream: IO[str], out: Path) -> IO[str]:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{out}: another benchmark is at work in this folder") from None
    return stream
