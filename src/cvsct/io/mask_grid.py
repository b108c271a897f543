"""Masks of another grid laid into a volume's own by turning and shifting whole voxels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from cvsct.core.errors import GeometryError
from cvsct.core.volume import CTVolume

GRID_TOLERANCE_VOXELS = 0.1
"""Largest distance of a corner of a mask's grid from the volume's voxels; float32 affines and
rounded decimal strings stay a hundred times below it."""

MAX_TIMES_LARGER = 8
"""Largest ratio of a mask's number of voxels to the image's; its grid may be the larger one."""


def on_grid(
    name: str,
    masks: Mapping[str, Bool[np.ndarray, "_ _ _"]],
    affine: Float[np.ndarray, "4 4"],
    volume: CTVolume,
) -> dict[str, Bool[np.ndarray, "_ _ _"]]:
    """Masks of one grid, laid into the volume's by turning and shifting whole voxels.

    Args:
        affine: from a mask's indices to mm along left, posterior and superior (DICOM's axes).

    Raises:
        GeometryError: if the voxels do not coincide, or a marked one lies outside the volume.
    """
    return {
        title: _laid(f"{name}: label {title!r}", mask, _placement(name, mask.shape, affine, volume),
                     volume)
        for title, mask in masks.items()
    }  # fmt: skip


def labels_on_grid(
    name: str,
    labels: Integer[np.ndarray, "_ _ _"],
    affine: Float[np.ndarray, "4 4"],
    volume: CTVolume,
) -> Integer[np.ndarray, "slices rows columns"]:
    """A label map of one grid, laid into the volume's as `on_grid` does it; 0 is the background.

    Raises:
        GeometryError: as `on_grid`.
    """
    placement = _placement(name, labels.shape, affine, volume)
    return _laid(f"{name}: a label", labels, placement, volume)


def refuse_larger(name: str, shape: Sequence[int], volume: CTVolume) -> None:
    """Refuse a mask whose header declares too many voxels, before anything is allocated."""
    if not 0 < math.prod(shape) <= MAX_TIMES_LARGER * volume.hu.size:
        raise GeometryError(
            f"{name}: {' x '.join(map(str, shape))} voxels are on another grid than the image's; "
            "draw it on this series, or crop it to the image"
        )


def _placement(
    name: str, shape: Sequence[int], affine: Float[np.ndarray, "4 4"], volume: CTVolume
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, " 3"]]:
    """Turn and shift, in whole voxels, from a mask's indices to the volume's."""
    ours, theirs = volume.affine, affine.astype(np.float64).copy()
    _match_single_slices(ours, volume.hu.shape, theirs, shape)
    try:
        step = np.linalg.solve(ours, theirs)
    except np.linalg.LinAlgError:
        step = np.full((4, 4), np.nan)
    turn = np.zeros((3, 3)) if np.isnan(step).any() else np.rint(step[:3, :3])
    center = (np.array(shape) - 1) / 2
    shift = np.rint(step[:3, :3] @ center + step[:3, 3] - turn @ center) if turn.any() else center
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, 8)
    off = step[:3, :3] @ corners + step[:3, 3:] - turn @ corners - shift[:, None]
    turned = np.array_equal(np.abs(turn).sum(axis=0), [1, 1, 1]) and abs(np.linalg.det(turn)) == 1
    if not turned or np.abs(off).max() > GRID_TOLERANCE_VOXELS:
        raise GeometryError(
            f"{name}: the mask lies on another grid than the image (its voxels do not coincide); "
            "draw it on this series, or resample it by nearest neighbor first"
        )
    return turn, shift


def _laid(
    subject: str,
    values: Shaped[np.ndarray, "_ _ _"],
    placement: tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, " 3"]],
    volume: CTVolume,
) -> Shaped[np.ndarray, "slices rows columns"]:
    turn, shift = placement
    marked = np.nonzero(values)
    at = (turn @ np.array(marked) + shift[:, None]).astype(np.int64)
    if ((at < 0) | (at >= np.array(volume.hu.shape)[:, None])).any():
        raise GeometryError(
            f"{subject} reaches outside the image; draw it on this series, or crop it to the image"
        )
    out = np.zeros(volume.hu.shape, dtype=values.dtype)
    out[tuple(at)] = values[marked]
    return out


def _match_single_slices(
    ours: Float[np.ndarray, "4 4"],
    our_shape: Sequence[int],
    theirs: Float[np.ndarray, "4 4"],
    their_shape: Sequence[int],
) -> None:
    """Give an axis of one voxel the other grid's step: alone it has no spacing to compare."""
    for mine, shape, other in ((theirs, their_shape, ours), (ours, our_shape, theirs)):
        for axis in np.flatnonzero(np.array(shape) == 1):
            direction = _unit(mine[:3, axis])
            along = np.abs([direction @ _unit(other[:3, k]) for k in range(3)])
            mine[:3, axis] = direction * np.linalg.norm(other[:3, int(np.argmax(along))])


def _unit(vector: Shaped[np.ndarray, " 3"]) -> Float[np.ndarray, " 3"]:
    unit: Float[np.ndarray, " 3"] = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return unit
