"""Result of an evaluation: figures of every side, with their summary in one line."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cvsct.core.text import counted
from cvsct.evaluation.agreement.concordance import AcrossRegions
from cvsct.evaluation.features.placement import PlacedRegion
from cvsct.evaluation.features.radiomics import RegionFeatures
from cvsct.evaluation.guards import GuardRecord
from cvsct.evaluation.identity import Identity
from cvsct.evaluation.image.quality import ImageQuality
from cvsct.evaluation.image.texture import Texture
from cvsct.evaluation.independence import Independence
from cvsct.evaluation.physics_measurements import PhysicsMeasurements
from cvsct.evaluation.scorecard.scorecard import scorecard_of
from cvsct.evaluation.scorecard.tile import Scorecard
from cvsct.evaluation.settings import EvaluationSettings
from cvsct.evaluation.shared_slices import SharedSlices
from cvsct.evaluation.spread import Spread
from cvsct.evaluation.told_uncertainty import UncertaintyRecord


@dataclass(frozen=True)
class Comparison:
    """Agreement of one side's images with the target's.

    Args:
        quality: image quality over the slices.
        within: concordance over the features of a class in one region; its spread over regions.
        across: concordance of each feature over the regions.
        across_ibsi: the same of features by IBSI's gray levels; None where they were not measured.
    """

    quality: ImageQuality
    within: dict[str, Spread | None]
    across: AcrossRegions
    across_ibsi: AcrossRegions | None = None


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Args:
        settings: settings that it was made with.
        unpaired_because: why slices could not be compared one by one; empty in paired mode.
        n_slices: number of slices compared; 0 in unpaired mode.
        n_unpaired: number of harmonized series that were left out of a paired comparison.
        shared: slices of every side at the same places.
        regions: regions where features were measured.
        harmonized: agreement of the harmonized images with the target; None in unpaired mode.
        input: agreement of the source with the target; None in unpaired mode or without a source.
        retest: agreement of the target's second scan with the target, which no method can surpass;
            None without such a scan.
        features: features of the regions, by side.
        texture: texture power spectra of each side; None where there is too little soft tissue.
        physics: noise, resolution, CT numbers, positions and nodules.
        soft_tissue_hu: mean over each side's own soft tissue; None where a side has none.
        scanners: acquiring scanners of each side's images.
        extraction: settings and library of the radiomic features.
        notes: remarks that a reader needs to trust the figures.
        guards: findings of the model's guards on each harmonized series, where known.
        uncertainty: standard errors of each harmonized series by tissue, where it was asked for.
        independence: which of the scans the model learned from; None where that is not known.
        wrong_direction: how series were harmonized in the other direction, or that the target is
            of the scanner that they come from, as a sentence without its end; empty where all is
            well.
        doubtful_roles: why series may not be what they are given as, likewise.
        identity: date, command, model and scans; None of an evaluation that was not run by command
            or by `cvsct.evaluate`.
    """

    settings: EvaluationSettings
    unpaired_because: str
    n_slices: int
    shared: tuple[SharedSlices, ...] = field(repr=False)
    regions: tuple[PlacedRegion, ...] = field(repr=False)
    harmonized: Comparison | None = field(repr=False)
    input: Comparison | None = field(repr=False)
    retest: Comparison | None = field(repr=False)
    features: dict[str, RegionFeatures] = field(repr=False)
    texture: Texture | None = field(repr=False)
    physics: PhysicsMeasurements = field(repr=False)
    soft_tissue_hu: dict[str, float | None]
    scanners: dict[str, str]
    extraction: dict[str, Any]
    notes: tuple[str, ...]
    guards: tuple[GuardRecord, ...] = ()
    uncertainty: tuple[UncertaintyRecord, ...] = ()
    independence: Independence | None = None
    wrong_direction: str = ""
    doubtful_roles: str = ""
    n_unpaired: int = 0
    identity: Identity | None = None

    @cached_property
    def scorecard(self) -> Scorecard:
        """Every axis against its tolerance, as strict as the worst."""
        return scorecard_of(self)

    @property
    def examination(self) -> PhysicsMeasurements:
        """Name of `physics` before it was renamed; removed in 0.3.0."""
        warnings.warn("`examination` is called `physics` now", DeprecationWarning, stacklevel=2)
        return self.physics

    @property
    def compared(self) -> dict[str, Comparison]:
        """Agreement with the target of each side that was compared slice by slice."""
        sides = {"source": self.input, "harmonized": self.harmonized, "retest": self.retest}
        return {side: comparison for side, comparison in sides.items() if comparison is not None}

    @property
    def paired(self) -> bool:
        """Whether slices were compared one by one."""
        return self.harmonized is not None

    def summary(self) -> str:
        """Main figures in one line, before and after harmonization where the source is known."""
        if self.harmonized is None:
            distance = self.texture.distance_db if self.texture else {}
            if not distance:
                return "unpaired: no texture spectra, mean HU of soft tissue only"
            distances = [distance.get(side) for side in ("source", "harmonized")]
            shown = _before_and_after(distances, ".1f")
            return f"unpaired: texture spectra {shown} dB from the target's"
        sides = [side for side in (self.input, self.harmonized) if side is not None]
        ccc = _before_and_after([side.across.mean.ccc for side in sides], ".2f")
        psnr = _before_and_after([side.quality.psnr_db.mean for side in sides], ".1f")
        bias = _before_and_after([side.quality.hu_bias for side in sides], "+.1f")
        counts = f"{counted(len(self.regions), 'region')}, {counted(self.n_slices, 'slice')}"
        return f"concordance {ccc}, PSNR {psnr} dB, HU bias {bias} ({counts})"


def _before_and_after(values: Sequence[float | None], spec: str) -> str:
    """The values that are known, in a format, with an arrow between them."""
    known = [format(value, spec) for value in values if value is not None]
    return " -> ".join(known) or "unknown"
