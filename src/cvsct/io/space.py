"""A volume's voxel grid in the patient's space, for what else is drawn there."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cvsct.errors import GeometryError
from cvsct.volume import CTVolume, Geometry


def volume_affine(volume: CTVolume) -> Float[np.ndarray, "4 4"]:
    """From slice, row and column index to mm along left, posterior and superior."""
    return stack_affine(volume.geometry)


def stack_affine(where: Geometry) -> Float[np.ndarray, "4 4"]:
    """The same, of slices without voxels."""
    first, last = where.positions_mm[0], where.positions_mm[-1]
    affine = np.eye(4)
    if len(where.positions_mm) > 1:
        affine[:3, 0] = (last - first) / (len(where.positions_mm) - 1)
    else:
        affine[:3, 0] = where.normal * (where.spacing_mm or 1.0)
    affine[:3, 1] = np.array(where.column_direction) * where.pixel_mm[0]
    affine[:3, 2] = np.array(where.row_direction) * where.pixel_mm[1]
    affine[:3, 3] = first
    return affine


def is_other_frame(frame: str, volume: CTVolume) -> bool:
    """Whether a frame of reference and the volume's are both known and differ."""
    ours = volume.geometry.frame_of_reference
    return bool(frame and ours and frame != ours)


def refuse_other_frame(name: str, frame: str, volume: CTVolume) -> None:
    """Refuse what was drawn in another frame of reference.

    Raises:
        GeometryError: if both name one and they differ.
    """
    if is_other_frame(frame, volume):
        raise GeometryError(
            f"{name}: drawn in another frame of reference than the image's, so positions do not "
            "compare; give the mask of this examination"
        )
