"""Compare harmonised series with the target scanner's: what is measured, and on which pixels.

Two modes. *Paired*, where slices of both lie on one grid at one position: image quality and
radiomic concordance, for the harmonised series and for its source. *Unpaired*, where they do not:
texture power spectra and mean soft-tissue HU only, for nothing else compares different bodies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cvsct.errors import EvaluationError
from cvsct.evaluation.concordance import Across, across, within
from cvsct.evaluation.metrics import ImageQuality, Spread, image_quality
from cvsct.evaluation.pairing import (
    Z_TOLERANCE_MM,
    SharedSlices,
    images_of,
    pair_volumes,
    unpaired_reason,
    with_target,
)
from cvsct.evaluation.placement import Placed, place_regions
from cvsct.evaluation.radiomics import (
    BIN_WIDTH_HU,
    FeatureTable,
    Patch,
    extract,
    settings_record,
)
from cvsct.evaluation.texture import Texture, texture_or_reason, tissue_hu
from cvsct.runs import Progress, silent
from cvsct.volume import CTVolume, HUWindow


class EvaluationSettings(BaseModel):
    """Everything that shapes an evaluation's figures.

    Args:
        rois: soft-tissue regions whose features are compared.
        roi_px: their side.
        seed: places the regions and draws the bootstrap.
        bootstrap: resamples behind each interval.
        workers: processes that measure features, at most; 0 is one a core.
        z_tolerance_mm: how far apart slices may lie and still be the same.
        spectrum_px: side of the patches of the power spectra.
        examples: slices shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rois: int = Field(default=24, ge=1)
    roi_px: int = Field(default=32, ge=8)
    seed: int = Field(default=0, ge=0)
    bin_width_hu: float = Field(default=BIN_WIDTH_HU, gt=0)
    window: HUWindow = HUWindow()
    bootstrap: int = Field(default=1000, ge=1)
    workers: int = Field(default=0, ge=0)
    z_tolerance_mm: float = Field(default=Z_TOLERANCE_MM, gt=0)
    spectrum_px: int = Field(default=64, ge=16)
    examples: int = Field(default=2, ge=0)


@dataclass(frozen=True)
class Comparison:
    """One set of images against the target: pixels, features in each region, features over them."""

    quality: ImageQuality
    within: dict[str, Spread | None]
    across: Across


@dataclass(frozen=True)
class Evaluation:
    """Everything measured.

    Args:
        unpaired_because: why slices could not be compared; empty in paired mode.
        harmonized: against the target; None in unpaired mode.
        input: the source against the target; None in unpaired mode or without a source.
        features: of the regions, by side.
        soft_tissue_hu: mean over each side's own soft tissue.
        scanners: what made each side's images.
        notes: what a reader must know to trust the figures.
    """

    settings: EvaluationSettings
    unpaired_because: str
    n_slices: int
    shared: tuple[SharedSlices, ...] = field(repr=False)
    regions: tuple[Placed, ...] = field(repr=False)
    harmonized: Comparison | None = field(repr=False)
    input: Comparison | None = field(repr=False)
    features: dict[str, FeatureTable] = field(repr=False)
    texture: Texture | None = field(repr=False)
    soft_tissue_hu: dict[str, float | None]
    scanners: dict[str, str]
    extraction: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def paired(self) -> bool:
        """Whether slices were compared."""
        return self.harmonized is not None

    def summary(self) -> str:
        """The figures that matter in one line, before and after where there is a before."""
        if self.harmonized is None:
            distance = self.texture.distance_db if self.texture else {}
            shown = _arrow([distance.get(side) for side in ("source", "harmonized")], ".1f")
            return f"unpaired: texture spectra {shown} dB from the target's"
        sides = [one for one in (self.input, self.harmonized) if one is not None]
        ccc = _arrow([one.across.mean.ccc for one in sides], ".2f")
        psnr = _arrow([one.quality.psnr_db.mean for one in sides], ".1f")
        bias = _arrow([one.quality.hu_bias for one in sides], "+.1f")
        counts = f"{len(self.regions)} regions, {self.n_slices} slices"
        return f"concordance {ccc}, PSNR {psnr} dB, HU bias {bias} ({counts})"


def _arrow(values: Sequence[float | None], digits: str) -> str:
    shown = [format(value, digits) for value in values if value is not None]
    return " -> ".join(shown) or "unknown"


