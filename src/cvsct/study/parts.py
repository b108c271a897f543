"""Preparation of a study in parts that run on several machines, in any order.

A part prepares its own series first, then those of parts that are not at work, so that no part has
to be started again: models need the prepared series of all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cvsct.core.errors import StoppedError
from cvsct.core.files import write_json
from cvsct.core.locks import LockedError, file_lock
from cvsct.core.platform import cores
from cvsct.core.progress import Note, Progress
from cvsct.inference.cohort.shards import Shard
from cvsct.study.jobs import Where, work_on_all
from cvsct.study.prepare import IMAGES, PreparedSeries, prepare_series, read_json

FAILURES = ".failed"
"""Folder beside the prepared groups: why series could not be prepared, for the other parts."""
TASK = "preparing"
WAITING_FOR_OTHERS = "waiting for other parts"
POLL_S = 2.0
"""Seconds between two looks at what other parts have prepared."""


def prepare_all(
    folder: Path, series: Sequence[PreparedSeries], where: Where, progress: Progress, note: Note
) -> dict[str, str]:
    """Prepare all series that are not yet.

    Args:
        folder: the study's.

    Returns:
        Reason of each series that could not be prepared, by its UID.

    Raises:
        CvsctError: if every series would fail, as on a full disk.
        StoppedError: on Ctrl-C; what is done is kept.
    """
    waiting = [each for each in series if not each.is_done]
    done = work_on_all(TASK, waiting, prepare_series, where, progress, len(series) - len(waiting))
    for remarks in done.results.values():
        for remark in remarks:
            note(remark)
    for each in waiting:
        record = _failure(folder, each)
        if each.key in done.failed:
            record.parent.mkdir(parents=True, exist_ok=True)
            write_json(record, {"stamp": each.stamp, "reason": done.failed[each.key]}, private=True)
        else:
            record.unlink(missing_ok=True)
    uids = {each.key: each.row.series_uid for each in waiting}
    return {uids[key]: reason for key, reason in done.failed.items()}


def prepare_part(
    folder: Path,
    series: Sequence[PreparedSeries],
    part: Shard,
    where: Where,
    progress: Progress,
    note: Note,
) -> tuple[dict[str, str], dict[str, str]]:
    """Prepare the series of a part, then those of parts that no other run is at work on.

    Returns:
        Reasons of this part's series, and of the others', that could not be prepared, by UID.

    Raises:
        CvsctError: if every series would fail, as on a full disk.
        StoppedError: on Ctrl-C; what is done is kept.
    """
    with file_lock(_lock(folder, part), wait=True):
        mine = [each for each in series if part.holds(each.key)]
        own_failed = prepare_all(folder, mine, where, progress, note)
    others = [Shard(i, part.count) for i in range(1, part.count + 1) if i != part.index]
    n_at_once = 2 * (where.workers or cores())
    while unsettled := [each for each in series if not _is_settled(folder, each)]:
        helped = False
        for other in others:
            theirs = [each for each in unsettled if other.holds(each.key)]
            if not theirs:
                continue
            with _free(_lock(folder, other)) as is_free:
                if is_free:  # a few only, so that the part itself can go on once it begins
                    prepare_all(folder, theirs[:n_at_once], where, progress, note)
                    helped = True
        if not helped:
            progress(WAITING_FOR_OTHERS, len(series) - len(unsettled), len(series))
            _wait()
    failures = {
        each.row.series_uid: str(read_json(_failure(folder, each)).get("reason", ""))
        for each in series
        if not each.is_done and not part.holds(each.key)
    }
    return own_failed, failures


def _is_settled(folder: Path, series: PreparedSeries) -> bool:
    """Whether a series is prepared, or known not to be preparable as its files are."""
    return series.is_done or read_json(_failure(folder, series)).get("stamp") == series.stamp


def _failure(folder: Path, series: PreparedSeries) -> Path:
    return folder / IMAGES / FAILURES / f"{series.key}.json"


def _lock(folder: Path, part: Shard) -> Path:
    """Lock of the run that prepares the series of a part."""
    return folder / f".preparing-{part.name}.lock"


@contextlib.contextmanager
def _free(lock: Path) -> Iterator[bool]:
    """Hold a lock if no other run does; whether it is held."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(lock))
        except LockedError:
            yield False
        else:
            yield True


def _wait() -> None:
    try:
        time.sleep(POLL_S)
    except KeyboardInterrupt:
        raise StoppedError(
            "stopped while waiting for other parts; the same command goes on"
        ) from None
