"""Uncertainty of harmonized images: variances, table, map, and who can tell it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import cvsct
from cvsct.core.errors import UsageError
from cvsct.core.volume import CTVolume
from cvsct.evaluation.told_uncertainty import uncertainty_of
from cvsct.inference.uncertainty import (
    COLUMNS,
    MAP_FILE,
    METHOD_HU,
    METHOD_NOISE_PERCENT,
    TABLE_FILE,
    Ensemble,
    Uncertainty,
    UncertaintyWriter,
)
from cvsct.methods.volume_mapping import NoiseSynthesis, RepeatedMapping, VolumeMapping
from tests.conftest import make_volume, phantom_hu
from tests.support.commands import Run

SHIFTS = ((0, 1.0), (0, -1.0), (1, 3.0), (1, 0.0), (1, -3.0))
"""Side of each repeated fit, and by how many HU it differs."""
FIT_HU = np.sqrt(1 / 2 * 2 + 2 / 3 * 18) * 3.182446 / 1.959964
"""Root of the jackknife variances of two and of three fits, by Student's t of three degrees."""


def shifting(hu: float) -> VolumeMapping:
    return VolumeMapping(lambda volume: volume.hu + np.float32(hu))


def repeated() -> tuple[RepeatedMapping, ...]:
    shares = {0: 1 / 2, 1: 2 / 3}
    return tuple(RepeatedMapping(shifting(hu), side, shares[side]) for side, hu in SHIFTS)


def noisy(sd_hu: float) -> VolumeMapping:
    """A mapping that adds white noise, another one for each seed."""

    def fit(sample: CTVolume, seed: int | None = None) -> VolumeMapping:
        def run(volume: CTVolume) -> np.ndarray:
            rng = np.random.default_rng(seed or 0)
            return volume.hu + rng.normal(0, sd_hu, volume.hu.shape).astype(np.float32)

        return VolumeMapping(run, synthesis=NoiseSynthesis(0.5, lambda: 0.5))

    return replace(fit(make_volume(np.zeros((1, 4, 4)))), fit=fit)


@pytest.fixture(scope="module")
def volume() -> CTVolume:
    return make_volume(phantom_hu(4, 0.5, slices=4))


def told(volume: CTVolume, mapping: VolumeMapping) -> Uncertainty:
    ensemble = Ensemble.of(mapping, mapping.fitted_to(volume), repeated(), volume)
    return ensemble.uncertainty(volume, volume.with_hu(mapping(volume)))


def test_the_error_of_the_fit_is_the_jackknife_of_both_sides(volume: CTVolume) -> None:
    uncertainty = told(volume, shifting(0.0))
    np.testing.assert_allclose(uncertainty.fit_hu, FIT_HU, rtol=1e-3)
    assert not uncertainty.synthesis_hu.any()
    np.testing.assert_allclose(uncertainty.total_hu, uncertainty.fit_hu)
    mean = uncertainty.standard_error(lambda each: each.hu.mean(dtype=np.float64))
    assert float(mean) == pytest.approx(FIT_HU, rel=1e-4)
    per_slice = uncertainty.standard_error(lambda each: each.hu.std(axis=(1, 2)))
    assert per_slice.shape == (4,)
    np.testing.assert_allclose(per_slice, 0, atol=1e-3)  # a shift changes no noise


def test_the_error_of_added_noise_is_its_standard_deviation(volume: CTVolume) -> None:
    uncertainty = told(volume, noisy(7.0))
    assert len(uncertainty.draws) == 2
    inside = uncertainty.synthesis_hu[:, 60:160, 60:160]
    assert inside.mean() == pytest.approx(7.0, rel=0.05)
    np.testing.assert_allclose(
        uncertainty.total_hu**2, uncertainty.fit_hu**2 + uncertainty.synthesis_hu**2, rtol=1e-4
    )


def test_each_tissue_of_each_slice_has_figures(volume: CTVolume) -> None:
    rows = list(told(volume, noisy(7.0)).by_tissue())
    assert {row.slice_index for row in rows} == {0, 1, 2, 3}
    assert {row.tissue for row in rows} == {"lung", "fat", "soft"}
    for row in rows:
        assert row.fit_hu == pytest.approx(FIT_HU, rel=1e-3)
        assert row.synthesis_hu == pytest.approx(7.0, rel=0.15)
        assert row.mean_hu == pytest.approx(np.hypot(FIT_HU, METHOD_HU[row.tissue]), rel=0.02)
        assert METHOD_NOISE_PERCENT[row.tissue] < row.noise_percent < 10


def test_padding_has_no_figures(volume: CTVolume) -> None:
    padding = np.zeros(volume.hu.shape, bool)
    padding[1] = True
    rows = list(told(replace(volume, padding=padding), shifting(0.0)).by_tissue())
    assert {row.slice_index for row in rows} == {0, 2, 3}


def test_parts_are_the_whole(volume: CTVolume, tmp_path: Path) -> None:
    ensemble = Ensemble.of(shifting(0.0), shifting(0.0), repeated(), volume)
    for name, parts in (("whole", [range(4)]), ("parts", [range(1), range(1, 4)])):
        writer = UncertaintyWriter(ensemble, wants_map=True)
        for part in parts:
            own = volume.select(list(part))
            writer.add(own, own)
        (tmp_path / name).mkdir()
        writer.write(tmp_path / name, volume.geometry)
    table = (tmp_path / "whole" / TABLE_FILE).read_text()
    assert table == (tmp_path / "parts" / TABLE_FILE).read_text()
    assert tuple(table.splitlines()[0].split(",")) == COLUMNS
    values = [nib.load(tmp_path / name / MAP_FILE).get_fdata() for name in ("whole", "parts")]
    np.testing.assert_array_equal(*values)
    np.testing.assert_allclose(values[0], FIT_HU, rtol=1e-3)


