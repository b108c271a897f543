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
from cvsct.io.dicom.one_scan import ACQUIRED, APART, CREATED, Episode

LEAST_PAUSE_S = {ACQUIRED: 1.0, CREATED: 30.0}
"""Between two acquisitions. Images of one are created in any order, within seconds."""
MANY_TIMES = 5.0
"""How much longer a pause is than the longest time between two images of one acquisition."""
MOST_INTERLEAVED = 4
_LEAST_RETURNS = {ACQUIRED: 1, CREATED: 2}
"""A single image may be created again later."""
_REPEATS = 2
"""Slices that share a time on average, where time is one of an acquisition and not of a slice."""


def refuse_interleaved(episodes: Sequence[Episode]) -> tuple[str, ...]:
    """Refuse slices, in order of position, whose acquisitions lie between each other.

    Returns:
        What is odd about their order and still one scan.

    Raises:
        SeriesError: naming the first slice that is out of turn, and what tells it.
    """
    notes = []
    for what in dict.fromkeys(mark for episode in episodes for mark in episode.marks):
        told = [episode for episode in episodes if episode.marks.get(what)]
        marks = [episode.marks[what] for episode in told]
        again = _returns(marks)
        if not again:
            continue
        if not _only_swapped(marks):
            _refuse(told, marks, again[0], what)
        notes.append(f"two neighboring slices are exchanged between acquisitions ({what})")
    for what in (ACQUIRED, CREATED):
        timed = [episode for episode in episodes if what in episode.times_s]
        times_s = [episode.times_s[what] for episode in timed]
        for found in _by_time(times_s, what):
            again = _returns(found)
            if len(again) >= _LEAST_RETURNS[what] and not _only_swapped(found):
                _refuse(timed, found, again[0], what)
    return tuple(notes)


def _refuse(told: Sequence[Episode], marks: Sequence[Hashable], i: int, what: str) -> Never:
    raise SeriesError(
        f"{told[i].name}: {len(set(marks))} acquisitions interleaved ({what} alternates along the "
        f"table, {len(_returns(marks))} times back to an earlier one); {APART}"
    )


def _returns(marks: Sequence[Hashable]) -> list[int]:
    """Where a mark comes again after another one came between."""
    seen: set[Hashable] = set()
    found = []
    for i, mark in enumerate(marks):
        if mark in seen and mark != marks[i - 1]:
            found.append(i)
        seen.add(mark)
    return found


def _only_swapped(marks: Sequence[Hashable]) -> bool:
    """Whether it takes one exchange of two neighbors, of many slices, to have each in turn."""
    if len(marks) < 3 * len(set(marks)):
        return False
    for i in _returns(marks):
        for k in (i - 1, i):
            tried = list(marks)
            tried[k - 1 : k + 1] = reversed(tried[k - 1 : k + 1])
            if not _returns(tried):
                return True
    return False


def _by_time(times_s: Sequence[float], what: str) -> Iterator[list[int]]:
    """Acquisitions as their times may tell them apart: a number for each slice."""
    if len(times_s) < 3:
        return
    if what == ACQUIRED:
        yield from _in_turn(times_s)
    ordered = np.sort(np.array(times_s))
    gaps_s = np.diff(ordered)
    starts = ordered[1:][gaps_s > LEAST_PAUSE_S[what]]
    if (len(starts) + 1) * _REPEATS <= len(times_s):
        yield _places(times_s, starts)
    usual_s = float(np.sort(gaps_s)[-MOST_INTERLEAVED]) if len(gaps_s) >= MOST_INTERLEAVED else 0.0
    pauses = ordered[1:][gaps_s > max(LEAST_PAUSE_S[what], MANY_TIMES * usual_s)]
    if 0 < len(pauses) < MOST_INTERLEAVED:
        yield _places(times_s, pauses)


def _places(times_s: Sequence[float], starts: Float[np.ndarray, " pauses"]) -> list[int]:
    """Which acquisition each time is of, where each but the first begins at one of `starts`."""
    return [int(place) for place in np.searchsorted(starts, times_s, side="right")]


def _in_turn(times_s: Sequence[float]) -> Iterator[list[int]]:
    """Every second, third or fourth slice as an acquisition of its own, one after the other."""
    for count in range(2, MOST_INTERLEAVED + 1):
        if len(times_s) < 2 * count:
            return
        parts = [times_s[first::count] for first in range(count)]
        along = all(list(part) in (sorted(part), sorted(part, reverse=True)) for part in parts)
        spans = sorted((min(part), max(part)) for part in parts)
        apart = all(one[1] < other[0] for one, other in itertools.pairwise(spans))
        if along and apart:
            yield [i % count for i in range(len(times_s))]
