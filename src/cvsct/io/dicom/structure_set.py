"""RT structure sets as masks: which structures are drawn, and what a user must know of them.

Planning systems draw couches that leave the image, contours of two points and structures without
any: sound structures are measured, the others cut or left out, by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from pydicom import Dataset

from cvsct.core.errors import GeometryError, SeriesError
from cvsct.core.progress import Note
from cvsct.core.volume import CTVolume
from cvsct.io.affine import is_other_frame, refuse_other_frame
from cvsct.io.dicom.contours import Canvas, Omission, Structure, add_contour
from cvsct.io.dicom.header import text
from cvsct.io.dicom.references import items, slices_by_name
from cvsct.io.dicom.structure_names import choose, title_of

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"

_MISPLACED = {
    Omission.BETWEEN: "lies in no slice of the image (its contours are between two, or across)",
    Omission.OUTSIDE: "lies outside the image",
    Omission.ELSEWHERE: "lies elsewhere than the images that its contours name",
}


@dataclass(frozen=True)
class DrawnMasks:
    """Masks of one file on the grid of a volume.

    Args:
        masks: of the structures or segments wanted, by title.
        titles: of all structures or segments in the file.
        named: whether the file names images of the volume by SOP Instance UID.
    """

    masks: Mapping[str, Bool[np.ndarray, "_ _ _"]]
    titles: Sequence[str]
    named: bool = False


def contour_masks(
    name: str, dataset: Dataset, volume: CTVolume, patterns: Sequence[str], note: Note
) -> DrawnMasks:
    """Masks of the structures that hold any voxel of the image, by ROI name.

    Args:
        patterns: names or patterns of the structures wanted; empty for all.
        note: told what was cut, left out, or taken although it looked foreign.

    Raises:
        SeriesError: if all that is wanted is damaged.
        GeometryError: if nothing of what is wanted can be measured on this image.
    """
    titles, frames, drawn, unlisted = _listed(dataset)
    wanted, _ = choose(list(titles.values()), patterns)
    if patterns and not wanted:
        return DrawnMasks({}, list(titles.values()))
    canvas = Canvas(volume.shape, np.linalg.inv(volume.affine), slices_by_name(volume))
    structures = {title: Structure() for title in wanted}
    for number, contours in drawn:
        if titles[number] in structures:
            foreign = is_other_frame(frames[number], volume)
            for contour in contours:
                add_contour(structures[titles[number]], contour, canvas, foreign)
    measured = {t: s.mask for t, s in structures.items() if s.mask is not None and s.measured}
    if not measured:
        _refuse(name, structures, frames, unlisted, volume)
    named = any(structure.named for structure in structures.values())
    if not named and not all([volume.geometry.frame_of_reference, *frames.values()]):
        note(f"{name}: no frame of reference to compare, placed by position alone")
    for remark in _remarks(structures, unlisted):
        note(f"{name}: {remark}")
    return DrawnMasks(measured, list(titles.values()), named)


def structure_titles(dataset: Dataset) -> dict[str, str]:
    """Title of each structure by its ROI Number, as `contour_masks` gives them."""
    return _listed(dataset)[0]


def _listed(
    dataset: Dataset,
) -> tuple[dict[str, str], dict[str, str], list[tuple[str, Sequence[Dataset]]], int]:
    """Title and frame of reference by ROI number, contours of each ROI, contours of no ROI."""
    titles: dict[str, str] = {}
    frames: dict[str, str] = {}
    for roi in items(dataset, "StructureSetROISequence"):
        number = text(roi, "ROINumber")
        titles[number] = title_of(text(roi, "ROIName"), number, titles.values())
        frames[number] = text(roi, "ReferencedFrameOfReferenceUID")
    drawn = []
    unlisted = 0
    for roi in items(dataset, "ROIContourSequence"):
        number, contours = text(roi, "ReferencedROINumber"), items(roi, "ContourSequence")
        if number in titles:
            drawn.append((number, contours))
        else:
            unlisted += len(contours)
    return titles, frames, drawn, unlisted


def _remarks(structures: Mapping[str, Structure], unlisted: int) -> list[str]:
    """Remarks on structures that were not measured as they were drawn."""
    remarks = []
    by_name = [t for t, s in structures.items() if s.measured and s.taken_by_name]
    if by_name:
        remarks.append(
            "drawn in another frame of reference, taken because contours name images of this "
            f"series at their place: {_quoted(by_name)}"
        )
    cut = [f"{t!r} ({s.cut} of {s.contours} contours)" for t, s in structures.items() if s.cut]
    if cut:
        remarks.append(f"cut to the image: {', '.join(cut)}")
    for omission in Omission:
        lost = [
            f"{t!r} ({s.omissions[omission]} of {s.contours})"
            for t, s in structures.items()
            if s.measured and s.omissions[omission]
        ]
        if lost:
            remarks.append(f"left out contours that {omission.value}: {', '.join(lost)}")
    gone = [f"{t!r} ({_why_not(s)})" for t, s in structures.items() if not s.measured]
    if gone:
        remarks.append(f"left out structures: {', '.join(gone)}")
    misnamed = [f"{t!r} ({s.misnamed})" for t, s in structures.items() if s.misnamed]
    if misnamed:
        remarks.append(
            "contours that name another image of the series than the one at their place; their "
            f"place counts: {', '.join(misnamed)}"
        )
    if unlisted:
        remarks.append(f"left out {unlisted} contours of an ROI that it does not list")
    return remarks


def _why_not(structure: Structure) -> str:
    if not structure.omissions:
        return "without contours" if not structure.contours else "its contours cancel out"
    omission, count = structure.omissions.most_common(1)[0]
    number = "all" if count == structure.contours else str(count)
    return f"{number} of {structure.contours} contours {omission.value}"


def _quoted(titles: Sequence[str]) -> str:
    return ", ".join(map(repr, titles))


def _refuse(
    name: str,
    structures: Mapping[str, Structure],
    frames: Mapping[str, str],
    unlisted: int,
    volume: CTVolume,
) -> None:
    """Refuse a file of which nothing can be measured, by the commonest fault of its contours.

    Raises:
        SeriesError, GeometryError: always.
    """
    omissions = sum((structure.omissions for structure in structures.values()), Counter[Omission]())
    subject = f"structure {next(iter(structures))!r}" if len(structures) == 1 else "every structure"
    omission = omissions.most_common(1)[0][0] if omissions else None
    if omission is None and unlisted:
        raise SeriesError(f"{name}: contours of an ROI that it does not list; save it again")
    if omission is Omission.FOREIGN:
        for frame in frames.values():
            refuse_other_frame(name, frame, volume)
    if omission is Omission.DAMAGED:
        raise SeriesError(f"{name}: the contours of {subject} {omission.value}; save it again")
    if omission in _MISPLACED:
        raise GeometryError(f"{name}: {subject} {_MISPLACED[omission]}; draw it on this series")
    raise GeometryError(
        f"{name}: the mask is empty ({_why_not_any(structures)}); check that it was saved"
    )


def _why_not_any(structures: Mapping[str, Structure]) -> str:
    reasons = list(dict.fromkeys(_why_not(structure) for structure in structures.values()))
    return "; ".join(reasons[:3]) or "no structures"
