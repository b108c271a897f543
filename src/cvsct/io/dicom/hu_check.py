"""Check that the values of a series are CT numbers: that they hold air, fat or tissue.

Maps of iodine, effective atomic number or density that no header marks hold nothing below zero,
and their air is a plain zero. A CT scan holds air near -1000 HU or fat near -100; one inside the
body alone still holds uneven values of tissue. A few slices suffice, in most series a single one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import SeriesError
from cvsct.core.masks import AIR_VOXELS, TISSUE_WITHOUT_FAT
from cvsct.core.sampling import spread
from cvsct.core.volume import CTVolume
from cvsct.io.dicom.pixels import Encoding

MAX_SLICES_CHECKED = 24
"""A series is refused if so many slices, spread over it, hold neither air nor fat."""
MIN_AIR_SHARE = 0.002
EDGE_RADIUS = 0.95
"""Radius, as a share of half the image's width, beyond which the fill of corners is not air."""
MAX_SHARE_AT_LOWEST = 0.01
"""Largest share of voxels with the lowest value in tissue; more is an empty background."""


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
    """Refuse a series whose values cannot be HU; returns notes for its user.

    Slices whose rescale can hold no air, unlike the others', are checked too.

    Args:
        name: of the series, in messages.
        unspecified: the header leaves the unit open, so that air near -1000 HU must be there.

    Raises:
        SeriesError: if the values are not HU, or those that are checked cannot be read.
    """
    notes: set[str] = set()
    for group in _groups(series.encodings):
        notes.update(_value_notes(series, group, name, unspecified))
    return tuple(sorted(notes))


def _value_notes(
    series: Readable, group: Sequence[int], name: str, unspecified: bool
) -> Iterator[str]:
    without_air = []
    for i in group:
        values = _measured(series.read(i, i + 1))
        if not len(values):
            continue
        if _has_air(values) if unspecified else values.min() <= TISSUE_WITHOUT_FAT.low_hu:
            if unspecified:
                yield "Rescale Type US (unspecified), but air near -1000: values are taken as HU"
            return
        without_air.append(values)
    if not without_air:
        return  # padding alone: the guard and the methods find nothing to work on
    values = np.concatenate(without_air)
    finding = f"{name}: no HU: values from {values.min():g} to {values.max():g}"
    if unspecified:
        raise SeriesError(
            f"{finding} with Rescale Type US (unspecified), expected air near -1000; "
            "this is a map or another kind of image, leave it out"
        )
    if not _inside_a_body(values, series.encodings[group[0]]):
        raise SeriesError(
            f"{finding}, expected air near -1000 or fat near -100; "
            "this is a map or another kind of image, or its rescale is wrong: leave it out"
        )
    yield f"no air and no fat: values from {values.min():g} to {values.max():g}, taken as HU"


def _groups(encodings: Sequence[Encoding]) -> list[list[int]]:
    """Slices to check, the middle one first: those that can hold air, then those that cannot."""
    groups = []
    for able in (True, False):
        indices = [i for i, encoding in enumerate(encodings) if _can_hold_air(encoding) is able]
        if indices:
            chosen = [indices[i] for i in spread(len(indices), MAX_SLICES_CHECKED)]
            groups.append(sorted(chosen, key=lambda i: abs(i - indices[len(indices) // 2])))
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
        measured &= (from_middle < EDGE_RADIUS**2) | (values != corners[0])
    kept: Float[np.ndarray, " voxels"] = values[measured]
    return kept


def _has_air(values: Float[np.ndarray, " voxels"]) -> bool:
    inside = (values >= AIR_VOXELS.low_hu) & (values <= AIR_VOXELS.high_hu)
    return bool(inside.mean() >= MIN_AIR_SHARE)


def _inside_a_body(values: Float[np.ndarray, " voxels"], encoding: Encoding) -> bool:
    """Whether values without any air or fat may still be tissue in HU."""
    tissue = TISSUE_WITHOUT_FAT.low_hu <= float(np.median(values)) <= TISSUE_WITHOUT_FAT.high_hu
    uneven = float((values == values.min()).mean()) <= MAX_SHARE_AT_LOWEST
    return _can_hold_air(encoding) and tissue and uneven
