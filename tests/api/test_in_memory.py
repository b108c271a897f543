"""Results of `Model.harmonize` in an evaluation, and written as series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cvsct
from cvsct.api.model import HarmonizedVolume
from cvsct.core.errors import UsageError
from cvsct.core.volume import Acquisition, CTVolume
from cvsct.guard.scan_verdict import ScanVerdict
from tests.conftest import make_volume, phantom_hu
from tests.support.dicom_files import DERIVATION
from tests.support.feature_scans import volume_in, write_patient

TARGET_SCANNER = Acquisition("Other", "Two", "K40", 100.0)


def result_of(source: CTVolume) -> HarmonizedVolume:
    """A result of a model that changed a constant and flagged the second slice."""
    remarks = ("", "cvsct guard: noise_db 8 (limit 6)", *[""] * (len(source) - 2))
    derivation = replace(DERIVATION, target=str(TARGET_SCANNER))
    return HarmonizedVolume(
        source.with_hu(source.hu + 1), source, ScanVerdict("in_domain"), remarks, derivation
    )


def test_results_are_evaluated_with_the_findings_of_the_guard() -> None:
    source = make_volume(phantom_hu(1, 0.5, slices=3, size_px=128))
    target = replace(
        make_volume(phantom_hu(2, 1.0, slices=3, size_px=128)),
        acquisition=TARGET_SCANNER, series_uid="1.2.3.5", headers=(),
    )  # fmt: skip
    harmonized = result_of(source)
    told: list[str] = []
    evaluation = cvsct.evaluate(
        [harmonized], target, source=source, rois=3, workers=1, pairing="off", cache=False,
        note=told.append,
    )  # fmt: skip
    (record,) = evaluation.guards
    assert (record.scan, record.judged, record.series) == ("in_domain", 3, "1")
    assert record.flagged[0].slice == 2
    assert record.flagged[0].why == "noise_db 8 (limit 6)"
    assert record.series_uid == harmonized.volume.harmonization.derived_uid  # type: ignore[union-attr]
    assert not any("cvsct harmonize" in remark for remark in told)


def test_another_source_than_a_result_was_made_of_is_refused(tmp_path: Path) -> None:
    one, other = (
        volume_in(write_patient(tmp_path / name, name, number))
        for number, name in enumerate(("P1", "P2"), 1)
    )
    with pytest.raises(cvsct.CvsctError, match="was not derived from any of the 1 series"):
        cvsct.evaluate(result_of(one), other, source=other, workers=1)


def test_a_folder_with_other_files_takes_no_derived_series(tmp_path: Path) -> None:
    first, second = (
        result_of(volume_in(write_patient(tmp_path / "scans" / name, name, number)))
        for number, name in enumerate(("P1", "P2"), 1)
    )
    for harmonized in (first, second, first):
        written = cvsct.write_derived(harmonized, tmp_path / "derived")
    assert len(list((tmp_path / "derived").glob("*.dcm"))) == 2 * len(written.files)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("x", encoding="utf-8")
    for folder, words in {
        tmp_path / "report": "holds report.html, which is of no derived series",
        tmp_path / "scans" / "P1": "is of no derived series",
        tmp_path / "report" / "report.html": "a file, expected a folder",
    }.items():
        with pytest.raises(UsageError, match=words):
            cvsct.write_derived(first, folder)
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["report.html"]
    assert np.isfinite(first.volume.hu).all()
