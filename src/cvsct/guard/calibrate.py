"""What the guards of a model must know, learned once at the end of its training, for every method.

Each side's scans are looked at in several groups: some of its series, or blocks of the few there
are. A group left out tells how far another scan of the same kind may be. The finished model then
maps a few slices each way, which tells what it does where it does well.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cvsct.core.errors import CvsctError
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.sampling import spread
from cvsct.core.volume import CTVolume, ScanFacts
from cvsct.guard.descriptor import Descriptor, describe
from cvsct.guard.input_check import Side
from cvsct.guard.output_check import SliceChange, limits_of, measure_change
from cvsct.inference.streaming import harmonize_volume
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.series import Opened, open_headers
from cvsct.methods.base import RunOptions
from cvsct.methods.registry import find_method
from cvsct.methods.volume_mapping import VolumeMapping
from cvsct.model.bundle import DIRECTIONS, Bundle

MANY_SERIES, BLOCKS = 4, 4
"""With so many series groups are series, with fewer they are blocks: so many in all at least."""

MOST_SERIES = 8
MAX_DESCRIBED_SLICES = 16
"""Slices of a side, over all groups."""
MAX_MAPPED_SLICES = 12
"""Slices of a direction. A network takes about a second for each on two cores."""


@dataclass(frozen=True)
class Place:
    """A slice that can be read: of a series, or of one of its files."""

    series: SeriesFiles
    index: int

    def read(self) -> CTVolume:
        """The slice as a volume of its own."""
        return _opened(self.series).read(self.index, self.index + 1)


@dataclass(frozen=True)
class Sample:
    """Slices of one side.

    Args:
        groups: what is left out together.
        about: what they are, in words.
    """

    groups: tuple[tuple[Place, ...], ...]
    about: str

    @classmethod
    def of(cls, series: Sequence[SeriesFiles]) -> Sample:
        """Groups of slices spread over the series; no more headers are read than needed."""
        if len(series) >= MANY_SERIES:
            chosen = [series[i] for i in spread(len(series), MOST_SERIES)]
            groups = [_of_files(each, MAX_DESCRIBED_SLICES // len(chosen)) for each in chosen]
            return cls(tuple(groups), f"{len(chosen)} of {len(series)} series, each left out")
        parts = -(-BLOCKS // len(series))
        most = MAX_DESCRIBED_SLICES // (parts * len(series))
        groups = [block for each in series for block in _blocks(each, parts, most)]
        if len(groups) == 1:
            return cls(tuple(groups), "one slice, nothing left out")
        return cls(tuple(groups), f"{len(groups)} blocks of {len(series)} series, each left out")

    def descriptors(self) -> Iterator[Descriptor]:
        """Descriptor of each group."""
        for group in self.groups:
            yield describe(map(Place.read, group))

    @property
    def mapped(self) -> list[Place]:
        """Slices that the model is tried on."""
        every = [place for group in self.groups for place in group]
        return [every[i] for i in spread(len(every), MAX_MAPPED_SLICES)]


def calibrated(
    bundle: Bundle,
    source: tuple[Sequence[SeriesFiles], Sequence[ScanFacts]],
    target: tuple[Sequence[SeriesFiles], Sequence[ScanFacts]],
    progress: Progress = silent,
    note: Note = log_note,
) -> Bundle:
    """The model with all that its guards must know; as it is for a method that needs none.

    Args:
        source, target: the series it learned from, and what headers tell of each.
        note: told where a direction's slices could not be calibrated, and why.

    Raises:
        CvsctError: if a scan can no longer be read.
    """
    row = find_method(bundle.method)
    if not row.guarded:
        return bundle
    samples = {"source": Sample.of(source[0]), "target": Sample.of(target[0])}
    facts = {"source": source[1], "target": target[1]}
    directions = DIRECTIONS if row.reversible else DIRECTIONS[:1]
    steps = len(samples) + len(directions)
    progress("guard", 0, steps)
    sides = {}
    for done, (name, sample) in enumerate(samples.items(), 1):
        sides[name] = Side.learn(facts[name], list(sample.descriptors()), sample.about)
        progress("guard", done, steps)
    limits: dict[str, Any] = {name: asdict(side.limits) for name, side in sides.items()}
    about = {name: side.calibrated_on for name, side in sides.items()}
    for done, direction in enumerate(directions, len(samples) + 1):
        places = samples["source" if direction == "a2b" else "target"].mapped
        try:
            mapping = row.load(bundle, direction, RunOptions())
            found = list(_changes(places, mapping))
        except CvsctError as error:
            note(f"the guard of slices, {direction}, is not calibrated: {error}")
            found = []
        if found:
            limits[direction] = limits_of(found).to_json()
            about[direction] = f"{len(found)} slices of the scans it learned from"
        progress("guard", done, steps)
    _opened.cache_clear()
    guard = {
        "limits": limits,
        "calibrated_on": about,
        "known": {name: side.to_json() for name, side in sides.items()},
    }
    return replace(bundle, guard=json.loads(json.dumps(guard, allow_nan=False)))


@functools.lru_cache(maxsize=1)
def _opened(series: SeriesFiles) -> Opened:
    """The series in hand; those of one file hold it in memory once they are read."""
    return open_headers(series)  # training has read it all: its values are HU


def _changes(places: Sequence[Place], mapping: VolumeMapping) -> Iterator[SliceChange]:
    for place in places:
        before = place.read()
        after = harmonize_volume(before, mapping)
        yield measure_change(before.hu[0], after.hu[0], before.pixel_mm)


def _of_files(series: SeriesFiles, count: int) -> tuple[Place, ...]:
    """Slices of one series, its other files left unread where each slice is a file."""
    if series.frames:
        return tuple(Place(series, i) for i in spread(len(_opened(series)), count))
    files = [series.files[i] for i in spread(len(series.files), count)]
    return tuple(Place(replace(series, files=(each,)), 0) for each in files)


def _blocks(series: SeriesFiles, count: int, most: int) -> list[tuple[Place, ...]]:
    """At most so many slices of each stretch of a series; fewer stretches of fewer slices."""
    length = len(_opened(series))
    count = min(count, length)
    edges = [k * length // count for k in range(count + 1)]
    return [
        tuple(Place(series, first + i) for i in spread(last - first, most))
        for first, last in itertools.pairwise(edges)
    ]
