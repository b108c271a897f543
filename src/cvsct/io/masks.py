"""Masks from files, as regions of a CT volume: NIfTI, DICOM SEG and DICOM RTSTRUCT.

A mask is never resampled: it lies on the volume's own grid, however its axes are ordered or
turned, or it is refused. DICOM masks must name the volume's frame of reference, or its images by
SOP Instance UID; NIfTI knows neither, so there the position alone decides. Labels are the file's
own words. Parts of an RT structure set that cannot be measured are cut or left out, with a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool

from cvsct.core.errors import CvsctError, GeometryError, SeriesError
from cvsct.core.masks import MaskedRegion, masked_regions
from cvsct.core.progress import Note, log_note
from cvsct.core.volume import CTVolume
from cvsct.io.dicom.header import is_dicom, label, read_dataset, text
from cvsct.io.dicom.segmentation import SEGMENTATIONS, segment_masks
from cvsct.io.dicom.structure_names import choose, refuse_unmatched
from cvsct.io.dicom.structure_set import RTSTRUCT, DrawnMasks, contour_masks
from cvsct.io.mask_grid import on_grid
from cvsct.io.nifti.header import is_nifti
from cvsct.io.nifti.labels import read_labels


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
        return segment_masks(label(path), dataset, volume, note)
    raise SeriesError(
        f"{label(path)}: DICOM that is neither a segmentation nor an RT structure set; "
        "name the mask's own file"
    )


def _nifti_masks(path: Path, volume: CTVolume) -> DrawnMasks:
    """Masks of a NIfTI label map: one for each whole number above 0."""
    name = label(path)
    labels, affine = read_labels(path, volume)
    masks = {str(int(n)): labels == n for n in np.unique(labels[labels > 0])}
    laid = on_grid(name, masks, affine, volume)
    return DrawnMasks(laid, list(laid))
