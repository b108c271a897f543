"""Remarks that a reader needs to trust an evaluation, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cvsct.core.masks import MaskedRegion
from cvsct.core.progress import Note
from cvsct.core.volume import CTVolume
from cvsct.evaluation.features.placement import PlacedRegion
from cvsct.evaluation.image.nodule_truth import NoduleTruth
from cvsct.evaluation.settings import EvaluationSettings
from cvsct.evaluation.shared_slices import SharedSlices


@dataclass
class Remarks:
    """Remarks on an evaluation, each passed on when it is added.

    Args:
        note: called with each remark that is added.
        remarks: all remarks so far.
    """

    note: Note
    remarks: list[str] = field(default_factory=list)

    def add(self, remarks: Iterable[str]) -> None:
        """Add remarks and pass them on."""
        for remark in remarks:
            self.remarks.append(remark)
            self.note(remark)


def coverage_notes(harmonized: Sequence[CTVolume], shared: Sequence[SharedSlices]) -> list[str]:
    """Remark on harmonized slices that are not compared, if there are any."""
    total = sum(len(volume.hu) for volume in harmonized)
    compared = sum(len(slices.harmonized.hu) for slices in shared)
    if compared == total:
        return []
    return [
        f"{total - compared} of {total} harmonized slices have no target slice at their position "
        "and are not compared"
    ]


def region_notes(
    regions: Sequence[PlacedRegion],
    settings: EvaluationSettings,
    masks: Mapping[int, Sequence[MaskedRegion]],
) -> list[str]:
    """Remark on regions of masks that are not measured, if there are any."""
    unmeasured = sum(map(len, masks.values())) - len(regions)
    if settings.regions != "masks" or unmeasured <= 0:
        return []
    return [f"{unmeasured} regions of masks lie on slices that are not compared"]


def unused_input_notes(
    settings: EvaluationSettings,
    retest: Sequence[CTVolume] | None,
    target_harmonized: Sequence[CTVolume],
    nodules: Sequence[NoduleTruth],
) -> list[str]:
    """Remark on inputs that an unpaired evaluation cannot use, if there are any."""
    inputs = {
        "whole slices as regions": settings.regions == "slices",
        "retest": bool(retest),
        "target harmonized": bool(target_harmonized),
        "nodules": bool(nodules),
    }
    unused = [name for name, is_given in inputs.items() if is_given]
    if not unused:
        return []
    return [f"not used, because nothing is paired: {', '.join(unused)}"]
