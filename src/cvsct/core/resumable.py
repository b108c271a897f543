"""Output folders that grow over many runs: each holds its plan and lets one run work at a time."""

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
"""There while a run is at work in the folder, or after it was killed."""


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
    """An output folder that only this run writes: new, or started by the same plan.

    Args:
        plan: everything that must be the same for a run to go on, as plain JSON.
        work: what is done there, in messages: `simulation`.
        free: what may change all the same, in messages.
        beforehand: names that a folder without a plan may hold if it holds nothing else.
        later: keys that a plan may be without until a run brings them, and that a later run may
            leave out again.
        part: name of one of several parts that share the folder, each with a run of its own at
            work in it; their plans must agree.

    Raises:
        UsageError: if the folder holds something else or another plan, or another run is at work.
    """
    path = out / part_of(PLAN, part)
    _refuse_other_parts(out, path, plan, work)
    if not path.exists():
        there = {each.name for each in out.iterdir()} if out.is_dir() else set()
        at_it = {name for name in there if part and name.startswith(".plan-")}  # another part's run
        if not is_started(out) and (not there or not there <= {*beforehand, *at_it, LOCK}):
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
    """The name of a part's own file: `plan-1of4.json` of `plan.json`."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-{part}{dot}{suffix}" if part else name


def is_started(out: Path) -> bool:
    """Whether the folder holds a plan, of the whole or of a part."""
    return any(out.glob(part_of(PLAN, "*"))) or (out / PLAN).exists()


def _refuse_other_parts(out: Path, own: Path, plan: Mapping[str, Any], work: str) -> None:
    """Refuse to mix what other parts have begun with another plan."""
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


def _differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    for name in sorted(there.keys() | now.keys()):
        before, after = there.get(name), now.get(name)
        if before == after:
            continue
        long = isinstance(before, dict | list) or isinstance(after, dict | list)
        found.append(f"other {name}" if long else f"{name} {before} there, {after} now")
    return found
