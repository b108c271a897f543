"""Check of each mapped slice: what changed beyond texture, and whether that exceeds a limit.

Harmonization may change texture, noise and the sharpness of edges. It must not move CT numbers or
edges, and must neither remove nor invent structure. `measure_change` compares one slice before
and after a mapping, without knowing how the target scanner would show it; `learn_slice_limits`
sets limits from good output of a model, and `judge_slice` tells which of them a slice exceeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import EvaluationError
from cvsct.core.volume import AIR_FLOOR_HU
from cvsct.guard.blobs import measure_blobs
from cvsct.guard.checkerboard import checkerboard_ratio
from cvsct.guard.clipping import remove_clipping_shift
from cvsct.guard.displacement import measure_displacements
from cvsct.guard.hu_drift import measure_hu_shifts
from cvsct.guard.pyramid import LEVELS, SMALLEST_PX, finest_level, pyramid_levels


@dataclass(frozen=True)
class SliceChange:
    """Figures of change of one slice by a mapping; 0 (1 of a ratio) means no change.

    Args:
        tissue_shift_hu: median shift of soft tissue, with its sign.
        lung_shift_hu: the same of lung.
        regional_shift_hu: the largest shift of a region against its tissue.
        shift_mm: how far the edges of the whole slice moved.
        local_shift_mm: how far edges moved in any one place.
        small_structure: how far the most conspicuous structure of about 4 mm that came or went
            stands out of the common differences of the slice; in their standard deviations.
        medium_structure: the same of about 8 mm.
        large_structure: the same of about 16 mm.
        mottle_hu: typical difference at 4 mm in homogeneous tissue.
        grid_ratio: checkerboard ratio: amplitude of the change at the frequencies of a pixel
            lattice, over those beside them.
    """

    tissue_shift_hu: float
    lung_shift_hu: float
    regional_shift_hu: float
    shift_mm: float
    local_shift_mm: float
    small_structure: float
    medium_structure: float
    large_structure: float
    mottle_hu: float
    grid_ratio: float


@dataclass(frozen=True)
class SliceLimits:
    """Largest magnitude of each figure of a `SliceChange` that is accepted."""

    tissue_shift_hu: float
    lung_shift_hu: float
    regional_shift_hu: float
    shift_mm: float
    local_shift_mm: float
    small_structure: float
    medium_structure: float
    large_structure: float
    mottle_hu: float
    grid_ratio: float

    def to_json(self) -> dict[str, float]:
        """Limits by name, rounded, for the guard section of a model."""
        return {name: round(value, 4) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> SliceLimits:
        """Limits from the record that `to_json` wrote.

        Raises:
            EvaluationError: if a limit is missing, unknown, or no positive number.
        """
        names = {field.name for field in fields(cls)}
        if set(record) != names:
            mismatched = ", ".join(sorted(names.symmetric_difference(record)))
            raise EvaluationError(
                f"limits of the slice guard lack or do not know {mismatched}; train the model again"
            )
        for name, value in record.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value > 0):
                raise EvaluationError(
                    f"the slice guard's limit {name} is {value!r}, expected a positive number; "
                    "train the model again"
                )
        return cls(**{name: float(record[name]) for name in names})

    @classmethod
    def highest(cls) -> SliceLimits:
        """The highest limits that are allowed, for models whose output could not be looked at."""
        return cls(**_HIGHEST_LIMIT)

    def within_highest(self) -> SliceLimits:
        """The limits, none above the highest that is allowed; models of 0.1.0 may have such."""
        return SliceLimits(
            **{name: min(value, _HIGHEST_LIMIT[name]) for name, value in asdict(self).items()}
        )


_MEANING = {
    "tissue_shift_hu": ("soft tissue shifted by {:.1f} HU", "CT numbers of tissue cannot be used"),
    "lung_shift_hu": ("lung shifted by {:.1f} HU", "CT numbers of lung cannot be used"),
    "regional_shift_hu": (
        "a region shifted by {:.1f} HU against its tissue",
        "an organ or a lesion may read another density",
    ),
    "shift_mm": ("edges of the whole slice moved by {:.2f} mm", "the slice is displaced"),
    "local_shift_mm": ("edges moved by {:.2f} mm in one place", "anatomy may be deformed there"),
    "small_structure": (
        "a structure of about 4 mm came or went, at {:.1f} standard deviations",
        "a small nodule or vessel may be missing or invented",
    ),
    "medium_structure": (
        "a structure of about 8 mm came or went, at {:.1f} standard deviations",
        "a nodule or vessel may be missing or invented",
    ),
    "large_structure": (
        "a structure of about 16 mm came or went, at {:.1f} standard deviations",
        "a lesion may be missing or invented",
    ),
    "mottle_hu": (
        "even tissue changed by {:.1f} HU at 4 mm",
        "what looks like noise may hide or mimic lesions",
    ),
    "grid_ratio": (
        "a grid artifact, {:.1f} times what surrounds its frequency",
        "the network left a pattern of its own; texture features cannot be used",
    ),
}

_LEAST_LIMIT = {
    "tissue_shift_hu": 1.0,
    "lung_shift_hu": 1.0,
    "regional_shift_hu": 3.0,
    "shift_mm": 0.05,
    "local_shift_mm": 0.1,
    "small_structure": 5.0,
    "medium_structure": 4.0,
    "large_structure": 3.0,
    "mottle_hu": 1.0,
    "grid_ratio": 2.5,
}
"""Smallest limit of each figure, used where calibration slices changed by less than this."""

_HIGHEST_LIMIT = {
    "tissue_shift_hu": 6.0,
    "lung_shift_hu": 8.0,
    "regional_shift_hu": 8.0,
    "shift_mm": 0.2,
    "local_shift_mm": 0.5,
    "small_structure": 15.0,
    "medium_structure": 8.0,
    "large_structure": 6.0,
    "mottle_hu": 5.0,
    "grid_ratio": 5.0,
}
"""Largest limit of each figure, whatever a model did to the scans it learned from. Shifts: scanners
differ in their CT numbers of tissue by some 6 HU, and a lesion of the liver is told by 15 to 20 HU
of contrast, of which an organ may lose half. Displacements: a third of a usual pixel, a pixel in
one place. The rest: twice what filters and networks do that were looked at and found good
(docs/reference/guards.md)."""

MARGIN, MARGIN_OF_ONE = 1.25, 4.0
"""A limit is `MARGIN + MARGIN_OF_ONE / n` times the highest value of n good slices: the fewer
slices, the wider the margin."""


def measure_change(
    before_hu: Float[np.ndarray, "rows columns"],
    after_hu: Float[np.ndarray, "rows columns"],
    pixel_mm: float,
) -> SliceChange:
    """Measure how a mapping changed one slice; a slice smaller than 5 cm reads as unchanged.

    Args:
        before_hu, after_hu: in HU; padding holds air or less in both.
        pixel_mm: side of a pixel.
    """
    before, after = (
        np.maximum(image, AIR_FLOOR_HU).astype(np.float32) for image in (before_hu, after_hu)
    )
    finest = finest_level(before, after, pixel_mm)
    if min(finest.before.shape) < 2 * SMALLEST_PX:
        return SliceChange(*[0.0] * len(fields(SliceChange)))
    levels = list(pyramid_levels(remove_clipping_shift(finest)))
    shifts = measure_hu_shifts(finest.halved(), levels[1])
    whole_mm, local_mm = measure_displacements(levels[0])
    contrasts = [measure_blobs(level) for level in levels]
    structures = [contrast.highest for contrast in contrasts] + [0.0] * LEVELS
    return SliceChange(
        tissue_shift_hu=shifts.tissue_hu,
        lung_shift_hu=shifts.lung_hu,
        regional_shift_hu=shifts.region_hu,
        shift_mm=whole_mm,
        local_shift_mm=local_mm,
        small_structure=structures[0],
        medium_structure=structures[1],
        large_structure=structures[2],
        mottle_hu=contrasts[0].mottle_hu,
        grid_ratio=checkerboard_ratio(after - before),
    )


def learn_slice_limits(changes: Sequence[SliceChange]) -> SliceLimits:
    """Learn limits from good output: its highest values times a margin, wider for few slices.

    No limit is above the highest that is allowed: output that is not good sets no limits. Slices of
    several bodies give better limits than as many slices of one body.

    Raises:
        EvaluationError: if there are no slices.
    """
    if not changes:
        raise EvaluationError("no slices to set limits of the slice guard from; give at least one")
    margin = MARGIN + MARGIN_OF_ONE / len(changes)
    limits = {
        name: max(least, margin * _largest(changes, name)) for name, least in _LEAST_LIMIT.items()
    }
    return SliceLimits(**limits).within_highest()


def excesses(changes: Sequence[SliceChange]) -> dict[str, float]:
    """Figures by which some slice changed more than the highest limit allows, with the largest."""
    largest = {name: _largest(changes, name) for name in _HIGHEST_LIMIT}
    return {
        name: round(value, 4)
        for name, value in largest.items()
        if not value <= _HIGHEST_LIMIT[name]  # NaN is no good value
    }


def describe_excess(name: str, value: float) -> str:
    """What a model does to slices that it learned from, with its meaning and the highest limit."""
    finding, meaning = _MEANING[name]
    return f"{finding.format(value)} (highest limit {_HIGHEST_LIMIT[name]:g}): {meaning}"


def _largest(changes: Sequence[SliceChange], name: str) -> float:
    return float(np.max(np.abs([getattr(change, name) for change in changes])))


def judge_slice(change: SliceChange, limits: SliceLimits) -> tuple[str, ...]:
    """Describe each figure beyond its limit, with both values and its meaning; empty if none is."""
    reasons = []
    for name, (finding, meaning) in _MEANING.items():
        value, limit = getattr(change, name), getattr(limits, name)
        if not abs(value) <= limit:  # NaN is no good value
            reasons.append(f"{finding.format(value)} (limit {limit:.2f}): {meaning}")
    return tuple(reasons)
