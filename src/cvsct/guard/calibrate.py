"""Calibration of the guards of a model, once at the end of its training, for every method.

Each side's slices are measured in several groups: some of its series, or blocks of slices where it
has few. The distance of each group from all others sets the limits of scans. The finished model
then maps a few slices in each direction, whose changes set the limits of slices.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cvsct.core.errors import CvsctError
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.sampling import sample_of, spread
from cvsct.core.slice_hashes import LEARNED, SliceHashes
from cvsct.core.volume import CTVolume, ScanFacts
from cvsct.guard.descriptor import Descriptor, describe
from cvsct.guard.input_check import SideReference
from cvsct.guard.output_check import (
    SliceChange,
    SliceLimits,
    describe_excess,
    excesses,
    learn_slice_limits,
    measure_change,
)
from cvsct.inference.harmonize_volume import harmonize_volume
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.series import Opened, open_headers
from cvsct.methods.base import RunOptions
from cvsct.methods.registry import find_method
from cvsct.methods.volume_mapping import VolumeMapping
from cvsct.model.bundle import DIRECTIONS, Bundle

MANY_SERIES, BLOCKS = 4, 4
"""From `MANY_SERIES` series on each group is a series; with fewer, series are divided so that
there are at least `BLOCKS` groups."""

MOST_SERIES = 8
MAX_DESCRIBED_SLICES = 16
"""Most slices of a side that are measured, over all groups."""
MAX_MAPPED_SLICES = 12
"""Most slices that are mapped in a direction; a network takes about 1 s for each on two cores."""


@dataclass(frozen=True)
class SliceRef:
    """Reference to one slice of a series on disk, read when needed."""

    series: SeriesFiles
    index: int

    def read(self) -> CTVolume:
        """Read the slice as a volume of one slice."""
        return _open_series(self.series).read(self.index, self.index + 1)


@dataclass(frozen=True)
class SliceGroups:
    """Slices that represent one side, in groups.

    Args:
        groups: slices that are left out together when limits are set.
        description: what the groups are, for the model card.
    """

    groups: tuple[tuple[SliceRef, ...], ...]
    description: str

    @classmethod
    def spread_over(cls, series: Sequence[SeriesFiles]) -> SliceGroups:
        """Choose groups of slices spread over the series; only the headers needed are read."""
        if len(series) >= MANY_SERIES:
            chosen = [series[i] for i in spread(len(series), MOST_SERIES)]
            groups = [
                _spread_slices(files, MAX_DESCRIBED_SLICES // len(chosen)) for files in chosen
            ]
            return cls(tuple(groups), f"{len(chosen)} of {len(series)} series, each left out")
        parts = -(-BLOCKS // len(series))
        most = MAX_DESCRIBED_SLICES // (parts * len(series))
        groups = [block for files in series for block in _spread_blocks(files, parts, most)]
        if len(groups) == 1:
            return cls(tuple(groups), "one slice, nothing left out")
        return cls(tuple(groups), f"{len(groups)} blocks of {len(series)} series, each left out")

    def descriptors(self) -> Iterator[Descriptor]:
        """Descriptor of each group."""
        for group in self.groups:
            yield describe(map(SliceRef.read, group))

    @property
    def slices_to_map(self) -> list[SliceRef]:
        """Slices that the finished model maps, spread over all groups."""
        slices = [slice_ref for group in self.groups for slice_ref in group]
        return [slices[i] for i in spread(len(slices), MAX_MAPPED_SLICES)]


@dataclass(frozen=True)
class ImagedSide:
    """Side of a model whose images are at hand.

    Args:
        series: the series it learned from.
        facts: header facts of each.
    """

    series: Sequence[SeriesFiles]
    facts: Sequence[ScanFacts]


GuardedSide = ImagedSide | SideReference
"""Side of a model: its images, or what a profile knows of them."""


def calibrate_guard(
    bundle: Bundle,
    source: GuardedSide,
    target: GuardedSide,
    progress: Progress = silent,
    note: Note = log_note,
) -> Bundle:
    """Calibrate the guards of a finished model; a method that needs none is left unchanged.

    A model that changes the slices it learned from by more than any limit may allow is no reason
    for wider limits: a note says so, and its card. Where a side is known by its profile alone, no
    slice can be mapped from it, and the highest limits of slices are taken.

    Args:
        bundle: the trained model.
        source, target: the series it learned from, or their profile.
        progress: called after each step as (name, done, total).
        note: called with a message where a direction could not be calibrated, or where the model's
            own output exceeds the highest limits.

    Returns:
        The model with its guard section.

    Raises:
        CvsctError: if a scan can no longer be read.
    """
    row = find_method(bundle.method)
    if not row.guarded:
        return bundle
    given = {"source": source, "target": target}
    groups = {
        name: SliceGroups.spread_over(side.series)
        for name, side in given.items()
        if isinstance(side, ImagedSide)
    }
    directions = DIRECTIONS if row.reversible else DIRECTIONS[:1]
    steps = len(given) + len(directions)
    progress("guard", 0, steps)
    sides = {}
    for done, (name, side) in enumerate(given.items(), 1):
        sides[name] = (
            SideReference.learn(
                side.facts, list(groups[name].descriptors()), groups[name].description
            )
            if isinstance(side, ImagedSide)
            else side
        )
        progress("guard", done, steps)
    limits: dict[str, Any] = {name: asdict(side.limits) for name, side in sides.items()}
    calibrated_on = {name: side.calibrated_on for name, side in sides.items()}
    beyond: dict[str, list[str]] = {}
    for done, direction in enumerate(directions, len(given) + 1):
        mapped = "source" if direction == "a2b" else "target"
        if mapped not in groups:
            limits[direction] = SliceLimits.highest().to_json()
            calibrated_on[direction] = "no image: the highest limits that are allowed"
            progress("guard", done, steps)
            continue
        try:
            mapping = row.load(bundle, direction, RunOptions())
            changes = list(_measure_changes(groups[mapped].slices_to_map, mapping))
        except CvsctError as error:
            note(f"the guard of slices, {direction}, is not calibrated: {error}")
            changes = []
        if changes:
            limits[direction] = learn_slice_limits(changes).to_json()
            calibrated_on[direction] = f"{len(changes)} slices of the scans it learned from"
            reasons = [describe_excess(*item) for item in excesses(changes).items()]
            if reasons:
                beyond[direction] = reasons
                note(f"this model changes even scans it learned from too much, {direction}: "
                     + "; ".join(reasons))  # fmt: skip
        progress("guard", done, steps)
    _open_series.cache_clear()
    images = [side.series for side in given.values() if isinstance(side, ImagedSide)]
    complete = len(images) == len(given)  # of a profile no scan is known
    learned_series = [series for side_series in images for series in side_series]
    guard = {
        "limits": limits,
        "calibrated_on": calibrated_on,
        "known": {name: side.to_json() for name, side in sides.items()},
        **({LEARNED: _hashes(learned_series, complete).to_json()} if images else {}),
        **({"beyond_highest": beyond} if beyond else {}),
    }
    return replace(bundle, guard=json.loads(json.dumps(guard, allow_nan=False)))


def _hashes(all_series: Sequence[SeriesFiles], complete: bool) -> SliceHashes:
    """Hashes of the slices that `core.sampling` takes of every training series.

    The key follows from the series, so that the same training writes the same model.
    """
    uids = ",".join(sorted(series.series_uid for series in all_series))
    key = hashlib.sha256(uids.encode()).hexdigest()[:32]
    return SliceHashes.of(
        key,
        (
            opened.read(i, i + 1).hu[0]
            for opened in map(open_headers, all_series)
            for i in sample_of(len(opened))
        ),
        complete,
    )


@functools.lru_cache(maxsize=1)
def _open_series(series: SeriesFiles) -> Opened:
    """Open a series; the last one stays open, as a series of one file is held in memory."""
    return open_headers(series)  # training has read it all: its values are HU


def _measure_changes(slices: Sequence[SliceRef], mapping: VolumeMapping) -> Iterator[SliceChange]:
    for slice_ref in slices:
        before = slice_ref.read()
        after = harmonize_volume(before, mapping)
        yield measure_change(before.hu[0], after.hu[0], before.pixel_mm)


def _spread_slices(series: SeriesFiles, count: int) -> tuple[SliceRef, ...]:
    """Slices spread over one series; where each slice is a file, no other file is read."""
    if series.frames:
        return tuple(SliceRef(series, i) for i in spread(len(_open_series(series)), count))
    files = [series.files[i] for i in spread(len(series.files), count)]
    return tuple(SliceRef(replace(series, files=(file,)), 0) for file in files)


def _spread_blocks(series: SeriesFiles, count: int, most: int) -> list[tuple[SliceRef, ...]]:
    """At most `most` slices of each of `count` blocks of a series, or of fewer if it is short."""
    length = len(_open_series(series))
    count = min(count, length)
    edges = [k * length // count for k in range(count + 1)]
    return [
        tuple(SliceRef(series, first + i) for i in spread(last - first, most))
        for first, last in itertools.pairwise(edges)
    ]
