"""Masks from files, as regions of a CT volume: NIfTI, DICOM SEG and DICOM RTSTRUCT.

A mask is never resampled: it lies on the volume's own grid, however its axes are ordered or
turned, or it is refused. DICOM masks must name the volume's frame of reference, or its images by
SOP Instance UID; NIfTI knows neither, so there the position alone decides. Labels are the file's
own words. Parts of an RT structure set that cannot be measured are cut or left out, with a note.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool
from pydicom import Dataset

from cvsct.core.errors import CvsctError, GeometryError, SeriesError, import_extra
from cvsct.core.masks import MaskedRegion, masked_regions
from cvsct.core.progress import Note, log_note
from cvsct.core.volume import CTVolume
from cvsct.io.affine import is_other_frame, refuse_other_frame
from cvsct.io.dicom.header import is_dicom, label, quiet, read_dataset, text
from cvsct.io.dicom.references import ImageName, images_named, items, slices_by_name
from cvsct.io.dicom.structure_names import choose, refuse_unmatched, title_of
from cvsct.io.dicom.structure_set import RTSTRUCT, DrawnMasks, contour_masks
from cvsct.io.mask_grid import on_grid
from cvsct.io.nifti.header import is_nifti, read_nifti_header, read_voxels, scaling_of, sizes_of
from cvsct.io.nifti.read import TO_LPS

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP Classes of Segmentation Storage and Label Map Segmentation Storage."""

MAX_LABELS = 1000

MAX_TIMES_LARGER = 8
"""Largest ratio of a mask's number of voxels to the image's; its grid may be the larger one."""

_MILLIMETRES = ("mm", "unknown")


def read_masks(
    path: Path, volume: CTVolume, labels: Sequence[str] = (), note: Note = log_note
) -> tuple[MaskedRegion, ...]:
    """The regions that a file marks in a volume: one for each label and slice.

    Args:
        path: NIfTI label map (.nii, .nii.gz), DICOM segmentation or RT structure set.
        labels: which ones, in this order, by name or pattern (`GTV*`), whatever the case; empty
            for all. NIfTI labels are its numbers.
        note: called with each remark on what was cut, left out or assumed.

    Raises:
        SeriesError: if the file cannot be read, is no mask, or lacks a label asked for.
        GeometryError: if the mask lies on another grid or in another frame of reference, reaches
            outside the image (contours: lies outside), or is empty.
        MissingExtraError: if the library that reads it is not installed.
    """
    masks = _read(path, volume, labels, note)
    refuse_unmatched(label(path), masks.unmatched, masks.titles)
    return masks.regions


@dataclass(frozen=True)
class LabelMasks:
    """Masks of a file on the grid of a volume, whole and not cut into slices.

    Args:
        masks: one for each label asked for that the file has; an empty one where nothing of it can
            be measured.
        unmatched: labels asked for that the file lacks.
        titles: of all labels in the file.
    """

    masks: dict[str, Bool[np.ndarray, "slices rows columns"]]
    unmatched: tuple[str, ...]
    titles: tuple[str, ...]


def read_label_masks(
    path: Path,
    volume: CTVolume,
    labels: Sequence[str] = (),
    names: Mapping[str, str] = MappingProxyType({}),
    note: Note = log_note,
) -> LabelMasks:
    """The whole mask of each label of a file, on the grid of a volume.

    Args:
        path, labels, note: as in `read_masks`; a label that is empty or missing is no error here.
        names: names for the numbers of NIfTI labels, such as `{"1": "lesion"}`.

    Raises:
        SeriesError: if the file cannot be read, or is no mask.
        GeometryError: if the mask lies on another grid or in another frame of reference, or
            reaches outside the image (contours: lies outside).
        MissingExtraError: if the library that reads it is not installed.
    """
    drawn = _draw(path, volume, labels, note)
    if is_nifti(path):
        named = {names.get(title, title): mask for title, mask in drawn.masks.items()}
        drawn = DrawnMasks(named, list(named))
    wanted, unmatched = choose(list(drawn.titles), labels)
    nothing = np.zeros(volume.shape, dtype=bool)
    masks = {title: drawn.masks.get(title, nothing) for title in wanted}
    return LabelMasks(masks, tuple(unmatched), tuple(drawn.titles))


@dataclass(frozen=True)
class _FileMasks:
    """Regions that a mask file marks in one volume.

    Args:
        titles: of all labels in the file.
        unmatched: labels asked for that the file lacks.
        named: whether the file names the volume's images.
    """

    regions: tuple[MaskedRegion, ...]
    titles: Sequence[str]
    unmatched: Sequence[str]
    named: bool


def read_target_masks(
    paths: Sequence[Path], targets: Sequence[CTVolume], labels: Sequence[str], note: Note
) -> dict[int, list[MaskedRegion]]:
    """Regions of all files on the series they were drawn on, by the number of the series.

    Args:
        labels: as in `read_masks`; each must choose something in one of the files at least.
        note: as in `read_masks`.

    Raises:
        CvsctError: if a file fits no series (the last reason is given), or a label none.
    """
    regions: dict[int, list[MaskedRegion]] = {}
    unmatched, titles = set(labels), list[str]()
    for path in paths:
        fitting: dict[int, tuple[_FileMasks, list[str]]] = {}
        reason: CvsctError | None = None
        for number, volume in enumerate(targets):
            remarks: list[str] = []
            try:
                fitting[number] = _read(path, volume, labels, remarks.append), remarks
            except CvsctError as error:
                reason = error
        if reason is not None and not fitting:
            raise reason
        named = any(masks.named for masks, _ in fitting.values())
        for number, (masks, remarks) in fitting.items():
            unmatched &= set(masks.unmatched)
            titles += [title for title in masks.titles if title not in titles]
            if named and remarks and not masks.named:
                continue  # drawn on another of these series, and fits this one only in part
            for remark in remarks:
                note(remark)
            regions.setdefault(number, []).extend(masks.regions)
    refuse_unmatched("the mask files", [name for name in labels if name in unmatched], titles)
    return regions


