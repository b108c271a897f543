"""Lung densitometry: the share of low attenuation, the 15th percentile and the mean density.

LAA-950 is the percentage of lung voxels below -950 HU (Gevenois et al., Am J Respir Crit Care Med
1996), Perc15 the CT number below which 15 % of them lie (Dirksen et al., Am J Respir Crit Care Med
1999). Both are taken from the voxels as they are, so that noise and kernel change them: that change
is what harmonization should remove. `lungs` finds the voxels on a smoothed image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cvsct.core.errors import EvaluationError
from cvsct.core.sampling import spread
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.lungs import lung_mask

LAA_HU = -950.0
"""CT number below which attenuation is low."""

PERCENTILE = 15.0
"""Percentile of the CT numbers of the lungs."""

SLICES = 24
"""Number of slices of a series that an evaluation measures, evenly spaced."""


@dataclass(frozen=True)
class LungDensity:
    """Density of the lungs in one series.

    Args:
        laa950_percent: percentage of voxels below `LAA_HU`; None without lung, as the next two.
        perc15_hu: 15th percentile of the CT numbers.
        mean_hu: mean lung density.
        n_voxels: number of lung voxels.
        n_slices: number of slices in which lungs were looked for.
        thickness_mm: slice thickness, on which all three depend; 0 where it is unknown.
        why_none: why there are no figures; empty where there are.
    """

    laa950_percent: float | None
    perc15_hu: float | None
    mean_hu: float | None
    n_voxels: int
    n_slices: int
    thickness_mm: float
    why_none: str = ""

    @classmethod
    def of(
        cls,
        volume: CTVolume,
        mask: Bool[np.ndarray, "slices rows columns"],
        why_none: str = "",
    ) -> LungDensity:
        """Density of the voxels of a mask.

        Args:
            volume: the images.
            mask: the lungs.
            why_none: why the mask is empty.

        Raises:
            EvaluationError: if the mask has another shape than the volume.
        """
        if mask.shape != volume.hu.shape:
            raise EvaluationError(
                f"a lung mask of {mask.shape} does not fit a volume of {volume.hu.shape}; make it "
                "from a volume of the same grid"
            )
        hu: Float[np.ndarray, " n"] = volume.hu[mask].astype(np.float64)
        known = len(hu) > 0
        return cls(
            laa950_percent=100 * float(np.mean(hu < LAA_HU)) if known else None,
            perc15_hu=float(np.percentile(hu, PERCENTILE)) if known else None,
            mean_hu=float(hu.mean()) if known else None,
            n_voxels=len(hu),
            n_slices=len(mask),
            thickness_mm=volume.geometry.thickness_mm,
            why_none="" if known else why_none or "the lung mask is empty",
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def lung_density(volume: CTVolume, slices: int | None = None) -> LungDensity:
    """Measure the density of a volume's lungs, in a mask of its own.

    Args:
        volume: the images.
        slices: largest number of slices to measure, evenly spaced; None for all.

    Example:
        >>> density = lung_density(CTVolume.from_array(np.full((2, 64, 64), 40.0), (5.0, 1.0, 1.0)))
        >>> density.why_none
        '0 cm² of lung in 2 slices, too little to measure'
    """
    if slices is not None and len(volume.hu) > slices:
        volume = volume.select(spread(len(volume.hu), slices))
    lungs = lung_mask(volume)
    return LungDensity.of(volume, lungs.mask, lungs.why_none)


@dataclass(frozen=True)
class Densitometry:
    """Lung density of one side of an evaluation: means over its series.

    Args:
        series: density of each series.
        difference: mean absolute difference of each figure from the target's series; empty for the
            target, and where sides show different bodies.
    """

    series: tuple[LungDensity, ...] = field(repr=False)
    difference: Mapping[str, float] = field(default_factory=dict)

    def mean(self, figure: str) -> float | None:
        """Mean of a figure over the series with lungs; None where none has any."""
        values = [
            value for density in self.series if (value := getattr(density, figure)) is not None
        ]
        return float(np.mean(values)) if values else None

    @property
    def why_none(self) -> str:
        """Why no series has figures; empty where one has."""
        reasons = [density.why_none for density in self.series]
        return reasons[0] if reasons and all(reasons) else ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **{figure: self.mean(figure) for figure in FIGURES},
            "not_applicable": self.why_none or None,
            "n_series": sum(not density.why_none for density in self.series),
            "difference": dict(self.difference),
            "series": [density.to_json() for density in self.series],
        }


FIGURES = ("laa950_percent", "perc15_hu", "mean_hu")
"""Figures of a series, of which a side has the means."""


def densitometry(
    sides: Mapping[str, Sequence[CTVolume]], paired: bool, slices: int = SLICES
) -> dict[str, Densitometry]:
    """Measure the lung density of each side.

    Args:
        sides: volumes by side, with `target`.
        paired: whether volume i of every side shows the same slices. Then the target's mask serves
            all sides, so that they differ in CT numbers alone; otherwise each volume has its own.
        slices: largest number of slices of a series, evenly spaced.

    Raises:
        EvaluationError: if paired volumes differ in shape.
    """
    if not paired:
        return {
            side: Densitometry(tuple(lung_density(volume, slices) for volume in volumes))
            for side, volumes in sides.items()
        }
    measured: dict[str, list[LungDensity]] = {side: [] for side in sides}
    for number, target in enumerate(sides["target"]):
        chosen = spread(len(target.hu), slices)
        lungs = lung_mask(target.select(chosen))
        for side, volumes in sides.items():
            sampled = volumes[number].select(chosen)
            measured[side].append(LungDensity.of(sampled, lungs.mask, lungs.why_none))
    return {
        side: Densitometry(
            tuple(densities),
            _differences(densities, measured["target"]) if side != "target" else {},
        )
        for side, densities in measured.items()
    }


def _differences(
    densities: Sequence[LungDensity], targets: Sequence[LungDensity]
) -> dict[str, float]:
    """Mean absolute difference from the target's series, by figure."""
    pairs = [
        (density, target)
        for density, target in zip(densities, targets, strict=True)
        if not density.why_none
    ]
    if not pairs:
        return {}
    return {
        figure: float(np.mean([abs(getattr(a, figure) - getattr(b, figure)) for a, b in pairs]))
        for figure in FIGURES
    }
