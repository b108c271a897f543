"""Which slices of two sets of series show the same place in the same body.

Geometry decides, never file order: position along the normal, then the pixel grid in plane. A
derived series keeps its source's geometry, so harmonised series pair with a target as it would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cvsct.errors import EvaluationError
from cvsct.volume import CTVolume

Z_TOLERANCE_MM = 0.1
"""Far above the rounding of DICOM's decimal positions, far below any slice spacing: half a
spacing would pair slices of different anatomy."""

IN_PLANE_TOLERANCE_PX = 0.5
THICKNESS_TOLERANCE_MM = 0.01
SPACING_TOLERANCE = 1e-3
DIRECTION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class VolumePair:
    """Two volumes of one body, by their places in the lists given, and the slices they share."""

    first: int
    second: int
    slices: tuple[tuple[int, int], ...]


def pair_slices(
    a: CTVolume, b: CTVolume, z_tolerance_mm: float = Z_TOLERANCE_MM
) -> list[tuple[int, int]]:
    """Slices of `a` and `b` at one position, in order of z; file order plays no part.

    Two slices pair when they are each other's nearest along the normal and at most
    `z_tolerance_mm` apart. Volumes in different frames of reference have no slice in common.

    Raises:
        EvaluationError: if slices meet in z but their grids differ (matrix, pixel spacing,
            orientation, or an in-plane shift of more than half a pixel).
    """
    frames = a.geometry.frame_of_reference, b.geometry.frame_of_reference
    if all(frames) and frames[0] != frames[1]:
        return []
    distance_mm = np.abs(a.geometry.z_mm[:, None] - b.geometry.z_mm[None, :])
    if distance_mm.size == 0:
        return []
    to_b, to_a = distance_mm.argmin(axis=1), distance_mm.argmin(axis=0)
    pairs = [
        (i, int(j))
        for i, j in enumerate(to_b)
        if to_a[j] == i and distance_mm[i, j] <= z_tolerance_mm
    ]
    if pairs:
        _same_grid(a, b, pairs)
    return sorted(pairs, key=lambda pair: float(a.geometry.z_mm[pair[0]]))


def _same_grid(a: CTVolume, b: CTVolume, pairs: list[tuple[int, int]]) -> None:
    """Refuse volumes whose pixels do not lie on one another."""
    remedy = "reconstruct both on one grid"
    if a.hu.shape[1:] != b.hu.shape[1:]:
        size = ["x".join(map(str, volume.hu.shape[1:])) for volume in (a, b)]
        raise EvaluationError(f"slices of {size[0]} pixels against {size[1]}; {remedy}")
    spacing = np.array([a.geometry.pixel_mm, b.geometry.pixel_mm])
    if not np.allclose(spacing[0], spacing[1], rtol=SPACING_TOLERANCE, atol=0):
        text = [" x ".join(f"{mm:.4f}" for mm in row) for row in spacing]
        raise EvaluationError(f"pixel spacing of {text[0]} mm against {text[1]} mm; {remedy}")
    axes = np.array([a.geometry.row_direction, a.geometry.column_direction])
    other = np.array([b.geometry.row_direction, b.geometry.column_direction])
    turned = float(np.abs(axes - other).max())
    if turned > DIRECTION_TOLERANCE:
        raise EvaluationError(f"slice orientations differ by {turned:.3f}; {remedy}")
    i, j = np.array(pairs).T
    offset_mm = (b.geometry.positions_mm[j] - a.geometry.positions_mm[i]) @ axes.T
    column_and_row_mm = spacing[0][::-1]  # a row runs across columns
    shift_px = float(np.abs(offset_mm / column_and_row_mm).max())
    if shift_px > IN_PLANE_TOLERANCE_PX:
        raise EvaluationError(
            f"slices lie {shift_px:.1f} pixels apart in plane, at most {IN_PLANE_TOLERANCE_PX} "
            f"can be compared; {remedy}"
        )


def pair_volumes(
    a: Sequence[CTVolume], b: Sequence[CTVolume], z_tolerance_mm: float = Z_TOLERANCE_MM
) -> list[VolumePair]:
    """For each volume of `a`, the one of `b` that shares its slices; some may have none.

    Where several do, as when a phantom stays on the table for scans at many tube voltages, those
    of the same voltage count, and of these those of the same slice thickness.

    Raises:
        EvaluationError: if a volume still shares slices with several of `b`, or if volumes known
            to be in one frame of reference meet on different grids and nothing pairs at all.
    """
    found: list[VolumePair] = []
    misfits: list[EvaluationError] = []
    for first, volume in enumerate(a):
        matches = []
        for second, other in enumerate(b):
            try:
                slices = pair_slices(volume, other, z_tolerance_mm)
            except EvaluationError as error:
                if volume.geometry.frame_of_reference and other.geometry.frame_of_reference:
                    misfits.append(error)
                continue
            if slices:
                matches.append(VolumePair(first, second, tuple(slices)))
        matches = _acquired_alike(volume, matches, b)
        if len(matches) > 1:
            raise EvaluationError(
                f"series {first + 1} of {len(a)} lies on the same slices as {len(matches)} of the "
                "series to compare it with, at one tube voltage and thickness; give one of them, "
                "or one patient at a time"
            )
        found += matches
    if not found and misfits:
        raise misfits[0]
    return found


def _acquired_alike(
    volume: CTVolume, matches: list[VolumePair], others: Sequence[CTVolume]
) -> list[VolumePair]:
    """Of several matches those of the same tube voltage and thickness, where there are any."""

    def same_kvp(match: VolumePair) -> bool:
        return others[match.second].acquisition.kvp == volume.acquisition.kvp

    def same_thickness(match: VolumePair) -> bool:
        thickness_mm = others[match.second].geometry.thickness_mm
        return abs(thickness_mm - volume.geometry.thickness_mm) < THICKNESS_TOLERANCE_MM

    for alike in (same_kvp, same_thickness):
        if len(matches) > 1:
            matches = [match for match in matches if alike(match)] or matches
    return matches


def nearest_gap_mm(a: Sequence[CTVolume], b: Sequence[CTVolume]) -> float | None:
    """Smallest distance between slices of one frame of reference; None where none is shared."""
    gaps = [
        float(np.abs(one.geometry.z_mm[:, None] - other.geometry.z_mm[None, :]).min())
        for one in a
        for other in b
        if one.geometry.frame_of_reference == other.geometry.frame_of_reference
    ]
    return min(gaps, default=None)


@dataclass(frozen=True)
class SharedSlices:
    """Volumes cut to the slices they share: slice i of each is at one place in one body.

    Args:
        repeat: the target scanned once more, with other noise.
        target_at: which of the target series given this is, and which of its slices.
    """

    harmonized: CTVolume
    target: CTVolume | None
    source: CTVolume | None
    repeat: CTVolume | None = None
    target_at: tuple[int, tuple[int, ...]] = (0, ())


def images_of(shared: SharedSlices, side: str) -> CTVolume:
    """The volume of one side: `source`, `harmonized`, `repeat` or `target`."""
    volume: CTVolume | None = getattr(shared, side)
    if volume is None:
        raise EvaluationError(f"no {side} images here")
    return volume


def with_target(
    pairs: Sequence[VolumePair],
    sides: Mapping[str, Sequence[CTVolume]],
    z_tolerance_mm: float = Z_TOLERANCE_MM,
) -> list[SharedSlices]:
    """Cut every side to the slices it shares with the others.

    Args:
        pairs: harmonised series with their targets.
        sides: `harmonized` and `target`, and where there are any `source` and `repeat`.

    Raises:
        EvaluationError: if there are source or repeated series, but not of every slice.
    """
    others = {
        side: {
            each.first: each
            for each in pair_volumes(sides["harmonized"], sides[side], z_tolerance_mm)
        }
        for side in ("source", "repeat")
        if side in sides
    }
    shared = []
    for pair in pairs:
        kept = [i for i, _ in pair.slices]
        target_slices = [j for _, j in pair.slices]
        cut = {
            side: _cut_alike(side, found.get(pair.first), kept, pair.first, sides[side])
            for side, found in others.items()
        }
        shared.append(
            SharedSlices(
                harmonized=sides["harmonized"][pair.first].select(kept),
                target=sides["target"][pair.second].select(target_slices),
                source=cut.get("source"),
                repeat=cut.get("repeat"),
                target_at=(pair.second, tuple(target_slices)),
            )
        )
    return shared


_REMEDIES = {
    "source": "give the series that was harmonised as source",
    "repeat": "give a second scan of every target series as repeat",
}


def _cut_alike(
    side: str, pair: VolumePair | None, kept: list[int], first: int, volumes: Sequence[CTVolume]
) -> CTVolume:
    places = dict(pair.slices) if pair else {}
    lost = sum(i not in places for i in kept)
    if pair is None or lost:
        raise EvaluationError(
            f"{lost} of {len(kept)} slices of harmonised series {first + 1} have no {side} slice "
            f"at their place; {_REMEDIES[side]}"
        )
    return volumes[pair.second].select([places[i] for i in kept])


def unpaired_reason(
    harmonized: Sequence[CTVolume], target: Sequence[CTVolume], tolerance_mm: float
) -> str:
    """Why `pair_volumes` found nothing."""
    gap_mm = nearest_gap_mm(harmonized, target)
    if gap_mm is None:
        return "harmonised and target series share no frame of reference"
    if gap_mm > tolerance_mm:
        return f"the nearest slices lie {gap_mm:.2f} mm apart, more than {tolerance_mm:g} mm"
    return "slices at the same z lie on different pixel grids"
