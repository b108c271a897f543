"""Acquisitions within a series: those that follow each other in z, and those that alternate.

A scan may be made in several acquisitions, one beyond the other along the table: step by step, or
in two blocks. Their slices are one stack. Slices of two acquisitions that lie between each other
are two scans, between which the patient has moved, breathed or taken up contrast agent.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import Never

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import SeriesError
from cvsct.io.dicom.one_scan import ACQUIRED, CREATED, SEPARATE_REMEDY, SliceAcquisition

MIN_PAUSE_S = {ACQUIRED: 1.0, CREATED: 30.0}
"""Shortest pause between two acquisitions; images of one are created within seconds."""
MIN_PAUSE_RATIO = 5.0
"""Least ratio of a pause to the longest time between two images of one acquisition."""
MAX_INTERLEAVED = 4
_MIN_RETURNS = {ACQUIRED: 1, CREATED: 2}
"""Returns to an earlier acquisition that prove alternation; one image may be created again."""
_MIN_SLICES_PER_TIME = 2
"""Mean number of slices that share a time, if the time is of an acquisition, not of a slice."""


def refuse_interleaved(slice_acquisitions: Sequence[SliceAcquisition]) -> tuple[str, ...]:
    """Refuse slices, in order of position, whose acquisitions alternate along the table.

    Returns:
        Notes on an unusual order that is still one scan.

    Raises:
        SeriesError: naming the first slice that is out of turn, and the attribute that shows it.
    """
    notes = []
    for attribute in dict.fromkeys(
        mark for acquisition in slice_acquisitions for mark in acquisition.marks
    ):
        marked = [
            acquisition for acquisition in slice_acquisitions if acquisition.marks.get(attribute)
        ]
        marks = [acquisition.marks[attribute] for acquisition in marked]
        returns_at = _returns(marks)
        if not returns_at:
            continue
        if not _only_swapped(marks):
            _refuse(marked, marks, returns_at[0], attribute)
        notes.append(f"two neighboring slices are exchanged between acquisitions ({attribute})")
    for attribute in (ACQUIRED, CREATED):
        timed = [
            acquisition for acquisition in slice_acquisitions if attribute in acquisition.times_s
        ]
        times_s = [acquisition.times_s[attribute] for acquisition in timed]
        for numbers in _by_time(times_s, attribute):
            returns_at = _returns(numbers)
            if len(returns_at) >= _MIN_RETURNS[attribute] and not _only_swapped(numbers):
                _refuse(timed, numbers, returns_at[0], attribute)
    return tuple(notes)


def _refuse(
    marked: Sequence[SliceAcquisition], marks: Sequence[Hashable], i: int, attribute: str
) -> Never:
    raise SeriesError(
        f"{marked[i].name}: {len(set(marks))} acquisitions interleaved ({attribute} alternates "
        f"along the table, {len(_returns(marks))} times back to an earlier one); {SEPARATE_REMEDY}"
    )


def _returns(marks: Sequence[Hashable]) -> list[int]:
    """Indices at which a mark returns after another one."""
    seen: set[Hashable] = set()
    returns = []
    for i, mark in enumerate(marks):
        if mark in seen and mark != marks[i - 1]:
            returns.append(i)
        seen.add(mark)
    return returns


def _only_swapped(marks: Sequence[Hashable]) -> bool:
    """Whether exchanging two neighbors, among many slices, puts all acquisitions in turn."""
    if len(marks) < 3 * len(set(marks)):
        return False
    for i in _returns(marks):
        for k in (i - 1, i):
            exchanged = list(marks)
            exchanged[k - 1 : k + 1] = reversed(exchanged[k - 1 : k + 1])
            if not _returns(exchanged):
                return True
    return False


def _by_time(times_s: Sequence[float], attribute: str) -> Iterator[list[int]]:
    """Possible divisions into acquisitions by time: for each, a number for every slice."""
    if len(times_s) < 3:
        return
    if attribute == ACQUIRED:
        yield from _in_turn(times_s)
    ordered = np.sort(np.array(times_s))
    gaps_s = np.diff(ordered)
    starts = ordered[1:][gaps_s > MIN_PAUSE_S[attribute]]
    if (len(starts) + 1) * _MIN_SLICES_PER_TIME <= len(times_s):
        yield _numbers_by_start(times_s, starts)
    usual_s = float(np.sort(gaps_s)[-MAX_INTERLEAVED]) if len(gaps_s) >= MAX_INTERLEAVED else 0.0
    pauses = ordered[1:][gaps_s > max(MIN_PAUSE_S[attribute], MIN_PAUSE_RATIO * usual_s)]
    if 0 < len(pauses) < MAX_INTERLEAVED:
        yield _numbers_by_start(times_s, pauses)


def _numbers_by_start(times_s: Sequence[float], starts: Float[np.ndarray, " pauses"]) -> list[int]:
    """Number of the acquisition of each time, where all but the first begin at `starts`."""
    return [int(number) for number in np.searchsorted(starts, times_s, side="right")]


def _in_turn(times_s: Sequence[float]) -> Iterator[list[int]]:
    """Every second, third or fourth slice as an acquisition of its own, one after the other."""
    for count in range(2, MAX_INTERLEAVED + 1):
        if len(times_s) < 2 * count:
            return
        parts = [times_s[first::count] for first in range(count)]
        along = all(list(part) in (sorted(part), sorted(part, reverse=True)) for part in parts)
        spans = sorted((min(part), max(part)) for part in parts)
        apart = all(span[1] < following[0] for span, following in itertools.pairwise(spans))
        if along and apart:
            yield [i % count for i in range(len(times_s))]
