"""What a reader must know of a comparison: on the terminal while it runs, and in the report."""

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
    """Remarks told so far.

    Args:
        note: told each of them at once.
    """

    note: Note
    told: list[str] = field(default_factory=list)

    def tell(self, messages: Iterable[str]) -> None:
        """Tell some more."""
        for message in messages:
            self.told.append(message)
            self.note(message)


def coverage_notes(harmonized: Sequence[CTVolume], shared: Sequence[SharedSlices]) -> list[str]:
    """Say which slices were not compared."""
    total = sum(len(volume.hu) for volume in harmonized)
    used = sum(len(one.harmonized.hu) for one in shared)
    notes = []
    if used < total:
        notes.append(f"{total - used} of {total} harmonized slices have no target slice there")
    return notes


def region_notes(
    regions: Sequence[PlacedRegion],
    settings: EvaluationSettings,
    masks: Mapping[int, Sequence[MaskedRegion]],
) -> list[str]:
    """Say which masks are not measured."""
    lost = sum(map(len, masks.values())) - len(regions)
    if settings.regions != "masks" or lost <= 0:
        return []
    return [f"{lost} regions of masks lie on slices that are not compared"]


def unused_input_notes(
    settings: EvaluationSettings,
    retest: Sequence[CTVolume] | None,
    target_harmonized: Sequence[CTVolume],
    nodules: Sequence[NoduleTruth],
) -> list[str]:
    """Say which of the things given are of no use where nothing is paired."""
    given = {
        "masks": settings.regions == "masks",
        "whole slices as regions": settings.regions == "slices",
        "retest": bool(retest),
        "target harmonized": bool(target_harmonized),
        "nodules": bool(nodules),
    }
    idle = [name for name, there in given.items() if there]
    if not idle:
        return []
    return [f"of no use where nothing is paired, and left out: {', '.join(idle)}"]
