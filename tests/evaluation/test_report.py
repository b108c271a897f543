"""A whole evaluation, from volumes to the three files."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydantic import ValidationError
from scipy import ndimage

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import soft_tissue
from cvsct.core.volume import CTVolume
from cvsct.evaluation.features.placement import PlacedRegion, place_regions
from cvsct.evaluation.features.radiomics import CLASSES
from cvsct.evaluation.image.quality import PSNR_CAP_DB
from cvsct.evaluation.report.examples import Example
from cvsct.evaluation.report.feature_tables import agreement_tables
from cvsct.evaluation.report.plots import slice_figures
from cvsct.evaluation.report.verdict import verdict
from cvsct.evaluation.report.write import Evaluation, EvaluationSettings, evaluate, write_report
from cvsct.evaluation.report.write import metrics as metrics_of
from cvsct.evaluation.shared_slices import SharedSlices, images_of
from tests.conftest import make_volume

FAST = EvaluationSettings(rois=8, roi_px=16, bootstrap=100, spectrum_px=32, examples=1)
KEYS = {
    "psnr_db", "ssim", "ncc", "ccc_within", "ccc_across", "hu_bias", "n_slices", "n_rois",
}  # fmt: skip


def body(noise_hu: float, blur_px: float, seed: int = 0, slices: int = 3) -> CTVolume:
    """A disc of tissue whose contrast varies from place to place, in air, with correlated noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128] - 64
    tissue = np.where(np.hypot(x, y) < 55, 40.0 + 20.0 * np.sin(x / 9.0), -1000.0)
    level = 1 + 0.8 * np.sin(x / 30.0) * np.cos(y / 25.0)
    noise = rng.normal(0.0, noise_hu, (slices, 128, 128)) * level
    return make_volume(ndimage.gaussian_filter(tissue + noise, (0, blur_px, blur_px)))


SHARP, SOFT = body(60.0, 0.5), body(60.0, 0.9)
NEAR = body(60.0, 0.85)


@pytest.fixture(scope="module")
def result() -> Evaluation:
    return evaluate([NEAR], [SOFT], [SHARP], FAST)


