"""Example slices of a report: evenly spaced ones, flagged ones, and those that differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cvsct.core.sampling import spread
from cvsct.evaluation.guards import GuardRecord
from cvsct.evaluation.image.quality import residual_hu
from cvsct.evaluation.result import Evaluation
from cvsct.evaluation.shared_slices import SharedSlices

MAX_FLAGGED = 4
"""Maximum number of flagged slices that are shown, evenly spaced over all that are flagged."""

WORST = 2
"""Number of slices of the largest difference that are shown."""


@dataclass(frozen=True, eq=False)
class Example:
    """A slice that the report shows, with the reasons for showing it.

    Args:
        shared: slices of every side.
        index: number of the slice among them.
        flagged: the limits that it exceeded, where a guard flagged it; else empty.
        largest: mean absolute difference in HU, where it is among the largest; else None.
    """

    shared: SharedSlices = field(repr=False)
    index: int
    flagged: str = ""
    largest: float | None = None

    @property
    def name(self) -> str:
        """Position of the slice."""
        return f"z = {self.shared.harmonized.geometry.z_mm[self.index]:.1f} mm"

    @property
    def reasons(self) -> dict[str, str]:
        """Why it is shown, as sentences without their ends, by the kind of reason."""
        against = "from the target" if self.shared.target is not None else "from the input"
        reasons = {}
        if self.flagged:
            reasons["flagged"] = f"flagged: {self.flagged}"
        if self.largest is not None:
            reasons["largest"] = f"largest difference {against}: mean {self.largest:.1f} HU"
        return reasons or {"spaced": "evenly spaced"}


def example_slices(evaluation: Evaluation) -> list[Example]:
    """Slices to show, in the order of their positions; none where the settings ask for none."""
    wanted = evaluation.settings.examples
    slices = [(shared, i) for shared in evaluation.shared for i in range(len(shared.harmonized.hu))]
    if not wanted or not slices:
        return []
    flagged = _flagged(slices, evaluation.guards)
    differences = mean_differences(evaluation.shared)
    worst = [i for i in np.argsort(-differences)[:WORST] if np.isfinite(differences[i])]
    flagged_numbers = sorted(flagged)
    chosen = {
        *spread(len(slices), wanted),
        *(flagged_numbers[i] for i in spread(len(flagged), MAX_FLAGGED) if flagged),
        *map(int, worst),
    }
    return [
        Example(*slices[i], flagged.get(i, ""), float(differences[i]) if i in worst else None)
        for i in sorted(chosen)
    ]


def mean_differences(shared: Sequence[SharedSlices]) -> np.ndarray:
    """Mean absolute difference of each harmonized slice from the target, in HU.

    Without a target it is the difference from the source, and without that NaN.
    """
    means: list[float] = []
    for slices in shared:
        reference = slices.target if slices.target is not None else slices.source
        for i, hu in enumerate(slices.harmonized.hu):
            difference = np.nan if reference is None else residual_hu(hu, reference.hu[i])
            means.append(float(np.abs(difference).mean()))
    return np.array(means)


def _flagged(
    slices: Sequence[tuple[SharedSlices, int]], guards: Sequence[GuardRecord]
) -> Mapping[int, str]:
    """Limits that slices exceeded, by their number; they are found by series and position."""
    found = {}
    for number, (shared, index) in enumerate(slices):
        volume = shared.harmonized
        z_mm, near_mm = volume.geometry.z_mm[index], max(0.05, volume.geometry.spacing_mm / 4)
        for record in guards:
            other = record.series_uid and volume.series_uid not in ("", record.series_uid)
            for flag in () if other else record.flagged:
                if abs(flag.z_mm - z_mm) <= near_mm:
                    found[number] = flag.why
    return found
