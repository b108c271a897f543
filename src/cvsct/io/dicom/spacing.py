"""Check that slices are evenly spaced, with the cause if they are not.

Slices are missing, or the scan was planned with two spacings: both are told apart, because what
helps is not the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import GeometryError
from cvsct.io.dicom.one_scan import SEPARATE_REMEDY

SPACING_TOLERANCE_MM = 0.1
SPACING_TOLERANCE = 0.01
SAME_POSITION_MM = 0.01
LEAST_RUN = 3
"""Number of equal distances that count as a spacing of its own; at an end of the series, two."""


def refuse_uneven(names: Sequence[str], along_mm: Float[np.ndarray, " slices"]) -> None:
    """Refuse two slices or more that are not evenly apart.

    Args:
        names: of the slices, in messages.
        along_mm: their positions along the normal, which increase.

    Raises:
        GeometryError: with the distances, the place, and what to do.
    """
    steps_mm = np.diff(along_mm)
    expected_mm = float(np.sort(steps_mm)[(len(steps_mm) - 1) // 2])
    uneven = np.abs(steps_mm - expected_mm) > tolerance_mm(expected_mm)
    if not uneven.any():
        return
    change = _change(steps_mm)
    if change:
        i, from_mm, to_mm = change
        raise GeometryError(
            f"{names[i]}: slice distance changes from {from_mm:g} to {to_mm:g} mm after slice "
            f"{i + 1} of {len(names)} (this file, by position), expected one distance; each part "
            f"can be read alone: {SEPARATE_REMEDY}"
        )
    i = int(np.argmax(uneven))
    told = (
        f"of {steps_mm[i]:.1f} mm after instance {i + 1} of {len(names)} (this file, by position)"
    )
    missing = _missing(steps_mm, expected_mm)
    if missing:
        one = missing == 1
        raise GeometryError(
            f"{names[i]}: gap {told}, expected {expected_mm:.1f} mm: {missing} "
            f"{'slice appears' if one else 'slices appear'} to be missing in all; copy or export "
            "the series again with all its slices"
        )
    raise GeometryError(
        f"{names[i]}: gap {told}, expected {expected_mm:.1f} mm as between most slices (all from "
        f"{steps_mm.min():.1f} to {steps_mm.max():.1f}); put slices that are evenly apart into "
        "a folder that is an INPUT of its own, or reconstruct the scan with even spacing"
    )


def tolerance_mm(expected_mm: float) -> float:
    """Largest difference of a distance from the expected one."""
    return max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE * expected_mm)


def _change(steps_mm: Float[np.ndarray, " steps"]) -> tuple[int, float, float] | None:
    """A change of spacing: the slice before it, and both spacings; None if there is none."""
    starts = [0]
    for i in range(1, len(steps_mm)):
        before = float(steps_mm[starts[-1]])
        if abs(steps_mm[i] - before) > tolerance_mm(before):
            starts.append(i)
    lengths = np.diff([*starts, len(steps_mm)])
    inner = lengths[1:-1]
    if len(starts) < 2 or (inner < LEAST_RUN).any() or min(lengths[0], lengths[-1]) < LEAST_RUN - 1:
        return None
    first, second = (round(float(np.median(steps_mm[a:b])), 2) for a, b in (
        (0, starts[1]), (starts[1], starts[1] + int(lengths[1]))))  # fmt: skip
    return starts[1], first, second


def _missing(steps_mm: Float[np.ndarray, " steps"], expected_mm: float) -> int:
    """Number of missing slices, if each distance is a multiple of the usual one; else 0."""
    times = np.rint(steps_mm / expected_mm)
    off_mm = np.abs(steps_mm - times * expected_mm)
    whole = times >= 1
    fits = off_mm <= times * tolerance_mm(expected_mm)
    return int((times - 1).sum()) if bool((whole & fits).all()) else 0
