"""A NIfTI file in Hounsfield units as a CT series: voxels in our order, its header kept.

NIfTI knows no scanner, kernel or patient, and its voxels may be ordered along any axes; the
affine (sform where coded, else qform) says which. Axes are permuted and turned round, never
resampled, so that slices, rows and columns run towards the head, the back and the left.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from cvsct.core.errors import GeometryError, SeriesError
from cvsct.core.masks import TISSUE_WITHOUT_FAT
from cvsct.core.volume import AIR_FLOOR_HU, PADDING_HU, Acquisition, CTVolume, Geometry
from cvsct.io.dicom.geometry import AXIAL_LIMIT_DEGREES, SAME_DIRECTION
from cvsct.io.dicom.header import label
from cvsct.io.dicom.uids import uid_of
from cvsct.io.nifti.header import (
    not_a_scan,
    read_nifti_header,
    read_voxels,
    refuse_large,
    refusing,
    scaling_of,
    sizes_of,
)

MAX_HU = 1e5

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns NIfTI's axes (right, anterior, superior) into DICOM's (left, posterior, superior)."""

_MILLIMETRES = ("mm", "unknown")


@dataclass(frozen=True)
class Grid:
    """Permutation and directions that turn a file's axes into slices, rows and columns.

    Args:
        axes: the file's axes that are our slices, rows and columns.
        turned: which of ours run against the file's.
    """

    axes: tuple[int, int, int]
    turned: tuple[bool, bool, bool]

    def view(self, voxels: Shaped[np.ndarray, "_ _ _"]) -> Shaped[np.ndarray, "_ _ _"]:
        """The file's voxels in our order; writing to it writes to the file's array."""
        index = tuple(slice(None, None, -1 if turned else 1) for turned in self.turned)
        return voxels.transpose(self.axes)[index]


@dataclass(frozen=True)
class NiftiStack:
    """A NIfTI scan whose header was checked.

    Args:
        series_uid: follows from the file's bytes: NIfTI has none.
        header: nibabel's.
        extensions: the bytes between header and voxels.
    """

    series_uid: str
    path: Path
    header: Any = field(repr=False)
    extensions: bytes = field(repr=False)
    grid: Grid
    geometry: Geometry
    acquisition: Acquisition = field(default_factory=Acquisition)
    patient: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.geometry.positions_mm)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        sizes = sizes_of(self.header)
        slices, rows, columns = (sizes[axis] for axis in self.grid.axes)
        return slices, rows, columns

    @property
    def scaling(self) -> tuple[float, float]:
        """Slope and intercept from stored value to HU."""
        return scaling_of(self.header)

    @cached_property
    def stored(self) -> Shaped[np.ndarray, "slices rows columns"]:
        """The stored values in our order.

        Raises:
            SeriesError: if they are cut short, or are no HU.
        """
        name = label(self.path)
        voxels = self.grid.view(read_voxels(self.path, self.header))
        slope, intercept = self.scaling
        ends = sorted(float(end) * slope + intercept for end in (voxels.min(), voxels.max()))
        if not all(map(math.isfinite, ends)):
            raise SeriesError(f"{name}: values that are not finite; replace them by air, -1024 HU")
        if ends[0] > TISSUE_WITHOUT_FAT.low_hu or max(-ends[0], ends[1]) > MAX_HU:
            raise SeriesError(
                f"{name}: values from {ends[0]:g} to {ends[1]:g}, expected HU with air near -1000; "
                "this is a mask or another kind of image, or its scaling is wrong"
            )
        return voxels

    def read(self, start: int = 0, stop: int | None = None) -> CTVolume:
        """The slices from `start` to before `stop`, or to the last, as a volume of their own.

        Raises:
            SeriesError: if the voxels are cut short, or are no HU.
        """
        stored = self.stored[start:stop]
        slope, intercept = self.scaling
        hu = np.empty(stored.shape, dtype=np.float32)
        for i, values in enumerate(stored):
            hu[i] = values.astype(np.float64) * slope + intercept
        padding = hu <= PADDING_HU
        hu[padding] = AIR_FLOOR_HU
        padded = bool(padding.any())
        where = self.geometry
        return CTVolume(
            hu=hu,
            geometry=Geometry(
                positions_mm=where.positions_mm[start:stop],
                row_direction=where.row_direction,
                column_direction=where.column_direction,
                pixel_mm=where.pixel_mm,
                thickness_mm=where.thickness_mm,
            ),
            padding=padding if padded else None,
            padding_stored=tuple(values[mask] for values, mask in zip(stored, padding, strict=True))
            if padded
            else (),
            series_uid=self.series_uid,
        )


