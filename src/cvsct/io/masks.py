"""Masks from files, as regions of a CT volume: NIfTI, DICOM SEG and DICOM RTSTRUCT.

A mask is never resampled: it lies on the volume's own grid, however its axes are ordered or
turned, or it is refused. DICOM masks must name the volume's frame of reference; NIfTI knows none,
so there the position alone decides. Labels are the file's own words.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from cvsct.errors import GeometryError, SeriesError, import_extra
from cvsct.io.contours import RTSTRUCT, contour_masks
from cvsct.io.header import is_dicom, label, quiet, read_dataset, text
from cvsct.io.nifti import TO_LPS
from cvsct.io.nifti_header import read_nifti_header, read_voxels, scaling_of, sizes_of
from cvsct.io.space import refuse_other_frame, volume_affine
from cvsct.regions import MaskedRegion, masked_regions
from cvsct.volume import CTVolume

logger = logging.getLogger(__name__)

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage."""

GRID_TOLERANCE_VOXELS = 0.1
"""How far any corner of a mask's grid may lie from the volume's voxels; float32 affines and
rounded decimal strings stay a hundred times below."""

MAX_LABELS = 1000

MAX_TIMES_LARGER = 8
"""A mask's grid may reach beyond the image's, not by more than this many times its voxels."""

_MILLIMETRES = ("mm", "unknown")
_NIFTI = (".nii", ".nii.gz")


def read_masks(
    path: Path, volume: CTVolume, labels: Sequence[str] = ()
) -> tuple[MaskedRegion, ...]:
    """The regions that a file marks in a volume: one for each label and slice.

    Args:
        path: NIfTI label map (.nii, .nii.gz), DICOM segmentation or RT structure set.
        labels: which ones, in this order; empty for all. NIfTI labels are its numbers.

    Raises:
        SeriesError: if the file cannot be read, is no mask, or lacks a label asked for.
        GeometryError: if the mask lies on another grid or in another frame of reference, reaches
            outside the image, or is empty.
        MissingExtraError: if the library that reads it is not installed.
    """
    name = label(path)
    if path.name.lower().endswith(_NIFTI):
        masks = _nifti_masks(path, volume)
    elif not path.is_file() or is_dicom(path):
        masks = _dicom_masks(path, volume)
    else:
        raise SeriesError(
            f"{name}: not a mask file; give NIfTI (.nii, .nii.gz), DICOM SEG or RTSTRUCT"
        )
    unknown = [each for each in labels if each not in masks]
    if unknown:
        there = ", ".join(masks) or "none"
        raise SeriesError(f"{name}: no label {unknown[0]!r}; choose from {there}")
    regions: list[MaskedRegion] = []
    for each in labels or masks:
        found = masked_regions(masks[each], each)
        if labels and not found:
            raise GeometryError(f"{name}: label {each!r} is empty; leave it out")
        regions += found
    if not regions:
        raise GeometryError(f"{name}: the mask is empty; check that it was saved")
    return tuple(regions)


def _dicom_masks(path: Path, volume: CTVolume) -> dict[str, Bool[np.ndarray, "_ _ _"]]:
    dataset = read_dataset(path, pixels=True)
    sop_class = text(dataset, "SOPClassUID")
    if sop_class == RTSTRUCT:
        return contour_masks(label(path), dataset, volume)
    if sop_class in SEGMENTATIONS:
        return _segment_masks(label(path), dataset, volume)
    raise SeriesError(
        f"{label(path)}: DICOM that is neither a segmentation nor an RT structure set; "
        "name the mask's own file"
    )


def _nifti_masks(path: Path, volume: CTVolume) -> dict[str, Bool[np.ndarray, "_ _ _"]]:
    """Whole numbers above 0 are labels."""
    name = label(path)
    header, _ = read_nifti_header(path)
    shape, dtype = sizes_of(header), header.get_data_dtype()
    if len(shape) < 3 or any(size != 1 for size in shape[3:]) or dtype.kind not in "uif":
        raise SeriesError(
            f"{name}: shape {shape} of {dtype}, expected one 3-D map of numbers; "
            "save one label map a file"
        )
    _refuse_larger(name, shape[:3], volume)
    units = header.get_xyzt_units()[0]
    coded = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    if units not in _MILLIMETRES or not coded:
        raise GeometryError(
            f"{name}: its header does not say where it lies in mm (no orientation code, or "
            f"lengths in {units}); save it again from the program that drew it"
        )
    slope, intercept = scaling_of(header)
    values = read_voxels(path, header) * slope + intercept
    whole = np.rint(values)
    if not (np.isfinite(values) & (whole == values)).all() or values.min(initial=0) < 0:
        raise SeriesError(
            f"{name}: values that are no labels (fractions or below 0); threshold the map first"
        )
    numbers = np.unique(whole[whole > 0])
    if len(numbers) > MAX_LABELS:
        raise SeriesError(f"{name}: {len(numbers)} labels look like an image; give a label map")
    found = {str(int(n)): whole == n for n in numbers}
    return on_grid(name, found, TO_LPS @ header.get_best_affine(), volume)


