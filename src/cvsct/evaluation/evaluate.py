"""Evaluation of harmonized series against the target scanner's: what is measured on which pixels.

There are two modes. A *paired* evaluation compares slices of one body on one grid at one position:
image quality and radiomic concordance, for the harmonized series and for its source. An *unpaired*
evaluation compares different bodies: their texture power spectra, noise, edges and mean HU of soft
tissue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import MaskedRegion
from cvsct.core.platform import cores
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.volume import CTVolume
from cvsct.core.workers import threads
from cvsct.evaluation.agreement.concordance import AcrossRegions, across_regions, within_regions
from cvsct.evaluation.features.cache import FeatureCache
from cvsct.evaluation.features.ibsi import Binning
from cvsct.evaluation.features.placement import (
    PlacedRegion,
    place_masks,
    place_regions,
    place_slices,
)
from cvsct.evaluation.features.radiomics import RegionFeatures, extract, settings_record
from cvsct.evaluation.features.roi import patch_of
from cvsct.evaluation.image.nodule_truth import NoduleTruth
from cvsct.evaluation.image.quality import image_qualities
from cvsct.evaluation.image.texture import Texture, TissueSample, texture_of_samples
from cvsct.evaluation.image.tissues import TissueMap
from cvsct.evaluation.physics_measurements import (
    measure_physics,
    measure_physics_unpaired,
)
from cvsct.evaluation.remarks import Remarks, coverage_notes, region_notes, unused_input_notes
from cvsct.evaluation.result import Comparison, Evaluation
from cvsct.evaluation.settings import EvaluationSettings
from cvsct.evaluation.shared_slices import (
    SharedSlices,
    images_of,
    pair_with_target,
    pairs_to_compare,
    refuse_other_retest,
    with_target,
)

MIN_SPECTRUM_PX = 16
"""Smallest side of the patches of an unpaired evaluation's texture spectra."""


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

    `cvsct.evaluate` is the public function; it reads the scans and writes the report.

    Args:
        harmonized: harmonized series.
        target: series of the target scanner.
        source: series before they were harmonized.
        settings: settings; None for the default ones.
        progress: called with `(task, done, total)` as the work proceeds.
        retest: the target scanned a second time. No method can agree better with the target.
        masks: regions drawn on target series, by the number of the series; used where
            `settings.regions` is `masks`.
        nodules: true nodules of simulated bodies.
        target_harmonized: target series put through the model, which should leave them unchanged.
        cache: cache of features; None measures all of them.
        note: called at once with each remark on the comparison, such as why nothing pairs.
        remarks: earlier remarks on these scans, for the report.

    Raises:
        EvaluationError: if a side is empty, if volumes that should pair do not fit, if the source
            is not what was harmonized, if the retest shows another body, or if there is no soft
            tissue to compare.
        MissingExtraError: if the extra `evaluate` is not installed.
    """
    settings = settings or EvaluationSettings()
    if not harmonized or not target:
        raise EvaluationError(
            f"nothing to compare: {len(harmonized)} harmonized and {len(target)} target series; "
            "give at least one series of each"
        )
    tolerance_mm, workers = settings.z_tolerance_mm, settings.workers or cores()
    sides = {
        side: volumes
        for side, volumes in {
            "source": source, "harmonized": harmonized, "retest": retest, "target": target
        }.items()
        if volumes
    }  # fmt: skip
    forced = settings.pairing == "forced"
    pairing = pair_with_target(harmonized, target, source, settings)
    pairs = pairing.pairs
    all_remarks = Remarks(note, [*remarks])
    all_remarks.add(pairing.notes)
    notes: list[str] = []
    regions: list[PlacedRegion] = []
    maps: list[TissueMap] = []
    compared: dict[str, Comparison] = {}
    features: dict[str, RegionFeatures] = {}
    if pairs:
        shared = with_target(pairs, sides, tolerance_mm, forced)
        if not forced:
            refuse_other_retest(shared)
        all_remarks.add(coverage_notes(harmonized, shared))
        sides = {side: [images_of(slices, side) for slices in shared] for side in sides}
        progress("evaluate: features", 0, 4)
        maps = _tissue_maps(shared, workers)
        regions = _place_regions(shared, maps, settings, masks or {})
        all_remarks.add(region_notes(regions, settings, masks or {}))
        if settings.regions == "squares" and len(regions) < settings.rois:
            notes.append(f"soft tissue has room for only {len(regions)} of {settings.rois} regions")
        features = _features(shared, regions, sides, settings, cache)
        notes += [
            f"{len(table.missing)} feature values are undefined in {side}, left out of every mean"
            for side, table in features.items()
            if table.missing
        ]
        progress("evaluate: image quality", 1, 4)
        features_ibsi = (
            _features(shared, regions, sides, settings, cache, "ibsi") if settings.ibsi else {}
        )
        compared = _compare(shared, maps, features, features_ibsi, settings)
        progress("evaluate: physics", 2, 4)
        target_slices = (
            _harmonized_target_slices(shared, target_harmonized, settings)
            if target_harmonized
            else []
        )
        physics = measure_physics(
            shared, regions, features, nodules, target_slices, settings.seed, workers, maps
        )
    else:
        note(f"not paired: {pairing.unpaired_because}; texture spectra and mean HU are compared")
        all_remarks.add(unused_input_notes(settings, retest, target_harmonized, nodules))
        shared = [
            SharedSlices(
                harmonized=harmonized[pair.first].select([i for i, _ in pair.slices]),
                target=None,
                source=sides["source"][pair.second].select([j for _, j in pair.slices]),
            )
            for pair in (pairs_to_compare(harmonized, source, tolerance_mm) if source else [])
        ]
        sides.pop("retest", None)
        physics = measure_physics_unpaired(shared, target, settings.seed, workers)
    progress("evaluate: texture", 3, 4)
    samples = _samples(sides, maps, workers)
    texture, texture_notes = _texture(samples, settings, bool(pairs))
    notes += [*physics.notes, *texture_notes]
    tissue = {side: sample.mean_hu for side, sample in samples.items()}
    if not pairs and texture is None and None in tissue.values():
        raise EvaluationError(texture_notes[0])
    progress("evaluate: texture", 4, 4)
    return Evaluation(
        settings=settings,
        unpaired_because=pairing.unpaired_because,
        n_slices=sum(len(slices.harmonized.hu) for slices in shared) if pairs else 0,
        n_unpaired=len(harmonized) - len({pair.first for pair in pairs}) if pairs else 0,
        shared=tuple(shared),
        regions=tuple(regions),
        harmonized=compared.get("harmonized"),
        input=compared.get("source"),
        retest=compared.get("retest"),
        features=features,
        texture=texture,
        physics=physics,
        soft_tissue_hu=tissue,
        scanners={
            side: "; ".join(sorted({str(volume.acquisition) for volume in volumes}))
            for side, volumes in sides.items()
        },
        extraction=settings_record(settings.bin_width_hu),
        notes=(*all_remarks.remarks, *notes),
    )


def _tissue_maps(shared: Sequence[SharedSlices], workers: int) -> list[TissueMap]:
    """Tissue of the compared slices of each target, in threads."""
    with threads(workers) as pool:
        return list(pool.map(TissueMap.of, [images_of(slices, "target") for slices in shared]))


def _samples(
    sides: Mapping[str, Sequence[CTVolume]], maps: Sequence[TissueMap], workers: int
) -> dict[str, TissueSample]:
    """Slices of each side with their soft tissue; `maps` are the target's, if it is paired."""
    soft = [
        [tissue.soft for tissue in maps] if maps and side == "target" else None for side in sides
    ]
    with threads(workers) as pool:
        return dict(zip(sides, pool.map(TissueSample.of, sides.values(), soft), strict=True))


