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

from cvsct.errors import GeometryError, SeriesError
from cvsct.io.contours import Canvas, Fate, Structure, add_contour
from cvsct.io.header import text
from cvsct.io.references import items, slices_by_name
from cvsct.io.space import is_other_frame, refuse_other_frame, volume_affine
from cvsct.io.structure_names import choose, title_of
from cvsct.runs import Note
from cvsct.volume import CTVolume

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"

_MISPLACED = {
    Fate.BETWEEN: "lies in no slice of the image (its contours are between two, or across)",
    Fate.OUTSIDE: "lies outside the image",
    Fate.ELSEWHERE: "lies elsewhere than the images that its contours name",
}


@dataclass(frozen=True)
class Drawn:
    """Masks that a file holds.

    Args:
        masks: by the names of structures or segments; of those wanted.
        titles: of all that it lists.
        named: whether it names images of the volume by SOP Instance UID.
    """

    masks: Mapping[str, Bool[np.ndarray, "_ _ _"]]
    titles: Sequence[str]
    named: bool = False


def contour_masks(
    name: str, dataset: Dataset, volume: CTVolume, patterns: Sequence[str], note: Note
) -> Drawn:
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
        return Drawn({}, list(titles.values()))
    canvas = Canvas(volume.shape, np.linalg.inv(volume_affine(volume)), slices_by_name(volume))
    structures = {title: Structure() for title in wanted}
    for number, contours in drawn:
        if titles[number] in structures:
            foreign = is_other_frame(frames[number], volume)
            for contour in contours:
                add_contour(structures[titles[number]], contour, canvas, foreign)
    measured = {t: s.mask for t, s in structures.items() if s.mask is not None and s.measured}
    if not measured:
        _refuse(name, structures, frames, unlisted, volume)
    named = any(one.named for one in structures.values())
    if not named and not all([volume.geometry.frame_of_reference, *frames.values()]):
        note(f"{name}: no frame of reference to compare, placed by position alone")
    for remark in _remarks(structures, unlisted):
        note(f"{name}: {remark}")
    return Drawn(measured, list(titles.values()), named)


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
    for each in items(dataset, "ROIContourSequence"):
        number, contours = text(each, "ReferencedROINumber"), items(each, "ContourSequence")
        if number in titles:
            drawn.append((number, contours))
        else:
            unlisted += len(contours)
    return titles, frames, drawn, unlisted


def _remarks(structures: Mapping[str, Structure], unlisted: int) -> list[str]:
    """What a user must know of structures that were not measured as they were drawn."""
    found = []
    by_name = [t for t, s in structures.items() if s.measured and s.taken_by_name]
    if by_name:
        found.append(
            "drawn in another frame of reference, taken because contours name images of this "
            f"series at their place: {_quoted(by_name)}"
        )
    cut = [f"{t!r} ({s.cut} of {s.contours} contours)" for t, s in structures.items() if s.cut]
    if cut:
        found.append(f"cut to the image: {', '.join(cut)}")
    for fate in Fate:
        lost = [
            f"{t!r} ({s.fates[fate]} of {s.contours})"
            for t, s in structures.items()
            if s.measured and s.fates[fate]
        ]
        if lost:
            found.append(f"left out contours that {fate.value}: {', '.join(lost)}")
    gone = [f"{t!r} ({_why_not(s)})" for t, s in structures.items() if not s.measured]
    if gone:
        found.append(f"left out structures: {', '.join(gone)}")
    misnamed = [f"{t!r} ({s.misnamed})" for t, s in structures.items() if s.misnamed]
    if misnamed:
        found.append(
            "contours that name another image of the series than the one at their place; their "
            f"place counts: {', '.join(misnamed)}"
        )
    if unlisted:
        found.append(f"left out {unlisted} contours of an ROI that it does not list")
    return found


def _why_not(structure: Structure) -> str:
    if not structure.fates:
        return "without contours" if not structure.contours else "its contours cancel out"
    fate, count = structure.fates.most_common(1)[0]
    number = "all" if count == structure.contours else str(count)
    return f"{number} of {structure.contours} contours {fate.value}"


def _quoted(titles: Sequence[str]) -> str:
    return ", ".join(map(repr, titles))


def _refuse(
    name: str,
    structures: Mapping[str, Structure],
    frames: Mapping[str, str],
    unlisted: int,
    volume: CTVolume,
) -> None:
    """Say why nothing could be measured, by what is wrong with most contours.

    Raises:
        SeriesError, GeometryError: always.
    """
    fates = sum((one.fates for one in structures.values()), Counter[Fate]())
    told = f"structure {next(iter(structures))!r}" if len(structures) == 1 else "every structure"
    fate = fates.most_common(1)[0][0] if fates else None
    if fate is None and unlisted:
        raise SeriesError(f"{name}: contours of an ROI that it does not list; save it again")
    if fate is Fate.FOREIGN:
        for frame in frames.values():
            refuse_other_frame(name, frame, volume)
    if fate is Fate.DAMAGED:
        raise SeriesError(f"{name}: the contours of {told} {fate.value}; save it again")
    if fate in _MISPLACED:
        raise GeometryError(f"{name}: {told} {_MISPLACED[fate]}; draw it on this series")
    raise GeometryError(
        f"{name}: the mask is empty ({_why_not_any(structures)}); check that it was saved"
    )


def _why_not_any(structures: Mapping[str, Structure]) -> str:
    reasons = list(dict.fromkeys(_why_not(one) for one in structures.values()))
    return "; ".join(reasons[:3]) or "no structures"