def evaluate(
    harmonized: Sequence[CTVolume],
    target: Sequence[CTVolume],
    source: Sequence[CTVolume] | None = None,
    settings: EvaluationSettings | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Compare harmonised series, and their source where given, with the target's.

    Raises:
        EvaluationError: if a side is empty, if volumes that should pair do not fit, if the source
            is not what was harmonised, or if there is no soft tissue to compare.
    """
    settings = settings or EvaluationSettings()
    if not harmonized or not target:
        raise EvaluationError("nothing to compare: give at least one series on each side")
    tolerance_mm = settings.z_tolerance_mm
    sides: dict[str, Sequence[CTVolume]] = {"harmonized": harmonized, "target": target}
    if source:
        sides = {"source": source} | sides
    pairs = pair_volumes(harmonized, target, tolerance_mm)
    from_source = pair_volumes(harmonized, source, tolerance_mm) if source else []
    regions: list[Placed] = []
    compared: dict[str, Comparison] = {}
    features: dict[str, FeatureTable] = {}
    if pairs:
        shared = with_target(pairs, from_source, sides)
        sides = {side: [images_of(one, side) for one in shared] for side in sides}
        notes = _coverage_notes(harmonized, shared)
        progress("evaluate: features", 0, 3)
        regions = place_regions(shared, settings.rois, settings.roi_px, settings.seed)
        if len(regions) < settings.rois:
            notes.append(f"soft tissue has room for only {len(regions)} of {settings.rois} regions")
        features = _features(shared, regions, sides, settings)
        notes += [
            f"{len(table.missing)} feature values are undefined in {side}, left out of every mean"
            for side, table in features.items()
            if table.missing
        ]
        progress("evaluate: image quality", 1, 3)
        compared = {
            side: _compare(side, shared, features, settings) for side in sides if side != "target"
        }
    else:
        shared = [
            SharedSlices(
                harmonized=harmonized[pair.first].select([i for i, _ in pair.slices]),
                target=None,
                source=sides["source"][pair.second].select([j for _, j in pair.slices]),
            )
            for pair in from_source
        ]
        notes = []
    progress("evaluate: texture", 2, 3)
    texture, why_not = texture_or_reason(sides, settings.spectrum_px)
    if why_not and not pairs:
        raise EvaluationError(why_not)
    notes += [f"no texture spectra: {why_not}"] if why_not else []
    progress("evaluate: texture", 3, 3)
    return Evaluation(
        settings=settings,
        unpaired_because="" if pairs else unpaired_reason(harmonized, target, tolerance_mm),
        n_slices=sum(len(one.harmonized.hu) for one in shared) if pairs else 0,
        shared=tuple(shared),
        regions=tuple(regions),
        harmonized=compared.get("harmonized"),
        input=compared.get("source"),
        features=features,
        texture=texture,
        soft_tissue_hu={side: tissue_hu(volumes) for side, volumes in sides.items()},
        scanners={
            side: "; ".join(sorted({str(volume.acquisition) for volume in volumes}))
            for side, volumes in sides.items()
        },
        extraction=settings_record(settings.bin_width_hu),
        notes=tuple(notes),
    )


def _coverage_notes(harmonized: Sequence[CTVolume], shared: Sequence[SharedSlices]) -> list[str]:
    """Say which slices were not compared, and which were only assumed to show one body."""
    total = sum(len(volume.hu) for volume in harmonized)
    used = sum(len(one.harmonized.hu) for one in shared)
    notes = []
    if used < total:
        notes.append(f"{total - used} of {total} harmonised slices have no target slice there")
    frames = [
        volume.geometry.frame_of_reference
        for one in shared
        for volume in (one.harmonized, one.target)
        if volume is not None
    ]
    if not all(frames):
        notes.append(
            "some series name no frame of reference: slices were paired by position alone, which "
            "holds only if both sides show the same body"
        )
    return notes


def _features(
    shared: Sequence[SharedSlices],
    regions: Sequence[Placed],
    sides: Iterable[str],
    settings: EvaluationSettings,
) -> dict[str, FeatureTable]:
    """Features of the same regions in every side."""
    patches = []
    for side in sides:
        for place in regions:
            volume = images_of(shared[place.volume], side)
            thickness_mm = volume.geometry.thickness_mm or volume.geometry.spacing_mm
            patches.append(
                Patch(place.region.cut(volume.hu), (thickness_mm, *volume.geometry.pixel_mm))
            )
    table = extract(patches, settings.bin_width_hu, settings.workers)
    n = len(regions)
    return {side: table.rows(i * n, (i + 1) * n) for i, side in enumerate(sides)}


def _compare(
    side: str,
    shared: Sequence[SharedSlices],
    features: Mapping[str, FeatureTable],
    settings: EvaluationSettings,
) -> Comparison:
    pairs = [
        (image, reference)
        for one in shared
        for image, reference in zip(
            images_of(one, side).hu, images_of(one, "target").hu, strict=True
        )
    ]
    return Comparison(
        quality=image_quality(pairs, settings.window),
        within=within(features[side], features["target"]),
        across=across(features[side], features["target"], settings.bootstrap, settings.seed),
    )
