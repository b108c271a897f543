"""Output folders that several runs fill: each holds its plan and is locked while a run writes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from cvsct.core.errors import UsageError
from cvsct.core.files import refuse_existing, write_json
from cvsct.core.locks import LockedError, file_lock

PLAN = "plan.json"
LOCK = ".plan.lock"
"""Lock file, which exists while a run writes to the folder, or after a run was killed."""


@contextlib.contextmanager
def locked_output(
    out: Path,
    plan: Mapping[str, Any],
    work: str,
    free: str = "",
    beforehand: Collection[str] = (),
    later: Collection[str] = (),
    part: str = "",
) -> Iterator[None]:
    """Lock an output folder for this run; the folder is new, or was started by the same plan.

    Args:
        out: the folder.
        plan: everything that must stay the same for a run to continue, as plain JSON.
        work: name of the work in messages, such as `simulation`.
        free: names of options that may change, in messages.
        beforehand: names that a folder without a plan may hold, if it holds nothing else.
        later: keys of the plan that a run may add, and that a later run may leave out.
        part: name of a part of the work; parts share the folder, may run at the same time, and
            must have the same plan. Empty for the whole.

    Raises:
        UsageError: if the folder holds something else or another plan, or another run writes to it.
    """
    path = out / part_of(PLAN, part)
    _refuse_other_parts(out, path, plan, work)
    if not path.exists():
        names = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
        other_locks = {name for name in names if part and name.startswith(".plan-")}
        if not is_started(out) and (not names or not names <= {*beforehand, *other_locks, LOCK}):
            refuse_existing(out)
        out.mkdir(parents=True, exist_ok=True)
    with _locked(out, work, part):
        if not path.exists():
            write_json(path, plan)
        before = json.loads(path.read_text(encoding="utf-8"))
        added = {key: plan[key] for key in later if key in plan and key not in before}
        left_out = {key: before[key] for key in later if key in before and key not in plan}
        differing = _differences({**before, **added}, {**plan, **left_out})
        if differing:
            raise UsageError(
                f"{out}: holds another {work} ({'; '.join(differing)}); name a new folder, or give "
                f"the same options to go on with this one{f' ({free})' if free else ''}"
            )
        if added:
            write_json(path, {**before, **added})
        yield


def part_of(name: str, part: str) -> str:
    """Name of a file of one part, such as `plan-1of4.json` for `plan.json`."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-{part}{dot}{suffix}" if part else name


def is_started(out: Path) -> bool:
    """Whether the folder holds a plan, of the whole work or of a part."""
    return any(out.glob(part_of(PLAN, "*"))) or (out / PLAN).exists()


def _refuse_other_parts(out: Path, own: Path, plan: Mapping[str, Any], work: str) -> None:
    """Refuse a folder in which another part has a different plan."""
    for other in sorted({*out.glob(part_of(PLAN, "*")), out / PLAN} - {own}):
        if other.exists():
            differing = _differences(json.loads(other.read_text(encoding="utf-8")), plan)
            if differing:
                raise UsageError(
                    f"{out}: another part of it is of another {work} ({'; '.join(differing)}); "
                    "name a new folder, or give all parts the same options"
                )


@contextlib.contextmanager
def _locked(out: Path, work: str, part: str) -> Iterator[None]:
    """A lock on the folder, or on a part of it, that ends with the process."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(out / part_of(LOCK, part)))
        except LockedError:
            raise UsageError(f"{out}: another {work} is at work in this folder") from None
        yield


def _differences(stored: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    """Differences between a stored plan and this run's, for a message."""
    differences = []
    for name in sorted(stored.keys() | plan.keys()):
        before, after = stored.get(name), plan.get(name)
        if before == after:
            continue
        long = isinstance(before, dict | list) or isinstance(after, dict | list)
        differences.append(f"other {name}" if long else f"{name} {before} there, {after} now")
    return differences
