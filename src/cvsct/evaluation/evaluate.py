"""Compare harmonized series with the target scanner's: what is measured, and on which pixels.

Two modes. *Paired*, where slices of both lie on one grid at one position: image quality and
radiomic concordance, for the harmonized series and for its source. *Unpaired*, where they do not:
texture power spectra and mean soft-tissue HU only, for nothing else compares different bodies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import MaskedRegion
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.volume import CTVolume
from cvsct.evaluation.agreement.concordance import AcrossRegions, across_regions, within_regions
from cvsct.evaluation.features.cache import FeatureCache
from cvsct.evaluation.features.placement import (
    PlacedRegion,
    place_masks,
    place_regions,
    place_slices,
)
from cvsct.evaluation.features.radiomics import FeatureTable, extract, settings_record
from cvsct.evaluation.features.roi import patch_of
from cvsct.evaluation.guards import GuardRecord
from cvsct.evaluation.image.nodule_truth import NoduleTruth
from cvsct.evaluation.image.quality import ImageQuality, image_quality
from cvsct.evaluation.image.texture import Texture, texture_or_reason, tissue_hu
from cvsct.evaluation.physics_measurements import (
    PhysicsMeasurements,
    measure_physics,
    measure_physics_unpaired,
)
from cvsct.evaluation.remarks import Remarks, coverage_notes, region_notes, unused_input_notes
from cvsct.evaluation.settings import EvaluationSettings
from cvsct.evaluation.shared_slices import (
    SharedSlices,
    images_of,
    pair_with_target,
    pairs_to_compare,
    refuse_other_retest,
    with_target,
)
from cvsct.evaluation.spread import Spread

MIN_SPECTRUM_PX = 16


@dataclass(frozen=True)
class Comparison:
    """One set of images against the target: pixels, features in each region, features over them."""

    quality: ImageQuality
    within: dict[str, Spread | None]
    across: AcrossRegions


@dataclass(frozen=True)
class Evaluation:
    """Everything measured.

    Args:
        unpaired_because: why slices could not be compared; empty in paired mode.
        harmonized: against the target; None in unpaired mode.
        input: the source against the target; None in unpaired mode or without a source.
        retest: the target scanned once more against the target, which no method can surpass; None
            without such a scan.
        features: of the regions, by side.
        soft_tissue_hu: mean over each side's own soft tissue.
        scanners: what made each side's images.
        notes: what a reader must know to trust the figures.
        guards: what the model's guards said of each harmonized series, where that is known.
    """

    settings: EvaluationSettings
    unpaired_because: str
    n_slices: int
    shared: tuple[SharedSlices, ...] = field(repr=False)
    regions: tuple[PlacedRegion, ...] = field(repr=False)
    harmonized: Comparison | None = field(repr=False)
    input: Comparison | None = field(repr=False)
    retest: Comparison | None = field(repr=False)
    features: dict[str, FeatureTable] = field(repr=False)
    texture: Texture | None = field(repr=False)
    physics: PhysicsMeasurements = field(repr=False)
    soft_tissue_hu: dict[str, float | None]
    scanners: dict[str, str]
    extraction: dict[str, Any]
    notes: tuple[str, ...]
    guards: tuple[GuardRecord, ...] = ()

    @property
    def compared(self) -> dict[str, Comparison]:
        """What was compared with the target slice by slice, by side."""
        sides = {"source": self.input, "harmonized": self.harmonized, "retest": self.retest}
        return {side: one for side, one in sides.items() if one is not None}

    @property
    def paired(self) -> bool:
        """Whether slices were compared."""
        return self.harmonized is not None

    def summary(self) -> str:
        """The figures that matter in one line, before and after where there is a before."""
        if self.harmonized is None:
            distance = self.texture.distance_db if self.texture else {}
            if not distance:
                return "unpaired: no texture spectra, mean HU of soft tissue only"
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
    retest: Sequence[CTVolume] | None = None,
    masks: Mapping[int, Sequence[MaskedRegion]] | None = None,
    nodules: Sequence[NoduleTruth] = (),
    target_harmonized: Sequence[CTVolume] = (),
    cache: FeatureCache | None = None,
    note: Note = log_note,
    remarks: Sequence[str] = (),
) -> Evaluation:
    """Compare harmonized series, and their source where given, with the target's.

    Args:
        retest: the target's scans made once more; what no method can surpass.
        masks: for `settings.regions` of `masks`, drawn on target series, by number of the series.
        nodules: the truth of simulated bodies.
        target_harmonized: target series put through the model, which should leave them alone.
        cache: of features; None measures all of them.
        note: told at once what a user must know of the comparison, such as why nothing pairs.
        remarks: what was told of these scans before, for the report.

    Raises:
        EvaluationError: if a side is empty, if volumes that should pair do not fit, if the source
            is not what was harmonized, if the retest shows another body, or if there is no soft
            tissue to compare.
    """
    settings = settings or EvaluationSettings()
    if not harmonized or not target:
        raise EvaluationError("nothing to compare: give at least one series on each side")
    tolerance_mm = settings.z_tolerance_mm
    given = {"source": source, "harmonized": harmonized, "retest": retest, "target": target}
    sides = {side: volumes for side, volumes in given.items() if volumes}
    forced = settings.pairing == "forced"
    pairing = pair_with_target(harmonized, target, source, settings)
    pairs = pairing.pairs
    told = Remarks(note, list(remarks))
    told.tell(pairing.notes)
    regions: list[PlacedRegion] = []
    compared: dict[str, Comparison] = {}
    features: dict[str, FeatureTable] = {}
    if pairs:
        shared = with_target(pairs, sides, tolerance_mm, forced)
        if not forced:
            refuse_other_retest(shared)
        told.tell(coverage_notes(harmonized, shared))
        sides = {side: [images_of(one, side) for one in shared] for side in sides}
        notes: list[str] = []
        progress("evaluate: features", 0, 4)
        regions = _place(shared, settings, masks or {})
        told.tell(region_notes(regions, settings, masks or {}))
        if settings.regions == "squares" and len(regions) < settings.rois:
            notes.append(f"soft tissue has room for only {len(regions)} of {settings.rois} regions")
        features = _features(shared, regions, sides, settings, cache)
        notes += [
            f"{len(table.missing)} feature values are undefined in {side}, left out of every mean"
            for side, table in features.items()
            if table.missing
        ]
        progress("evaluate: image quality", 1, 4)
        compared = {
            side: _compare(side, shared, features, settings) for side in sides if side != "target"
        }
        progress("evaluate: physics", 2, 4)
        through = _slices_compared(shared, target_harmonized, settings) if target_harmonized else []
        found = measure_physics(shared, regions, features, nodules, through, settings.seed)
    else:
        note(f"not paired: {pairing.unpaired_because}; texture spectra and mean HU are compared")
        told.tell(unused_input_notes(settings, retest, target_harmonized, nodules))
        shared = [
            SharedSlices(
                harmonized=harmonized[pair.first].select([i for i, _ in pair.slices]),
                target=None,
                source=sides["source"][pair.second].select([j for _, j in pair.slices]),
            )
            for pair in (pairs_to_compare(harmonized, source, tolerance_mm) if source else [])
        ]
        notes = []
        sides.pop("retest", None)
        found = measure_physics_unpaired(shared, target, settings.seed)
    notes += found.notes
    progress("evaluate: texture", 3, 4)
    texture, remark = _texture(sides, settings, bool(pairs))
    notes += remark
    tissue = {side: tissue_hu(volumes) for side, volumes in sides.items()}
    if not pairs and texture is None and None in tissue.values():
        raise EvaluationError(remark[0])
    progress("evaluate: texture", 4, 4)
    return Evaluation(
        settings=settings,
        unpaired_because=pairing.unpaired_because,
        n_slices=sum(len(one.harmonized.hu) for one in shared) if pairs else 0,
        shared=tuple(shared),
        regions=tuple(regions),
        harmonized=compared.get("harmonized"),
        input=compared.get("source"),
        retest=compared.get("retest"),
        features=features,
        texture=texture,
        physics=found,
        soft_tissue_hu=tissue,
        scanners={
            side: "; ".join(sorted({str(volume.acquisition) for volume in volumes}))
            for side, volumes in sides.items()
        },
        extraction=settings_record(settings.bin_width_hu),
        notes=(*told.told, *notes),
    )


def _texture(
    sides: Mapping[str, Sequence[CTVolume]], settings: EvaluationSettings, paired: bool
) -> tuple[Texture | None, list[str]]:
    """Texture spectra, and what is to be known of them.

    Without pairs they are the comparison: smaller patches are taken where larger ones do not fit.
    """
    reasons = []
    sizes = [settings.spectrum_px // k for k in ((1,) if paired else (1, 2, 4))]
    for size_px in (size for size in sizes if size >= MIN_SPECTRUM_PX):
        texture, why_not = texture_or_reason(sides, size_px)
        if texture is not None:
            smaller = size_px < settings.spectrum_px
            remark = f"texture spectra of patches of {size_px} px: no larger ones fit into the body"
            return texture, [remark] if smaller else []
        reasons.append(why_not)
    return None, [f"no texture spectra: {reasons[-1]}"]


def _slices_compared(
    shared: Sequence[SharedSlices],
    target_harmonized: Sequence[CTVolume],
    settings: EvaluationSettings,
) -> list[CTVolume]:
    """Of the series that were put through the model, the slices that are compared."""
    targets = [images_of(one, "target") for one in shared]
    forced = settings.pairing == "forced"
    pairs = pairs_to_compare(targets, target_harmonized, settings.z_tolerance_mm, forced)
    found = {pair.first: pair for pair in pairs}
    lost = [i for i, each in enumerate(targets)
            if i not in found or len(found[i].slices) < len(each.hu)]  # fmt: skip
    if lost:
        raise EvaluationError(
            f"{len(lost)} of {len(targets)} target series were not put through the model, or not "
            "all of their slices; harmonize the target's folder and give the result"
        )
    return [
        target_harmonized[found[i].second].select([j for _, j in found[i].slices])
        for i in range(len(targets))
    ]


def _place(
    shared: Sequence[SharedSlices],
    settings: EvaluationSettings,
    masks: Mapping[int, Sequence[MaskedRegion]],
) -> list[PlacedRegion]:
    if settings.regions == "slices":
        return place_slices(shared)
    if settings.regions == "masks":
        return place_masks(shared, masks)
    return place_regions(shared, settings.rois, settings.roi_px, settings.seed)


def _features(
    shared: Sequence[SharedSlices],
    regions: Sequence[PlacedRegion],
    sides: Iterable[str],
    settings: EvaluationSettings,
    cache: FeatureCache | None,
) -> dict[str, FeatureTable]:
    """Features of the same regions in every side."""
    patches = [
        patch_of(images_of(shared[place.volume], side), place.region)
        for side in sides
        for place in regions
    ]
    table = extract(patches, settings.bin_width_hu, settings.workers, cache)
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
        within=within_regions(features[side], features["target"]),
        across=across_regions(
            features[side], features["target"], settings.bootstrap, settings.seed
        ),
    )