@pytest.fixture(scope="module")
def folder(result: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation")
    write_report(result, out)
    return out


def unpaired(volume: CTVolume) -> CTVolume:
    return replace(volume, geometry=replace(volume.geometry, frame_of_reference="9.9"))


def numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


def test_identical_images_agree_fully() -> None:
    record = metrics_of(evaluate([SOFT], [SOFT], None, FAST))
    assert record["psnr_db"] == PSNR_CAP_DB  # never infinite: JSON has no such number
    assert record["ssim"] == pytest.approx(1.0)
    assert record["ncc"] == pytest.approx(1.0)
    assert record["hu_bias"] == 0.0
    assert record["spectral_distance_db"] == 0.0
    for name in CLASSES:
        assert record["ccc_within"][name] == pytest.approx(1.0)
        assert record["ccc_across"][name] == pytest.approx(1.0)
    assert "input" not in record


def test_ibsis_gray_levels_are_an_option_that_changes_no_other_figure(result: Evaluation) -> None:
    with_ibsi = evaluate([NEAR], [SOFT], [SHARP], FAST.model_copy(update={"ibsi": True}))
    record, plain = metrics_of(with_ibsi), metrics_of(result)
    assert not any(key.endswith("_ibsi") for key in (*plain, *plain["input"]))
    for part, other in ((record, plain), (record["input"], plain["input"])):
        assert part["ccc_across"] == other["ccc_across"]
        # zones do not depend on where levels begin to count, high gray levels do
        assert part["ccc_across_ibsi"]["firstorder"] == pytest.approx(
            part["ccc_across"]["firstorder"]
        )
        assert part["ccc_across_ibsi"]["gldm"] != pytest.approx(
            part["ccc_across"]["gldm"], abs=1e-6
        )
        assert part["ccc_across_mean_ibsi"] == pytest.approx(
            np.mean(list(part["ccc_across_ibsi"].values()))
        )
    table = next(table for table in agreement_tables(with_ibsi) if table.key == "across")
    assert table.head[-2:] == ("input, IBSI", "harmonized, IBSI")


def test_metrics_file(folder: Path) -> None:
    record = json.loads((folder / "metrics.json").read_text())
    for part in (record, record["input"]):
        assert set(part) >= KEYS
        assert list(part["ccc_within"]) == list(part["ccc_across"]) == list(CLASSES)
    assert record["paired"] is True
    assert (record["n_slices"], record["n_rois"]) == (3, 8)
    density = record["physics"]["lung_densitometry"]
    assert set(density) == {"source", "harmonized", "target"}
    assert all("too little to measure" in side["not_applicable"] for side in density.values())
    assert "not applicable" in (folder / "report.html").read_text()
    assert all(math.isfinite(number) for number in numbers(record))
    assert record["research_use_only"] is True
    assert record["settings"]["window"] == {"low_hu": -1000.0, "high_hu": 900.0}


def test_what_is_nearer_the_target_scores_better(result: Evaluation) -> None:
    record = metrics_of(result)
    for key in ("psnr_db", "ssim", "ncc", "ccc_across_mean"):
        assert record[key] > record["input"][key]
    assert record["spectral_distance_db"] < record["input"]["spectral_distance_db"] / 3
    assert verdict(result).kind == "better"
    assert verdict(evaluate([SHARP], [SOFT], [NEAR], FAST)).kind == "worse"


def test_the_former_name_of_the_physics_warns(result: Evaluation) -> None:
    with pytest.warns(DeprecationWarning, match="physics"):
        assert result.examination is result.physics


def test_the_summary_fits_on_a_terminal(result: Evaluation) -> None:
    assert re.fullmatch(
        r"concordance 0\.\d\d -> 0\.\d\d, PSNR [\d.]+ -> [\d.]+ dB, HU bias .+ "
        r"\(8 regions, 3 slices\)",
        result.summary(),
    )
    assert "->" not in evaluate([NEAR], [SOFT], None, FAST).summary()
    assert "unpaired" in evaluate([NEAR], [unpaired(SOFT)], None, FAST).summary()


def test_a_shift_of_tissue_withholds_praise() -> None:
    shifted = NEAR.with_hu(NEAR.hu + np.float32(9.0))
    judged = verdict(evaluate([shifted], [SOFT], [SHARP], FAST))
    assert re.search(r"shifted by \+(8\.9|9\.\d) HU", judged.text)
    assert judged.kind != "better"


def test_feature_file(folder: Path, result: Evaluation) -> None:
    with (folder / "features.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * 8
    assert {row["image"] for row in rows} == {"source", "harmonized", "target"}
    assert len(rows[0]) == 9 + 93
    places = {(row["region"], row["z_mm"], row["row"], row["column"]) for row in rows}
    assert len(places) == 8  # the same regions in every image
    first = next(row for row in rows if row["image"] == "target")
    region = result.regions[0].region
    assert float(first["firstorder_Mean"]) == pytest.approx(region.cut(SOFT.hu).mean(), rel=1e-5)


def test_report_is_one_offline_file(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert page.index('class="headline ') < page.index("<table>")
    assert len(re.findall(r'src="data:image/(?:png|svg\+xml);base64,', page)) == 5
    assert not re.search(r"https?://|<script[^>]*src|<link|@import", page)
    assert "research use only" in page
    assert "n = 8 regions" in page
    assert "1.2.3.4" not in page


def test_no_patient_identifier_reaches_a_file(tmp_path: Path) -> None:
    headers = []
    for i in range(3):
        header = pydicom.Dataset()
        header.PatientName, header.PatientID = "Doe^Jane", "SECRET-77"
        header.InstanceNumber = i + 1
        headers.append(header)
    named = replace(NEAR, headers=tuple(headers))
    write_report(evaluate([named], [SOFT], [named], FAST), tmp_path)
    for path in tmp_path.iterdir():
        content = path.read_text()
        assert "Doe^Jane" not in content
        assert "SECRET-77" not in content


def place(*shared: SharedSlices, seed: int = 0) -> list[PlacedRegion]:
    soft = [soft_tissue(images_of(slices, "target").hu) for slices in shared]
    return place_regions(shared, soft, 8, 16, seed)


def test_regions_are_seeded_and_lie_in_tissue() -> None:
    first = place(SharedSlices(SHARP, SOFT, None))
    assert first == place(SharedSlices(SHARP, SOFT, None))
    assert first != place(SharedSlices(SHARP, SOFT, None), seed=1)
    tissue = soft_tissue(SOFT.hu).astype(np.float32)
    assert all(place.region.cut(tissue).mean() >= 0.95 for place in first)


def test_regions_do_not_depend_on_what_is_compared() -> None:
    assert place(SharedSlices(SOFT, SOFT, None)) == place(SharedSlices(SHARP, SOFT, SHARP))


def test_regions_avoid_padding_of_any_side_and_are_shared_out() -> None:
    padding = np.zeros(SHARP.hu.shape, dtype=bool)
    padding[:, :, :64] = True
    shared = SharedSlices(replace(SHARP, padding=padding), SOFT, None)
    regions = place(shared, shared)
    assert min(place.region.column for place in regions) >= 64
    assert {place.volume for place in regions} == {0, 1}


def test_file_order_changes_nothing(result: Evaluation) -> None:
    shuffled = evaluate([NEAR.select([2, 0, 1])], [SOFT], [SHARP.select([1, 2, 0])], FAST)
    ordered, reordered = metrics_of(result), metrics_of(shuffled)
    for key in KEYS:
        assert ordered[key] == pytest.approx(reordered[key])
        assert ordered["input"][key] == pytest.approx(reordered["input"][key])


def test_without_pairs_only_texture_is_reported(tmp_path: Path) -> None:
    other = unpaired(body(60.0, 0.9, seed=5, slices=4))
    evaluation = evaluate([NEAR], [other], [SHARP], FAST)
    write_report(evaluation, tmp_path)
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["paired"] is False
    assert "frame of reference" in record["unpaired_because"]
    for key in KEYS - {"n_slices", "n_rois"}:
        assert record[key] is None
        assert record["input"][key] is None
    assert record["n_slices"] == record["n_rois"] == 0
    assert record["spectral_distance_db"] < record["input"]["spectral_distance_db"]
    assert set(record["soft_tissue_hu"]) == {"source", "harmonized", "target"}
    assert set(record["spectra"]["power_db"]) == {"source", "harmonized", "target"}
    assert verdict(evaluation).kind == "better"
    assert "not measured" in (tmp_path / "report.html").read_text()


def test_grids_that_differ_still_compare_as_spectra() -> None:
    other = replace(SOFT, geometry=replace(SOFT.geometry, pixel_mm=(0.9, 0.9)))
    evaluation = evaluate([NEAR], [unpaired(other)], None, FAST)
    assert evaluation.texture is not None
    assert math.isfinite(evaluation.texture.distance_db["harmonized"])
    assert evaluation.texture.band_per_mm == pytest.approx((0.05 / 0.9, 0.45 / 0.9))


def test_a_source_that_was_not_harmonized_is_refused() -> None:
    with pytest.raises(EvaluationError, match="give the series that was harmonized"):
        evaluate([NEAR], [SOFT], [unpaired(SHARP)], FAST)
    with pytest.raises(EvaluationError, match="1 of 3 slices"):
        evaluate([NEAR], [SOFT], [SHARP.select([0, 2])], FAST)


def test_slices_without_a_target_are_noted() -> None:
    evaluation = evaluate([NEAR], [SOFT.select([0, 1])], None, FAST)
    assert evaluation.n_slices == 2
    assert any("1 of 3 harmonized slices" in note for note in evaluation.notes)


def test_nothing_to_compare() -> None:
    with pytest.raises(EvaluationError, match="at least one series"):
        evaluate([], [SOFT])
    air = make_volume(np.full((2, 64, 64), -1000.0))
    with pytest.raises(EvaluationError, match="no 16x16 px region of soft tissue"):
        evaluate([air], [air], None, FAST)
    with pytest.raises(EvaluationError, match="soft tissue"):
        evaluate([air], [unpaired(air)], None, FAST)


def test_flat_images_are_reported_not_averaged() -> None:
    flat = SOFT.with_hu(np.where(SOFT.hu > -300, np.float32(40), np.float32(-1000)))
    evaluation = evaluate([flat], [SOFT], [SHARP], FAST)
    assert any("undefined in harmonized" in note for note in evaluation.notes)
    assert all(math.isfinite(number) for number in numbers(metrics_of(evaluation)))


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError):
        EvaluationSettings(rois=0)
    with pytest.raises(ValidationError):
        EvaluationSettings(unknown=1)  # type: ignore[call-arg]


@pytest.mark.shared
def test_a_real_kernel_pair_reads_as_measured_before(shared: Path) -> None:
    """design/measurements.md: input 34.7 dB and .39 on the upper half of the z range."""
    dicom = pytest.importorskip("cvsct.io.read")
    folder = shared / "real_ct" / "siemens_sensation10"
    sharp, soft = (dicom.read_all(folder / kernel)[0] for kernel in ("B70f", "B40f"))
    upper = slice(len(sharp.hu) // 2, None)
    record = metrics_of(evaluate([sharp.select(upper)], [soft.select(upper)]))
    assert record["n_slices"] == 15
    assert record["psnr_db"] == pytest.approx(34.7, abs=0.1)
    assert record["ccc_across_mean"] == pytest.approx(0.40, abs=0.06)


def test_slices_of_several_series_are_shown(result: Evaluation) -> None:
    """Slices of one series are told from those of another without comparing their images."""
    (shared,) = result.shared
    other = replace(shared, harmonized=SOFT)
    examples = [Example(shared, 0), Example(other, 0), Example(other, 1, largest=3.0)]
    (figure,) = slice_figures(result, examples)
    assert "n = 3 of 3 slices" in figure["caption"]