def _read(path: Path, volume: CTVolume, labels: Sequence[str], note: Note) -> _FileMasks:
    name = label(path)
    drawn = _draw(path, volume, labels, note)
    wanted, unmatched = choose(list(drawn.titles), labels)
    if labels and not wanted:
        return _FileMasks((), drawn.titles, unmatched, named=False)
    by_title = {
        title: masked_regions(drawn.masks[title], title) for title in wanted if title in drawn.masks
    }
    empty = [title for title, regions in by_title.items() if not regions]
    if len(empty) == len(by_title):
        raise GeometryError(
            f"{name}: label {empty[0]!r} is empty; leave it out"
            if labels
            else f"{name}: the mask is empty; check that it was saved"
        )
    if empty:
        note(f"{name}: left out empty labels: {', '.join(map(repr, empty))}")
    all_regions = tuple(region for regions in by_title.values() for region in regions)
    return _FileMasks(all_regions, drawn.titles, unmatched, drawn.named)


def _draw(path: Path, volume: CTVolume, labels: Sequence[str], note: Note) -> DrawnMasks:
    if is_nifti(path):
        return _nifti_masks(path, volume)
    if not path.is_file() or is_dicom(path):
        return _dicom_masks(path, volume, labels, note)
    raise SeriesError(
        f"{label(path)}: not a mask file; give NIfTI (.nii, .nii.gz), DICOM SEG or RTSTRUCT"
    )


def _dicom_masks(path: Path, volume: CTVolume, labels: Sequence[str], note: Note) -> DrawnMasks:
    dataset = read_dataset(path, pixels=True)
    sop_class = text(dataset, "SOPClassUID")
    if sop_class == RTSTRUCT:
        return contour_masks(label(path), dataset, volume, labels, note)
    if sop_class in SEGMENTATIONS:
        return _segment_masks(label(path), dataset, volume, note)
    raise SeriesError(
        f"{label(path)}: DICOM that is neither a segmentation nor an RT structure set; "
        "name the mask's own file"
    )


def _nifti_masks(path: Path, volume: CTVolume) -> DrawnMasks:
    """Masks of a NIfTI label map: one for each whole number above 0."""
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
    masks = {str(int(n)): whole == n for n in numbers}
    laid = on_grid(name, masks, TO_LPS @ header.get_best_affine(), volume)
    return DrawnMasks(laid, list(laid))


def _segment_masks(name: str, dataset: Any, volume: CTVolume, note: Note) -> DrawnMasks:
    """Masks of a DICOM segmentation: one for each segment, for segments may overlap."""
    kind = text(dataset, "SegmentationType")
    if kind not in ("BINARY", "LABELMAP", "FRACTIONAL"):
        raise SeriesError(
            f"{name}: a segmentation of another type than BINARY, LABELMAP and FRACTIONAL; "
            "save it again as one of these"
        )
    named = _names_images(dataset, volume)
    frame = text(dataset, "FrameOfReferenceUID")
    if not named:
        refuse_other_frame(name, frame, volume)
    elif is_other_frame(frame, volume):
        note(
            f"{name}: drawn in another frame of reference, taken because each frame names an "
            "image of this series"
        )
    highdicom = import_extra("highdicom", "reading this mask", "evaluate")
    masks: dict[str, Bool[np.ndarray, "_ _ _"]] = {}
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
                segment = segmentation.get_volume(segment_numbers=[number])
                values = segment.array.reshape(segment.spatial_shape)
                if kind == "FRACTIONAL" and not np.isin(values, (0, 1)).all():
                    raise SeriesError(
                        f"{name}: a segmentation of type FRACTIONAL that holds fractions, expected "
                        "nothing or all of each voxel; threshold it first"
                    )
                masks[title_of(str(description.segment_label), number, masks)] = values > 0
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise SeriesError(
            f"{name}: not a sound segmentation ({type(error).__name__} while reading it); "
            "save it again"
        ) from None
    laid = on_grid(name, masks, geometry.affine, volume)
    return DrawnMasks(laid, list(laid), named)


def _names_images(dataset: Dataset, volume: CTVolume) -> bool:
    """Whether each frame of a segmentation was derived from an image of the volume."""
    known = slices_by_name(volume)
    frames = items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = items(dataset, "SharedFunctionalGroupsSequence")
    return bool(frames and known) and all(
        any(image in known for group in (frame, *shared) for image in _derived_from(group))
        for frame in frames
    )


def _derived_from(group: Dataset) -> list[ImageName]:
    return [
        image
        for derivation in items(group, "DerivationImageSequence")
        for image in images_named(derivation, "SourceImageSequence")
    ]


def _refuse_larger(name: str, shape: Sequence[int], volume: CTVolume) -> None:
    """Refuse a mask whose header declares too many voxels, before anything is allocated."""
    if not 0 < math.prod(shape) <= MAX_TIMES_LARGER * volume.hu.size:
        raise GeometryError(
            f"{name}: {' x '.join(map(str, shape))} voxels are on another grid than the image's; "
            "draw it on this series, or crop it to the image"
        )
