"""Which slices of two sets of series show the same place in the same body.

Geometry decides, never file order: position along the normal, then the pixel grid in plane. A
derived series keeps its source's geometry, so harmonised series pair with a target as it would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from cvsct.errors import GeometryError
from cvsct.volume import UNNAMED, Acquisition, Geometry

Z_TOLERANCE_MM = 0.1
"""Far above the rounding of DICOM's decimal positions, far below any slice spacing: half a
spacing would pair slices of different anatomy."""

Patients = tuple[Sequence[str], Sequence[str]]
"""Hashes of who is shown by each volume of two lists, as in `CTVolume`."""

IN_PLANE_TOLERANCE_PX = 0.5
THICKNESS_TOLERANCE_MM = 0.01
SPACING_TOLERANCE = 1e-3
DIRECTION_TOLERANCE = 1e-3


@runtime_checkable
class Stack(Protocol):
    """Slices in space, whether their voxels are in memory, as in a `CTVolume`, or on disk."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""

    @property
    def geometry(self) -> Geometry:
        """Where the slices lie."""

    @property
    def acquisition(self) -> Acquisition:
        """What made them."""


@dataclass(frozen=True)
class VolumePair:
    """Two volumes of one body, by their places in the lists given, and the slices they share."""

    first: int
    second: int
    slices: tuple[tuple[int, int], ...]


def are_other_patients(a: str, b: str) -> bool:
    """Whether two hashes of who is shown (`CTVolume.patient`) are both known and differ.

    Equal hashes prove nothing: many archives call all patients ANONYMOUS.
    """
    known = all(each and not each.startswith(UNNAMED) for each in (a, b))
    return known and a != b


def pair_slices(
    a: Stack, b: Stack, z_tolerance_mm: float = Z_TOLERANCE_MM, any_frame: bool = False
) -> list[tuple[int, int]]:
    """Slices of `a` and `b` at one position, in order of z; file order plays no part.

    Two slices pair when they are each other's nearest along the normal and at most
    `z_tolerance_mm` apart. Volumes in different frames of reference have no slice in common.

    Args:
        any_frame: compare positions whatever the frames of reference.

    Raises:
        GeometryError: if slices meet in z but their grids differ (matrix, pixel spacing,
            orientation, or an in-plane shift of more than half a pixel).
    """
    frames = a.geometry.frame_of_reference, b.geometry.frame_of_reference
    if all(frames) and frames[0] != frames[1] and not any_frame:
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


def _same_grid(a: Stack, b: Stack, pairs: list[tuple[int, int]]) -> None:
    """Refuse volumes whose pixels do not lie on one another."""
    remedy = "reconstruct both on one grid"
    if a.shape[1:] != b.shape[1:]:
        size = ["x".join(map(str, volume.shape[1:])) for volume in (a, b)]
        raise GeometryError(f"slices of {size[0]} pixels against {size[1]}; {remedy}")
    spacing = np.array([a.geometry.pixel_mm, b.geometry.pixel_mm])
    if not np.allclose(spacing[0], spacing[1], rtol=SPACING_TOLERANCE, atol=0):
        text = [" x ".join(f"{mm:.4f}" for mm in row) for row in spacing]
        raise GeometryError(f"pixel spacing of {text[0]} mm against {text[1]} mm; {remedy}")
    axes = np.array([a.geometry.row_direction, a.geometry.column_direction])
    other = np.array([b.geometry.row_direction, b.geometry.column_direction])
    turned = float(np.abs(axes - other).max())
    if turned > DIRECTION_TOLERANCE:
        raise GeometryError(f"slice orientations differ by {turned:.3f}; {remedy}")
    i, j = np.array(pairs).T
    offset_mm = (b.geometry.positions_mm[j] - a.geometry.positions_mm[i]) @ axes.T
    column_and_row_mm = spacing[0][::-1]  # a row runs across columns
    shift_px = float(np.abs(offset_mm / column_and_row_mm).max())
    if shift_px > IN_PLANE_TOLERANCE_PX:
        raise GeometryError(
            f"slices lie {shift_px:.1f} pixels apart in plane, at most {IN_PLANE_TOLERANCE_PX} "
            f"can be compared; {remedy}"
        )


