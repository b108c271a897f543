"""`extract_features` on volumes in memory, and with several processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cvsct
from cvsct.api.model import HarmonizedVolume
from cvsct.core.errors import UsageError
from cvsct.core.volume import Acquisition
from tests.conftest import make_volume
from tests.support.dicom_files import DERIVATION
from tests.support.feature_scans import scan_hu, write_patient

MEAN = "original_firstorder_Mean"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text("featureClass:\n  firstorder: ['Mean']\n", encoding="utf-8")
    return path


def test_volumes_in_memory_before_and_after(settings: Path) -> None:
    source = replace(
        make_volume(scan_hu(1)), patient="abc", acquisition=Acquisition("Maker", "S", "K", 100.0)
    )
    harmonized = HarmonizedVolume(source.with_hu(source.hu + 7), source, None, (), DERIVATION)
    table = cvsct.extract_features(
        [source, harmonized], settings=settings, rois=2, workers=1, cache=False, roi_px=16
    )
    rows = {(row["stage"], row["region"]): row for row in table.rows}
    assert len(rows) == 4
    for region in ("soft_tissue_1", "soft_tissue_2"):
        before, after = rows["source", region], rows["harmonized", region]
        assert after[MEAN] - before[MEAN] == pytest.approx(7.0, abs=1e-4)
        assert (after["scanner"], after["kernel"], after["kvp"]) == ("Maker S", "K", 100.0)
        assert after["patient"] == before["patient"] == "abc"
        assert after["harmonized_to"] == DERIVATION.target


@pytest.mark.parametrize("series_uid", ["1.2.3.4", ""])
def test_a_harmonized_volume_is_told_from_its_source(settings: Path, series_uid: str) -> None:
    source = replace(make_volume(scan_hu(1)), series_uid=series_uid)
    harmonized = HarmonizedVolume(source.with_hu(source.hu + 7), source, None, (), DERIVATION)
    options: dict[str, Any] = {
        "settings": settings, "rois": 1, "workers": 1, "cache": False, "roi_px": 16
    }  # fmt: skip
    whole = cvsct.extract_features([source, harmonized], **options)
    assert [row["stage"] for row in whole.rows] == ["source", "harmonized"]
    assert whole.rows[0]["patient"] == whole.rows[1]["patient"]
    if series_uid:
        assert cvsct.extract_features([source, harmonized.volume], **options).rows == whole.rows
    else:
        with pytest.raises(UsageError, match=r"give the result of Model\.harmonize itself"):
            cvsct.extract_features([source, harmonized.volume], **options)


def test_two_models_of_one_source_are_two_stages(settings: Path) -> None:
    source = make_volume(scan_hu(1))
    other = replace(DERIVATION, model_sha256="ef" * 32)
    harmonized = [
        HarmonizedVolume(source.with_hu(source.hu + i), source, None, (), derivation)
        for i, derivation in enumerate((DERIVATION, other))
    ]
    table = cvsct.extract_features(
        [source, *harmonized], settings=settings, rois=1, workers=1, cache=False, roi_px=16
    )
    assert {row["stage"] for row in table.rows} == {
        "source", "harmonized-abababab", "harmonized-efefefef"
    }  # fmt: skip


def test_several_processes_share_out_the_regions_of_a_scan(settings: Path, tmp_path: Path) -> None:
    scan = write_patient(tmp_path / "scan", "P1", 1)
    tables = [
        cvsct.extract_features(scan, settings=settings, rois=5, workers=n, cache=False, roi_px=8)
        for n in (1, 2)
    ]
    assert tables[0].rows == tables[1].rows
    assert len(tables[0]) == 5