def open_nifti(path: Path) -> NiftiStack:
    """Read and check a file's header, and hash its bytes; voxels are not checked.

    Raises:
        SeriesError: if the file is damaged, no single 3-D image, or larger than any scan.
        GeometryError: if it does not say where it lies in mm, or its axes are sheared or oblique.
    """
    name = label(path)
    with refusing(name):
        header, extensions = read_nifti_header(path)
        reason = not_a_scan(header)
        if reason:
            raise SeriesError(f"{name}: {reason}, expected CT in HU; name the scan itself")
        refuse_large(name, path, header)
        grid, geometry = _place(name, header)
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return NiftiStack(uid_of("nifti", digest), path, header, extensions, grid, geometry)


def _place(name: str, header: Any) -> tuple[Grid, Geometry]:
    units = header.get_xyzt_units()[0]
    coded = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    affine: Float[np.ndarray, "4 4"] = TO_LPS @ header.get_best_affine()
    if len(header.get_data_shape()) == 2 and not affine[:3, 2].any():
        affine[:3, 2] = _unit_normal(affine)
    steps_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if units not in _MILLIMETRES or not coded or not np.isfinite(affine).all() or not all(steps_mm):
        raise GeometryError(
            f"{name}: its header does not say where it lies in mm (no orientation code, lengths "
            f"in {units}, or no spacing); export it again with its orientation"
        )
    toward = affine[:3, :3] / steps_mm
    lean = max(abs(float(toward[:, i] @ toward[:, j])) for i, j in ((0, 1), (0, 2), (1, 2)))
    if lean > SAME_DIRECTION:
        raise GeometryError(
            f"{name}: its axes are sheared by {math.degrees(math.asin(min(lean, 1))):.1f} degrees "
            "(gantry tilt), expected right angles; resample the scan to straight slices first"
        )
    slices = int(np.argmax(np.abs(toward[2])))
    columns = max((axis for axis in range(3) if axis != slices), key=lambda a: abs(toward[0, a]))
    axes = (slices, 3 - slices - columns, columns)
    turned = tuple(bool(toward[2 - i, axis] < 0) for i, axis in enumerate(axes))
    ours = np.array(
        [toward[:, a] * (-1 if back else 1) for a, back in zip(axes, turned, strict=True)]
    )
    angle = math.degrees(math.acos(min(1.0, float(ours[0, 2]))))
    if angle > AXIAL_LIMIT_DEGREES or np.linalg.det(ours[::-1]) < 0:
        raise GeometryError(
            f"{name}: oblique, no axis is within {AXIAL_LIMIT_DEGREES:g} degrees of the patient's "
            f"(nearest {angle:.0f}); resample the scan to axial slices first"
        )
    sizes = sizes_of(header)
    first = affine[:3, 3].copy()
    for axis, back in zip(axes, turned, strict=True):
        first += affine[:3, axis] * (sizes[axis] - 1) * back
    along = ours[0] * steps_mm[slices]
    row, column = ours[2], ours[1]
    return Grid(axes, (turned[0], turned[1], turned[2])), Geometry(
        positions_mm=first + np.arange(sizes[slices])[:, None] * along,
        row_direction=(float(row[0]), float(row[1]), float(row[2])),
        column_direction=(float(column[0]), float(column[1]), float(column[2])),
        # 32-bit affines know 0.7 mm as 0.699999988
        pixel_mm=(round(float(steps_mm[axes[1]]), 6), round(float(steps_mm[columns]), 6)),
        thickness_mm=0.0,
    )


def _unit_normal(affine: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, " 3"]:
    """Step of 1 mm along the normal of an image whose header has no third axis."""
    normal: Float[np.ndarray, " 3"] = np.cross(affine[:3, 0], affine[:3, 1])
    return normal / max(float(np.linalg.norm(normal)), 1e-12)