def pair_volumes(
    a: Sequence[Stack],
    b: Sequence[Stack],
    z_tolerance_mm: float = Z_TOLERANCE_MM,
    patients: Patients | None = None,
    any_frame: bool = False,
) -> list[VolumePair]:
    """For each volume of `a`, the one of `b` that shares its slices; some may have none.

    Where several do, as when a phantom stays on the table for scans at many tube voltages, those
    of the same voltage count, and of these those of the same slice thickness.

    Args:
        patients: who is shown by each volume; two who are known to differ never pair.
        any_frame: compare positions whatever the frames of reference.

    Raises:
        GeometryError: if a volume still shares slices with several of `b`, or if volumes known
            to be in one frame of reference meet on different grids and nothing pairs at all.
    """
    found: list[VolumePair] = []
    misfits: list[GeometryError] = []
    for first, volume in enumerate(a):
        matches = []
        for second, other in enumerate(b):
            if patients and are_other_patients(patients[0][first], patients[1][second]):
                continue
            try:
                slices = pair_slices(volume, other, z_tolerance_mm, any_frame)
            except GeometryError as error:
                if any_frame or _one_frame(volume, other):
                    misfits.append(error)
                continue
            if slices:
                matches.append(VolumePair(first, second, tuple(slices)))
        matches = _acquired_alike(volume, matches, b)
        if len(matches) > 1:
            raise GeometryError(
                f"series {first + 1} of {len(a)} lies on the same slices as {len(matches)} of the "
                "series to compare it with, at one tube voltage and thickness; give one of them, "
                "or one patient at a time"
            )
        found += matches
    if not found and misfits:
        raise misfits[0]
    return found


def _one_frame(a: Stack, b: Stack) -> bool:
    """Whether both name a frame of reference, which is the same if their slices were compared."""
    return bool(a.geometry.frame_of_reference and b.geometry.frame_of_reference)


def _acquired_alike(
    volume: Stack, matches: list[VolumePair], others: Sequence[Stack]
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


def nearest_gap_mm(a: Sequence[Stack], b: Sequence[Stack]) -> float | None:
    """Smallest distance between slices of one frame of reference; None where none is shared."""
    gaps = [
        float(np.abs(one.geometry.z_mm[:, None] - other.geometry.z_mm[None, :]).min())
        for one in a
        for other in b
        if one.geometry.frame_of_reference == other.geometry.frame_of_reference
    ]
    return min(gaps, default=None)


def unpaired_reason(
    a: Sequence[Stack],
    b: Sequence[Stack],
    z_tolerance_mm: float = Z_TOLERANCE_MM,
    names: tuple[str, str] = ("source", "target"),
    patients: Patients | None = None,
) -> str:
    """Why `pair_volumes` found nothing.

    Args:
        names: what the two sets of series are called.
        patients: as there.
    """
    if patients and _only_patients_differ(a, b, z_tolerance_mm, patients):
        return "source and target show different patients"
    gap_mm = nearest_gap_mm(a, b)
    if gap_mm is None:
        return f"{names[0]} and {names[1]} series share no frame of reference"
    if gap_mm > z_tolerance_mm:
        return f"the nearest slices lie {gap_mm:.2f} mm apart, more than {z_tolerance_mm:g} mm"
    return "slices at the same z lie on different pixel grids"


def _only_patients_differ(
    a: Sequence[Stack], b: Sequence[Stack], z_tolerance_mm: float, patients: Patients
) -> bool:
    """Whether volumes lie on one another, all of them of patients who are known to differ."""
    pairs = [(i, j) for i in range(len(a)) for j in range(len(b))]
    strangers = [(i, j) for i, j in pairs if are_other_patients(patients[0][i], patients[1][j])]
    if len(strangers) == len(pairs):
        return True
    for i, j in strangers:
        try:
            if pair_slices(a[i], b[j], z_tolerance_mm):
                return True
        except GeometryError:
            continue
    return False
