"""Whether a series' values are CT numbers, as the values themselves say: air, fat or tissue.

Maps of iodine, effective atomic number or density that no header marks hold nothing below zero,
and their air is a plain zero. A CT scan holds air near -1000 HU or fat near -100; one inside the
body alone still holds uneven values of tissue. A few slices tell, in most series a single one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import SeriesError
from cvsct.core.masks import AIR_VOXELS, TISSUE_WITHOUT_FAT
from cvsct.core.volume import CTVolume
from cvsct.io.dicom.pixels import Encoding

MOST_LOOKED_AT = 24
"""Slices that must all be without air and fat before a series is refused."""
SHARE_OF_AIR = 0.002
EDGE = 0.95
"""Of half the image's width: from here on what fills the corners is no measured air."""
MOST_AT_LOWEST = 0.01
"""Share of the lowest value; more of it is an empty background, which tissue does not have."""


@runtime_checkable
class Readable(Protocol):
    """A series whose slices can be read."""

    @property
    def encodings(self) -> tuple[Encoding, ...]:
        """How each slice stores its values."""

    def __len__(self) -> int: ...

    def read(self, start: int = 0, stop: int | None = None) -> CTVolume:
        """Some of the slices."""


def refuse_no_hu(series: Readable, name: str, unspecified: bool = False) -> tuple[str, ...]:
    """Refuse a series whose values cannot be HU; gives what its user should know.

    Slices that can hold no air at all, having another rescale than the others, are looked at too.

    Args:
        name: what it is called in messages.
        unspecified: the header leaves the unit open, so that air near -1000 HU must be there.

    Raises:
        SeriesError: if the values are no HU, or those that are looked at cannot be read.
    """
    notes: set[str] = set()
    for group in _groups(series.encodings):
        notes.update(_look(series, group, name, unspecified))
    return tuple(sorted(notes))


def _look(series: Readable, group: Sequence[int], name: str, unspecified: bool) -> Iterator[str]:
    seen = []
    for i in group:
        values = _measured(series.read(i, i + 1))
        if not len(values):
            continue
        if _has_air(values) if unspecified else values.min() <= TISSUE_WITHOUT_FAT.low_hu:
            if unspecified:
                yield "Rescale Type US (unspecified), but air near -1000: values are taken as HU"
            return
        seen.append(values)
    if not seen:
        return  # padding alone: the guard and the methods find nothing to work on
    values = np.concatenate(seen)
    told = f"{name}: no HU: values from {values.min():g} to {values.max():g}"
    if unspecified:
        raise SeriesError(
            f"{told} with Rescale Type US (unspecified), expected air near -1000; "
            "this is a map or another kind of image, leave it out"
        )
    if not _inside_a_body(values, series.encodings[group[0]]):
        raise SeriesError(
            f"{told}, expected air near -1000 or fat near -100; "
            "this is a map or another kind of image, or its rescale is wrong: leave it out"
        )
    yield f"no air and no fat: values from {values.min():g} to {values.max():g}, taken as HU"


def _groups(encodings: Sequence[Encoding]) -> list[list[int]]:
    """Slices to look at, the middle one first: of those that can hold air, and of those not."""
    groups = []
    for able in (True, False):
        every = [i for i, each in enumerate(encodings) if _can_hold_air(each) is able]
        if every:
            count = min(len(every), MOST_LOOKED_AT)
            chosen = [every[(2 * k + 1) * len(every) // (2 * count)] for k in range(count)]
            groups.append(sorted(chosen, key=lambda i: abs(i - every[len(every) // 2])))
    return groups


def _can_hold_air(encoding: Encoding) -> bool:
    return (
        min(encoding.slope * end + encoding.intercept for end in encoding.limits)
        <= AIR_VOXELS.high_hu
    )


def _measured(part: CTVolume) -> Float[np.ndarray, " voxels"]:
    """A slice's values without padding, declared or filling the corners around a round image."""
    values = part.hu[0]
    measured = np.ones(values.shape, bool) if part.padding is None else ~part.padding[0]
    rows, columns = ((np.arange(n) - (n - 1) / 2) / (n / 2) for n in values.shape)
    from_middle = rows[:, None] ** 2 + columns**2
    corners = values[(from_middle > 1) & measured]
    if len(corners) and corners[0] <= AIR_VOXELS.high_hu and (corners == corners[0]).all():
        measured &= (from_middle < EDGE**2) | (values != corners[0])
    kept: Float[np.ndarray, " voxels"] = values[measured]
    return kept


def _has_air(values: Float[np.ndarray, " voxels"]) -> bool:
    inside = (values >= AIR_VOXELS.low_hu) & (values <= AIR_VOXELS.high_hu)
    return bool(inside.mean() >= SHARE_OF_AIR)


def _inside_a_body(values: Float[np.ndarray, " voxels"], encoding: Encoding) -> bool:
    """Whether values without any air or fat may still be tissue in HU."""
    tissue = TISSUE_WITHOUT_FAT.low_hu <= float(np.median(values)) <= TISSUE_WITHOUT_FAT.high_hu
    uneven = float((values == values.min()).mean()) <= MOST_AT_LOWEST
    return _can_hold_air(encoding) and tissue and uneven
