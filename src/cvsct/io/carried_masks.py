"""Masks of a source series carried to a series derived from it: NIfTI, DICOM SEG and RTSTRUCT.

Where each derived slice has the place of a source slice, voxels and contours stay as they are, and
only what a DICOM object refers to changes. Where derived slices are averages of source slices,
borders lie between those of the source slices (`core.mask_average`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import GeometryError, SeriesError
from cvsct.core.files import file_sha256, write_atomic
from cvsct.core.mask_average import label_majority
from cvsct.core.names import portable_name
from cvsct.core.progress import Note, log_note
from cvsct.core.slice_average import SliceAverage
from cvsct.core.volume import CTVolume
from cvsct.io.affine import refuse_other_frame
from cvsct.io.dicom.carried_rtstruct import carried_structures
from cvsct.io.dicom.carried_seg import carried_segmentation
from cvsct.io.dicom.geometry import SAME_DIRECTION, SAME_PIXEL_MM
from cvsct.io.dicom.header import is_dicom, label, quiet, read_dataset, text
from cvsct.io.dicom.segmentation import SEGMENTATIONS
from cvsct.io.dicom.structure_set import RTSTRUCT
from cvsct.io.dicom.uids import uid_of
from cvsct.io.mask_grid import GRID_TOLERANCE_VOXELS, labels_on_grid
from cvsct.io.nifti.header import is_nifti, read_nifti_header
from cvsct.io.nifti.labels import read_labels
from cvsct.io.nifti.write import output_suffix, write_label_map


def carry_mask(
    mask: Path,
    source: CTVolume,
    derived: CTVolume,
    folder: Path,
    *,
    name: str = "",
    average: SliceAverage | None = None,
    note: Note = log_note,
) -> Path:
    """Write a mask of a source series as a mask of a series derived from it.

    A DICOM mask becomes a new, unapproved object for research that refers to the derived images
    and names its predecessor; frames of a segmentation that name no image get the one at their
    place. The same input gives the same bytes.

    Without an average, voxels and contours stay, and a NIfTI label map is copied. With one, a voxel
    is in where its mean distance inward from the borders in the averaged slices, up to two pixels,
    is above 0; of a region that exactly half of the weights hold, the deeper half is in. Of the
    segments of a label map with half of a voxel each the first gets it; of NIfTI what is in the
    mask of all labels together gets the label with the largest share, of equals the lowest.
    Contours are drawn anew between the centers of voxels, so that even-odd filling gives the voxels
    of this rule: a hole is joined by a channel of no width where the structure had `CLOSED_PLANAR`
    contours, a contour of its own where it had `CLOSEDPLANAR_XOR`; points and open lines are left
    out. Frames without voxels are left out.

    Args:
        mask: NIfTI label map (.nii, .nii.gz), DICOM segmentation or RT structure set.
        source: the series that it was drawn on, as read from files.
        derived: the series derived from it, as read from files.
        folder: where the new file is written, readable for the user alone; one of its name is
            replaced.
        name: of the new file, without suffix; empty for a hash.
        average: what each derived slice was averaged from; None where it has the place of the
            source slice of its number.
        note: called with each remark on what was left out.

    Returns:
        The new file.

    Raises:
        SeriesError: if the file is no mask, is damaged, holds fractions, or names only images of
            other series; if images of the source share a SOP Instance UID; if the mask is DICOM
            and the series are not.
        GeometryError: if the mask does not lie on the source's grid, nothing of it is left, or the
            two series do not fit together.
        MissingExtraError: if the library that reads it is not installed.
    """
    _refuse_apart(source, derived, average)
    if is_nifti(mask):
        return _carry_labels(mask, source, derived, folder, name, average)
    shown = label(mask)
    if mask.is_file() and not is_dicom(mask):
        raise SeriesError(
            f"{shown}: not a mask file; give NIfTI (.nii, .nii.gz), DICOM SEG or RTSTRUCT"
        )
    dataset = read_dataset(mask, pixels=True)
    carry = {RTSTRUCT: carried_structures}.get(text(dataset, "SOPClassUID"))
    if text(dataset, "SOPClassUID") in SEGMENTATIONS:
        carry = carried_segmentation
    if carry is None:
        raise SeriesError(
            f"{shown}: DICOM that is neither a segmentation nor an RT structure set; "
            "name the mask's own file"
        )
    if not source.headers or not derived.headers:
        raise SeriesError(
            f"{shown}: a DICOM mask refers to DICOM images, and these series are not DICOM; "
            "give the mask as NIfTI"
        )
    with quiet():
        uid, content = carry(shown, dataset, source, derived, average, note)
    path = folder / (_stem(name) or hashlib.sha256(uid.encode()).hexdigest()[:32])
    path = path.with_name(f"{path.name}.dcm")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content, private=True)
    return path


def _stem(name: str) -> str:
    return portable_name(name) if name else ""


def _refuse_apart(source: CTVolume, derived: CTVolume, average: SliceAverage | None) -> None:
    """Refuse two series of which one was not derived from the other as the caller says.

    Raises:
        GeometryError: if their slices differ in size, direction, place or frame of reference.
    """
    ours, theirs = derived.geometry, source.geometry
    refuse_other_frame("the derived series", ours.frame_of_reference, source)
    directions = np.array([ours.row_direction, ours.column_direction])
    turned = np.abs(directions - [theirs.row_direction, theirs.column_direction]).max()
    zoomed = np.abs(np.array(ours.pixel_mm) - theirs.pixel_mm).max()
    if derived.shape[1:] != source.shape[1:] or turned > SAME_DIRECTION or zoomed > SAME_PIXEL_MM:
        raise GeometryError(
            "the derived series: its slices have another matrix, pixel size or direction than the "
            "source's; masks are carried between equal ones, draw this one anew"
        )
    expected = theirs.positions_mm if average is None else _thick_positions(source, average)
    if len(expected) != len(derived):
        raise GeometryError(
            f"the derived series: {len(derived)} slices, expected {len(expected)}; "
            "give the series that was made from this source"
        )
    tolerance = GRID_TOLERANCE_VOXELS * min(*ours.pixel_mm, theirs.spacing_mm or np.inf)
    off_mm = float(np.linalg.norm(ours.positions_mm - expected, axis=1).max())
    if off_mm > tolerance:
        raise GeometryError(
            f"the derived series: a slice lies {off_mm:.2f} mm from where the source has it, "
            f"expected at most {tolerance:.2f}; give the series that was made from this source"
        )


def _thick_positions(source: CTVolume, average: SliceAverage) -> Float[np.ndarray, "thick 3"]:
    """Positions of averaged slices, on the line through those of the source."""
    where = source.geometry
    if max(average.sources(len(average) - 1)) >= len(source):
        raise GeometryError(
            f"the source has {len(source)} slices, and more were averaged; "
            "give the series that the average was planned for"
        )
    along = average.z_mm - where.z_mm[0]
    step = where.affine[:3, 0] / float(where.affine[:3, 0] @ where.normal)
    positions: Float[np.ndarray, "thick 3"] = where.positions_mm[0] + along[:, None] * step
    return positions


def _carry_labels(
    mask: Path,
    source: CTVolume,
    derived: CTVolume,
    folder: Path,
    name: str,
    average: SliceAverage | None,
) -> Path:
    """Copy a label map, or average it."""
    shown = label(mask)
    labels, affine = read_labels(mask, source)
    if not labels.any():
        raise GeometryError(f"{shown}: the mask is empty; check that it was saved")
    laid = labels_on_grid(shown, labels, affine, source)
    uid = uid_of("carried labels", file_sha256(mask), derived.series_uid)
    stem = _stem(name) or hashlib.sha256(uid.encode()).hexdigest()[:32]
    path = folder / f"{stem}{output_suffix(mask)}"
    if average is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, mask.read_bytes(), private=True)
        return path
    thick = np.stack([label_majority(laid, average, i) for i in range(len(average))])
    if not thick.any():
        raise GeometryError(
            f"{shown}: no label fills half of a voxel of slices of {average.thickness_mm:g} mm, so "
            "that none is left; keep the thinner slices"
        )
    _, extensions = read_nifti_header(mask)
    write_label_map(derived.geometry, _smallest(thick), path, private=True, extensions=extensions)
    return path


def _smallest(labels: np.ndarray) -> np.ndarray:
    """Labels in the smallest of the types that all programs read."""
    highest = int(labels.max())
    return labels.astype("u1" if highest < 2**8 else "<i2" if highest < 2**15 else "<i4")