def _texture(
    sides: Mapping[str, TissueSample], settings: EvaluationSettings, paired: bool
) -> tuple[Texture | None, list[str]]:
    """Texture spectra with remarks on them; None, with the reason, where they cannot be measured.

    Without pairs they are the comparison, so smaller patches are used where larger ones do not fit.
    """
    reasons = []
    sizes = [settings.spectrum_px // k for k in ((1,) if paired else (1, 2, 4))]
    for size_px in (size for size in sizes if size >= MIN_SPECTRUM_PX):
        texture, reason = texture_of_samples(sides, size_px)
        if texture is not None:
            is_smaller = size_px < settings.spectrum_px
            remark = f"texture spectra of patches of {size_px} px: no larger ones fit into the body"
            return texture, [remark] if is_smaller else []
        reasons.append(reason)
    return None, [f"no texture spectra: {reasons[-1]}"]


def _harmonized_target_slices(
    shared: Sequence[SharedSlices],
    target_harmonized: Sequence[CTVolume],
    settings: EvaluationSettings,
) -> list[CTVolume]:
    """The compared slices of the target, as the model returned them.

    Raises:
        EvaluationError: if the model did not get every compared slice of the target.
    """
    targets = [images_of(slices, "target") for slices in shared]
    forced = settings.pairing == "forced"
    pairs = pairs_to_compare(targets, target_harmonized, settings.z_tolerance_mm, forced)
    pair_of = {pair.first: pair for pair in pairs}
    incomplete = [i for i, volume in enumerate(targets)
                  if i not in pair_of or len(pair_of[i].slices) < len(volume.hu)]  # fmt: skip
    if incomplete:
        raise EvaluationError(
            f"{len(incomplete)} of {len(targets)} target series were not put through the model, or "
            "not all of their slices; harmonize the target's folder and give the result"
        )
    return [
        target_harmonized[pair_of[i].second].select([j for _, j in pair_of[i].slices])
        for i in range(len(targets))
    ]


def _place_regions(
    shared: Sequence[SharedSlices],
    maps: Sequence[TissueMap],
    settings: EvaluationSettings,
    masks: Mapping[int, Sequence[MaskedRegion]],
) -> list[PlacedRegion]:
    """Regions of the kind that the settings name."""
    if settings.regions == "slices":
        return place_slices(shared)
    if settings.regions == "masks":
        return place_masks(shared, masks)
    soft = [tissue.soft for tissue in maps]
    return place_regions(shared, soft, settings.rois, settings.roi_px, settings.seed)


def _features(
    shared: Sequence[SharedSlices],
    regions: Sequence[PlacedRegion],
    sides: Iterable[str],
    settings: EvaluationSettings,
    cache: FeatureCache | None,
    binning: Binning = "pyradiomics",
) -> dict[str, RegionFeatures]:
    """Features of the same regions in every side's images."""
    patches = [
        patch_of(images_of(shared[placed.volume], side), placed.region)
        for side in sides
        for placed in regions
    ]
    table = extract(patches, settings.bin_width_hu, settings.workers, cache, binning=binning)
    n = len(regions)
    return {side: table.rows(i * n, (i + 1) * n) for i, side in enumerate(sides)}


def _compare(
    shared: Sequence[SharedSlices],
    maps: Sequence[TissueMap],
    features: Mapping[str, RegionFeatures],
    features_ibsi: Mapping[str, RegionFeatures],
    settings: EvaluationSettings,
) -> dict[str, Comparison]:
    """Agreement of each side with the target, by IBSI's gray levels too where they are given."""
    sides = [side for side in features if side != "target"]

    def across(tables: Mapping[str, RegionFeatures], side: str) -> AcrossRegions:
        return across_regions(tables[side], tables["target"], settings.bootstrap, settings.seed)

    planes = (
        ({side: images_of(slices, side).hu[index] for side in sides}, target_plane, soft)
        for slices, tissue in zip(shared, maps, strict=True)
        for index, (target_plane, soft) in enumerate(
            zip(images_of(slices, "target").hu, tissue.soft, strict=True)
        )
    )
    quality = image_qualities(planes, settings.window, settings.workers or cores())
    return {
        side: Comparison(
            quality=quality[side],
            within=within_regions(features[side], features["target"]),
            across=across(features, side),
            across_ibsi=across(features_ibsi, side) if features_ibsi else None,
        )
        for side in sides
    }
