"""Pairing of slices of two sets of series that show the same place in the same body.

Geometry decides, never file order: position along the normal, then the pixel grid in plane. A
derived series keeps the geometry of its source, so it pairs with a target as the source does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from cvsct.core.errors import GeometryError
from cvsct.core.volume import UNNAMED, Acquisition, Geometry

Z_TOLERANCE_MM = 0.1
"""Largest distance of paired slices: far above the rounding of DICOM's decimal positions and far
below any slice spacing; half a spacing would pair slices of different anatomy."""

Patients = tuple[Sequence[str], Sequence[str]]
"""Hash of the patient of each volume, as in `CTVolume`, for the two lists of volumes."""

IN_PLANE_TOLERANCE_PX = 0.5
THICKNESS_TOLERANCE_MM = 0.01
SPACING_TOLERANCE = 1e-3
DIRECTION_TOLERANCE = 1e-3


@runtime_checkable
class Stack(Protocol):
    """Slices with their geometry, with voxels in memory (`CTVolume`) or on disk."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""

    @property
    def geometry(self) -> Geometry:
        """Positions, directions and spacing of the slices."""

    @property
    def acquisition(self) -> Acquisition:
        """Scanner, kernel and tube voltage."""


@dataclass(frozen=True)
class VolumePair:
    """Two volumes of one body and the slices that they share.

    Args:
        first: index of the volume in the first list.
        second: index of the volume in the second list.
        slices: slice indices of the pairs, in order of z.
    """

    first: int
    second: int
    slices: tuple[tuple[int, int], ...]


def are_other_patients(a: str, b: str) -> bool:
    """Whether two patient hashes (`CTVolume.patient`) are both known and differ.

    Equal hashes prove nothing: many archives call all patients ANONYMOUS.
    """
    known = all(patient and not patient.startswith(UNNAMED) for patient in (a, b))
    return known and a != b


def pair_slices(
    a: Stack, b: Stack, z_tolerance_mm: float = Z_TOLERANCE_MM, any_frame: bool = False
) -> list[tuple[int, int]]:
    """Pairs of slices of `a` and `b` at the same position, in order of z.

    Two slices pair when they are each other's nearest along the normal and at most
    `z_tolerance_mm` apart. Volumes in different frames of reference have no slice in common.

    Args:
        a: the first volume.
        b: the second volume.
        z_tolerance_mm: largest distance along the normal, in mm.
        any_frame: compare positions even across frames of reference.

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
        _refuse_other_grid(a, b, pairs)
    return sorted(pairs, key=lambda pair: float(a.geometry.z_mm[pair[0]]))


def _refuse_other_grid(a: Stack, b: Stack, pairs: list[tuple[int, int]]) -> None:
    """Refuse volumes whose pixel grids differ in matrix, spacing, orientation or position."""
    remedy = "reconstruct both on one grid"
    if a.shape[1:] != b.shape[1:]:
        size = ["x".join(map(str, volume.shape[1:])) for volume in (a, b)]
        raise GeometryError(f"slices of {size[0]} pixels against {size[1]}; {remedy}")
    spacing = np.array([a.geometry.pixel_mm, b.geometry.pixel_mm])
    if not np.allclose(spacing[0], spacing[1], rtol=SPACING_TOLERANCE, atol=0):
        text = [" x ".join(f"{mm:.4f}" for mm in row) for row in spacing]
        raise GeometryError(f"pixel spacing of {text[0]} mm against {text[1]} mm; {remedy}")
    axes = np.array([a.geometry.row_direction, a.geometry.column_direction])
    other_axes = np.array([b.geometry.row_direction, b.geometry.column_direction])
    direction_difference = float(np.abs(axes - other_axes).max())
    if direction_difference > DIRECTION_TOLERANCE:
        raise GeometryError(f"slice orientations differ by {direction_difference:.3f}; {remedy}")
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
    """Pair each volume of `a` with the volume of `b` that shares its slices; some have no partner.

    Where several share them, as when a phantom stays on the table for scans at many tube voltages,
    those of the same voltage are taken, and of these those of the same slice thickness.

    Args:
        a: the first list of volumes.
        b: the second list of volumes.
        z_tolerance_mm: largest distance of paired slices along the normal, in mm.
        patients: patient hash of each volume; volumes of patients known to differ never pair.
        any_frame: compare positions even across frames of reference.

    Raises:
        GeometryError: if a volume still shares slices with several of `b`, or if volumes known
            to be in one frame of reference meet on different grids and nothing pairs at all.
    """
    pairs: list[VolumePair] = []
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
        pairs += matches
    if not pairs and misfits:
        raise misfits[0]
    return pairs


def _one_frame(a: Stack, b: Stack) -> bool:
    """Whether both volumes name a frame of reference."""
    return bool(a.geometry.frame_of_reference and b.geometry.frame_of_reference)


def _acquired_alike(
    volume: Stack, matches: list[VolumePair], others: Sequence[Stack]
) -> list[VolumePair]:
    """Keep the matches of the same tube voltage and thickness, where there are any."""

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
        float(np.abs(first.geometry.z_mm[:, None] - second.geometry.z_mm[None, :]).min())
        for first in a
        for second in b
        if first.geometry.frame_of_reference == second.geometry.frame_of_reference
    ]
    return min(gaps, default=None)


def unpaired_reason(
    a: Sequence[Stack],
    b: Sequence[Stack],
    z_tolerance_mm: float = Z_TOLERANCE_MM,
    names: tuple[str, str] = ("source", "target"),
    patients: Patients | None = None,
) -> str:
    """Reason why `pair_volumes` found no pair, for a message.

    Args:
        a: the first list of volumes.
        b: the second list of volumes.
        z_tolerance_mm: largest distance of paired slices along the normal, in mm.
        names: names of the two lists in the message.
        patients: patient hash of each volume.
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
    """Whether only volumes of patients who are known to differ lie at the same place."""
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