@pytest.fixture(scope="module")
def spectrum(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spectrum") / "model"
    cvsct.train("spectrum", scans / "sharp", scans / "soft", folder)
    return folder


def test_the_command_writes_table_and_map_beside_the_images(
    scans: Path, spectrum: Path, tmp_path: Path, run: Run
) -> None:
    words = ("harmonize", scans / "pair/sharp", "--model", spectrum, "--guard", "off", "--out")
    assert run(*words, tmp_path / "plain")[0] == 0
    code, _, err = run(*words, tmp_path / "told", "--uncertainty", "map")
    assert code == 0, err
    (plain,), (folder,) = (sorted((tmp_path / name).glob("*/")) for name in ("plain", "told"))
    images = sorted(path.name for path in plain.glob("*.dcm"))
    assert images == sorted(path.name for path in folder.glob("*.dcm"))
    for name in images:
        assert (plain / name).read_bytes() == (folder / name).read_bytes()
    rows = list(csv.DictReader((folder / TABLE_FILE).read_text().splitlines()))
    assert {int(row["slice"]) for row in rows} == set(range(1, 7))
    manifest = json.loads((tmp_path / "told" / "manifest.json").read_text())
    (series,) = manifest["figures"]["series"]
    assert set(series["uncertainty"]) == {row["tissue"] for row in rows}
    assert "uncertainty" not in json.loads((tmp_path / "plain/manifest.json").read_text())["config"]
    assert (folder / TABLE_FILE).stat().st_mode & 0o077 == 0
    source = cvsct.read_series(scans / "pair/sharp")
    image = nib.load(folder / MAP_FILE)
    assert image.shape == (*source.shape[1:], source.shape[0])[::1]
    assert 0 < np.median(image.get_fdata()) < 20


def test_a_map_is_no_scan(scans: Path, spectrum: Path, tmp_path: Path) -> None:
    cvsct.harmonize(
        scans / "pair/sharp", tmp_path / "out", model=spectrum, guard=["off"], uncertainty="map"
    )
    assert len(cvsct.find_series(tmp_path / "out")) == 1
    alone = tmp_path / "alone"
    alone.mkdir()
    next((tmp_path / "out").glob(f"*/{MAP_FILE}")).rename(alone / "x.nii.gz")
    with pytest.raises(cvsct.CvsctError, match="map of estimates"):
        cvsct.find_series(alone)


@pytest.mark.slow
def test_many_series_keep_what_was_told_of_each(
    scans: Path, spectrum: Path, tmp_path: Path
) -> None:
    for name in ("sharp", "pair/sharp"):
        folder = tmp_path / "many" / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(scans / name)
    options = {"model": spectrum, "guard": ["off"], "uncertainty": "table"}
    first = cvsct.harmonize(tmp_path / "many", tmp_path / "out", **options)
    again = cvsct.harmonize(tmp_path / "many", tmp_path / "out", **options, resume=True)
    assert first.n_done == 2
    for result in (first, again):
        assert all(outcome.uncertainty["soft"]["fit_hu"] > 0 for outcome in result.outcomes)


@pytest.mark.parametrize("asked", ["table", "map"])
def test_a_model_that_does_not_tell_it_is_refused(
    scans: Path, model: Path, tmp_path: Path, run: Run, asked: str
) -> None:
    words = ("harmonize", scans / "pair/sharp", "--model", model, "--out", tmp_path / "out")
    code, _, err = run(*words, "--uncertainty", asked)
    assert code == 2
    assert "does not tell how uncertain it is" in err
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="does not tell"):
        cvsct.load_model(model).uncertainty(cvsct.read_series(scans / "pair/sharp"))


def test_in_memory_is_as_on_disk(scans: Path, spectrum: Path) -> None:
    source = cvsct.read_series(scans / "pair/sharp")
    uncertainty = cvsct.load_model(spectrum).uncertainty(source)
    harmonized = cvsct.load_model(spectrum).harmonize(source, guard=["off"])
    np.testing.assert_array_equal(uncertainty.volume.hu, harmonized.volume.hu)
    assert uncertainty.total_hu.shape == source.shape


def test_the_report_tells_it(scans: Path, spectrum: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cvsct.harmonize(scans / "pair/sharp", out, model=spectrum, guard=["off"], uncertainty="map")
    evaluation = cvsct.evaluate(out, scans / "pair/soft", rois=8, out=tmp_path / "report")
    (series,) = json.loads((out / "manifest.json").read_text())["figures"]["series"]
    assert {record.tissue: record.fit_hu for record in evaluation.uncertainty} == {
        tissue: figures["fit_hu"] for tissue, figures in series["uncertainty"].items()
    }
    page = (tmp_path / "report/report.html").read_text()
    assert "How uncertain harmonized images are" in page
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    assert len(metrics["uncertainty"]) == len(evaluation.uncertainty)


@pytest.mark.parametrize(
    "series", [None, 3, [3], [{"uncertainty": 3}], [{"folder": "x", "uncertainty": {"lung": {}}}],
               [{"folder": "x", "uncertainty": {"lung": {"fit_hu": "nan", "synthesis_hu": 1,
                                                         "mean_hu": 1, "noise_percent": 1,
                                                         "slices": 2}}}]],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense_tells_nothing(series: object) -> None:
    assert uncertainty_of({"figures": {"series": series}}) == ()
    assert uncertainty_of({}) == ()