def _segment_masks(
    name: str, dataset: Any, volume: CTVolume
) -> dict[str, Bool[np.ndarray, "_ _ _"]]:
    """Segments may overlap: each is a mask of its own."""
    kind = text(dataset, "SegmentationType")
    if kind not in ("BINARY", "LABELMAP"):
        raise SeriesError(
            f"{name}: a segmentation of type {kind or 'unknown'}, expected BINARY or LABELMAP; "
            "threshold fractions first"
        )
    refuse_other_frame(name, text(dataset, "FrameOfReferenceUID"), volume)
    highdicom = import_extra("highdicom", "reading this mask", "evaluate")
    found: dict[str, Bool[np.ndarray, "_ _ _"]] = {}
    try:
        with quiet():
            segmentation = highdicom.seg.Segmentation.from_dataset(dataset, copy=False)
            geometry = segmentation.get_volume_geometry()
            if geometry is None:
                raise GeometryError(
                    f"{name}: its frames are not regularly spaced planes; save it again as one "
                    "segmentation of the series"
                )
            _refuse_larger(name, geometry.spatial_shape, volume)
            for number in segmentation.segment_numbers:
                description = segmentation.get_segment_description(number)
                one = segmentation.get_volume(segment_numbers=[number])
                title = _free_label(str(description.segment_label), number, found)
                found[title] = one.array.reshape(one.spatial_shape) > 0
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise SeriesError(
            f"{name}: not a sound segmentation ({type(error).__name__} while reading it); "
            "save it again"
        ) from None
    return on_grid(name, found, geometry.affine, volume)


def _refuse_larger(name: str, shape: Sequence[int], volume: CTVolume) -> None:
    """Refuse by what a header declares, before anything is allocated."""
    if not 0 < math.prod(shape) <= MAX_TIMES_LARGER * volume.hu.size:
        raise GeometryError(
            f"{name}: {' x '.join(map(str, shape))} voxels are on another grid than the image's; "
            "draw it on this series, or crop it to the image"
        )


def _free_label(wanted: str, number: int, taken: Mapping[str, object]) -> str:
    title = "".join(char if char.isprintable() else "?" for char in wanted.strip())[:64]
    return title if title and title not in taken else f"{title} {number}".strip()


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
    if not masks:
        return {}
    shape = next(iter(masks.values())).shape
    ours, theirs = volume_affine(volume), affine.astype(np.float64).copy()
    _match_single_slices(ours, volume.hu.shape, theirs, shape)
    try:
        step = np.linalg.solve(ours, theirs)
    except np.linalg.LinAlgError:
        step = np.full((4, 4), np.nan)
    turn = np.zeros((3, 3)) if np.isnan(step).any() else np.rint(step[:3, :3])
    centre = (np.array(shape) - 1) / 2
    shift = np.rint(step[:3, :3] @ centre + step[:3, 3] - turn @ centre) if turn.any() else centre
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, 8)
    off = step[:3, :3] @ corners + step[:3, 3:] - turn @ corners - shift[:, None]
    turned = np.array_equal(np.abs(turn).sum(axis=0), [1, 1, 1]) and abs(np.linalg.det(turn)) == 1
    if not turned or np.abs(off).max() > GRID_TOLERANCE_VOXELS:
        raise GeometryError(
            f"{name}: the mask lies on another grid than the image (its voxels do not coincide); "
            "draw it on this series, or resample it by nearest neighbour first"
        )
    laid = {}
    for each, mask in masks.items():
        at = (turn @ np.argwhere(mask).T + shift[:, None]).astype(np.int64)
        if ((at < 0) | (at >= np.array(volume.hu.shape)[:, None])).any():
            raise GeometryError(
                f"{name}: label {each!r} reaches outside the image; "
                "draw it on this series, or crop it to the image"
            )
        out = np.zeros(volume.hu.shape, dtype=bool)
        out[tuple(at)] = True
        laid[each] = out
    return laid


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
