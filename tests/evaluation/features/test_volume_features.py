"""Features of regions of a volume against PyRadiomics' own extractor on the same voxels."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import radiomics
import SimpleITK
from radiomics.featureextractor import RadiomicsFeatureExtractor
from scipy import ndimage

from cvsct.core.volume import CTVolume
from cvsct.evaluation.features.cache import FeatureCache
from cvsct.evaluation.features.parameters import (
    default_parameters,
    parameters_for,
    read_parameters,
)
from cvsct.evaluation.features.volume_features import measure_regions
from cvsct.evaluation.features.volume_regions import (
    VolumeRegion,
    densitometry,
    region_of,
    seeded_regions,
    slice_mm,
)

SPACING_MM = (3.0, 0.8, 0.7)
SHAPE = (8, 36, 40)
CLASSES = "featureClass:\n  shape:\n  firstorder:\n  glcm: ['Contrast', 'JointEntropy']\n"
FILES = {
    "plain": f"setting:\n  binWidth: 25\n{CLASSES}",
    "filters": "setting:\n  binWidth: 25\nimageType:\n  Original: {binWidth: 10}\n"
    f"  LoG:\n    sigma: [1.5]\n  Wavelet: {{}}\n  Square: {{}}\n  Gradient: {{}}\n{CLASSES}",
    "normalized": "setting:\n  binWidth: 5\n  normalize: true\n  normalizeScale: 100\n"
    f"  resegmentRange: [-2, 2]\n  resegmentMode: sigma\n{CLASSES}",
    "resampled": "setting:\n  binWidth: 25\n  resampledPixelSpacing: [1, 1, 2]\n"
    "  interpolator: sitkBSpline\n  resegmentRange: [-300, 300]\n  resegmentShape: true\n"
    f"imageType:\n  Original: {{}}\n  Logarithm: {{}}\n{CLASSES}",
}


@pytest.fixture(scope="module")
def volume() -> CTVolume:
    rng = np.random.default_rng(3)
    noise = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1)
    return CTVolume.from_array(np.rint(40 + 60 * noise / noise.std()), SPACING_MM)


def ball(center: tuple[int, int, int], radius_mm: float) -> np.ndarray:
    grid = np.moveaxis(np.indices(SHAPE), 0, -1)
    distance = (grid - np.array(center)) * np.array(SPACING_MM)
    return np.asarray((distance**2).sum(axis=-1) <= radius_mm**2)


def by_pyradiomics(path: Path, volume: CTVolume, mask: np.ndarray) -> dict[str, float]:
    radiomics.setVerbosity(logging.CRITICAL)
    image = SimpleITK.GetImageFromArray(volume.hu.astype(np.int16))
    region = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    for item in (image, region):
        item.SetSpacing(SPACING_MM[::-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = RadiomicsFeatureExtractor(str(path)).execute(image, region)
    return {n: float(v) for n, v in values.items() if not n.startswith("diagnostics")}


@pytest.mark.parametrize("name", FILES)
def test_values_are_those_of_pyradiomics(name: str, volume: CTVolume, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(FILES[name], encoding="utf-8")
    masks = [ball((4, 18, 20), 8.0), ball((1, 3, 36), 5.0)]  # the second touches the border
    measured = measure_regions(
        volume, [region_of("region", mask) for mask in masks], read_parameters(path)
    )
    for mask, region in zip(masks, measured, strict=True):
        expected = by_pyradiomics(path, volume, mask)
        assert region.error == ""
        assert list(region.values) == list(expected)
        np.testing.assert_allclose(
            list(region.values.values()), list(expected.values()), rtol=1e-12, atol=0
        )


def test_regions_that_cannot_be_measured_have_a_reason(volume: CTVolume) -> None:
    one = np.zeros(SHAPE, dtype=bool)
    one[2, 3, 4] = True
    line = np.zeros(SHAPE, dtype=bool)
    line[2, 3, 4:9] = True
    regions = [region_of("one", one), region_of("none", np.zeros(SHAPE, dtype=bool)),
               region_of("line", line), region_of("ball", ball((4, 18, 20), 8.0))]  # fmt: skip
    single, empty, thin, good = measure_regions(volume, regions, default_parameters("pyradiomics"))
    assert "one voxel" in single.error
    assert "empty" in empty.error
    assert "too few dimensions" in thin.error
    assert good.error == ""
    assert good.values
    assert not single.values


def test_two_dimensions_are_the_largest_slice(volume: CTVolume) -> None:
    mask = ball((4, 18, 20), 8.0)
    region = region_of("ball", mask).largest_slice()
    assert region.voxels == int(mask.sum(axis=(1, 2)).max())
    assert region.start[0] == 4
    parameters = default_parameters("pyradiomics", dimensions=2)
    (measured,) = measure_regions(volume, [region], parameters)
    pixel_mm2 = SPACING_MM[1] * SPACING_MM[2]
    assert measured.values["original_shape2D_PixelSurface"] == pytest.approx(
        region.voxels * pixel_mm2
    )
    assert not any(name.startswith("original_shape_") for name in measured.values)


def test_a_cached_region_is_not_measured_again_and_a_changed_one_is(
    volume: CTVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("featureClass:\n  firstorder: ['Mean']\n", encoding="utf-8")
    parameters, cache = read_parameters(path), FeatureCache(tmp_path / "cache")
    region = region_of("ball", ball((4, 18, 20), 8.0))
    first = measure_regions(volume, [region], parameters, cache)
    monkeypatch.setattr("cvsct.evaluation.features.volume_features._measure", lambda *_: [])
    with pytest.raises(ValueError, match="shorter"):  # it asks for the changed one
        measure_regions(volume.with_hu(volume.hu + 1), [region], parameters, cache)
    assert measure_regions(volume, [region], parameters, cache) == first


def test_a_filtered_region_depends_on_the_whole_scan_and_so_does_its_key(
    volume: CTVolume, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(
        "imageType:\n  Square: {}\nfeatureClass:\n  firstorder: ['Mean']\n", encoding="utf-8"
    )
    parameters, cache = read_parameters(path), FeatureCache(tmp_path / "cache")
    region = region_of("ball", ball((4, 18, 20), 8.0))
    brighter = volume.hu.copy()
    brighter[0, 0, 0] = 3000  # outside the region: `Square` scales by the largest value
    means = [
        measure_regions(v, [region], parameters, cache)[0].values["square_firstorder_Mean"]
        for v in (volume, volume.with_hu(brighter))
    ]
    assert means[0] != means[1]


def test_blocks_lie_in_soft_tissue_apart_and_at_the_same_place_for_a_seed() -> None:
    hu = np.full((12, 80, 80), 40.0)
    hu[:, :, 40:] = -1000.0
    volume = CTVolume.from_array(hu, (4.0, 1.0, 1.0))
    regions = seeded_regions(volume, 3, 12, seed=1)
    assert [region.name for region in regions] == [f"soft_tissue_{n}" for n in (1, 2, 3)]
    covered = np.zeros(hu.shape, dtype=int)
    for region in regions:
        assert region.mask is not None
        assert region.mask.shape == (3, 12, 12)  # 12 mm each way
        covered[region.box] += 1
    assert covered.max() == 1
    assert hu[covered > 0].min() == 40.0
    again = seeded_regions(volume, 3, 12, seed=1)
    assert [region.start for region in again] == [region.start for region in regions]
    assert [r.start for r in seeded_regions(volume, 3, 12, seed=2)] != [r.start for r in again]


def test_all_of_a_block_lies_in_tissue_that_is_not_fat_and_what_is_missing_is_told() -> None:
    hu = np.full((6, 90, 90), -90.0)  # fat, with a strip of muscle and a spot of bone in it
    hu[:, 30:55] = 40.0
    hu[:, 38:45, 40:50] = 500.0
    told: list[str] = []
    volume = CTVolume.from_array(hu, (3.0, 1.0, 1.0))
    regions = seeded_regions(volume, 9, 16, seed=0, missing=told.append)
    assert 1 <= len(regions) < 9
    for region in regions:
        assert hu[region.box].max() == 40.0
        assert (hu[region.box] == 40.0).mean() > 0.9  # but for one pixel of the edge of fat
    assert told == [
        f"room for {len(regions)} of 9 blocks of soft tissue, 16 pixels wide",
        "no row 'lung': 0 cm² of lung in 6 slices, too little to measure",
    ]


def test_lungs_are_a_region_of_their_own() -> None:
    rows, columns = np.mgrid[:120, :120]
    hu = np.where((rows - 60) ** 2 + (columns - 60) ** 2 < 55**2, 40.0, -1000.0)
    lungs = ((rows - 60) ** 2 + (np.abs(columns - 60) - 25) ** 2) < 18**2
    hu[lungs] = np.where((rows + columns) % 12 < 6, -900.0, -800.0)[lungs]
    volume = CTVolume.from_array(np.repeat(hu[None], 8, axis=0), (10.0, 1.5, 1.5))
    regions = {region.name: region for region in seeded_regions(volume, 1, 12, seed=0)}
    lung = regions["lung"]
    assert lung.mask is not None
    inside = np.zeros(volume.shape, dtype=bool)
    inside[lung.box] = lung.mask
    assert not (inside & ~lungs).any()
    assert inside.sum() > 0.5 * 8 * lungs.sum()  # a margin at the border is left out
    columns_of = densitometry(volume, lung)
    assert columns_of["lung_mean_hu"] == pytest.approx(volume.hu[inside].mean(), abs=1e-3)
    assert columns_of["lung_laa950_percent"] == 0.0
    assert densitometry(volume, regions["soft_tissue_1"]) == {}
    (measured,) = measure_regions(volume, [lung], default_parameters("pyradiomics"))
    assert not any("shape" in name for name in measured.values)


def test_ibsi_counts_gray_levels_from_the_range_and_not_from_the_region(
    volume: CTVolume,
) -> None:
    region = region_of("ball", ball((4, 18, 20), 8.0))
    parameters = parameters_for(None, "ibsi", 3)
    assert parameters.setting["resegmentRange"] == [-1000.0, 900.0]
    features = "original_glcm_Autocorrelation", "original_glcm_JointEntropy"
    (low,) = measure_regions(volume, [region], parameters)
    (shifted,) = measure_regions(volume.with_hu(volume.hu + 250), [region], parameters)
    plain = parameters_for(None, "pyradiomics", 3)
    (low_plain,) = measure_regions(volume, [region], plain)
    (shifted_plain,) = measure_regions(volume.with_hu(volume.hu + 250), [region], plain)
    # ten bins of 25 HU further up: IBSI's levels rise by ten, PyRadiomics' begin at the region
    assert shifted.values[features[0]] > low.values[features[0]] + 500
    assert shifted_plain.values[features[0]] == pytest.approx(low_plain.values[features[0]])
    assert shifted.values[features[1]] == pytest.approx(low.values[features[1]])
    assert low.values[features[1]] == pytest.approx(low_plain.values[features[1]])


def test_a_single_slice_has_a_height() -> None:
    assert slice_mm(CTVolume.from_array(np.zeros((1, 9, 9)), (5.0, 1.0, 1.0))) == 5.0
    assert VolumeRegion("nothing").voxels == 0
