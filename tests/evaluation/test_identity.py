"""What a report says of its scans, its model and its command, and what it must not say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from cvsct.core.volume import CTVolume
from cvsct.evaluation.command import command_of, command_text
from cvsct.evaluation.identity import Identity, Range, identity_of, report_salt
from cvsct.evaluation.report import identity_tables
from cvsct.evaluation.report.identity_tables import HIDDEN, identity_rows
from cvsct.evaluation.settings import EvaluationSettings
from tests.conftest import make_volume

SALT = b"0123456789abcdef"
MANIFEST = {
    "command": "harmonize", "model_sha256": "ab" * 32,
    "config": {"method": "spectrum", "reverse": True},
    "figures": {"model": {
        "name": "b70_to_b40",
        "source": {"scanners": ["Maker A, kernel K1"], "n_series": 12, "n_slices": 360},
        "target": {"scanners": ["Maker B"], "n_series": 3, "n_slices": 90},
    }},
}  # fmt: skip


def exposed(**attributes: object) -> CTVolume:
    """A series of two slices, the second with half again the exposure of the first."""
    headers = []
    for factor in (1.0, 1.5):
        header = pydicom.Dataset()
        header.PatientName, header.PatientID = "Doe^Jane", "SECRET-77"
        for keyword, value in attributes.items():
            setattr(header, keyword, factor * value if isinstance(value, float) else value)
        headers.append(header)
    volume = make_volume(np.zeros((2, 8, 8)))
    return replace(volume, headers=tuple(headers), patient="hash-of-an-id")


def identity(manifest: dict[str, object], **sides: CTVolume) -> Identity:
    scans = {side: [volume] for side, volume in sides.items()}
    return identity_of(scans, {}, manifest, "cvsct evaluate", 0.0, SALT)


def test_scans_are_told_by_their_headers() -> None:
    found = identity({}, harmonized=exposed(), target=exposed(Exposure="120", CTDIvol=8.0))
    side = found.sides["target"]
    assert (side.n_series, side.n_slices, side.scanners) == (
        1, 2, "Maker Scanner, kernel K1, 120 kVp",
    )  # fmt: skip
    assert side.exposure_mas == Range(120.0, 120.0)
    assert side.ctdi_vol_mgy == Range(8.0, 12.0)
    assert side.ctdi_vol_mgy.text() == "8 to 12"
    assert side.thickness_mm == side.spacing_mm == Range(5.0, 5.0)
    assert side.pixel_mm == Range(0.7, 0.7)
    assert found.sides["harmonized"].exposure_mas is None
    assert list(found.sides) == ["harmonized", "target"]
    assert found.created == "1970-01-01T00:00:00Z"


def test_exposure_has_three_units() -> None:
    fine, micro = exposed(ExposureInmAs=99.0), exposed(ExposureInuAs=80_000)
    found = identity({}, source=fine, target=micro)
    assert found.sides["source"].exposure_mas == Range(99.0, 148.5)
    assert found.sides["target"].exposure_mas == Range(80.0, 80.0)


def test_patients_have_pseudonyms_alone() -> None:
    found = identity({}, source=exposed(), target=exposed())
    assert found.sides["source"].patients == found.sides["target"].patients
    text = str(found.to_json())
    assert not any(word in text for word in ("Doe", "SECRET", "hash-of-an-id"))
    other = identity_of({"source": [exposed()]}, {}, {}, "", 0.0, b"another salt 0000")
    assert other.sides["source"].patients != found.sides["source"].patients


def test_the_model_is_told_by_the_manifest() -> None:
    model = identity(MANIFEST, target=exposed()).model
    assert model is not None
    assert (model.name, model.method, model.sha256) == ("b70_to_b40", "spectrum", "ab" * 32)
    assert model.trained_on[0] == "source: Maker A, kernel K1 (12 series, 360 slices)"
    rows = dict(identity_rows(identity(MANIFEST, target=exposed())))
    assert rows["Model"] == "spectrum b70_to_b40, from its target to its source"
    assert model.maps_to == "Maker A, kernel K1"
    without = dict(MANIFEST, figures={})
    assert ("Trained on", "unknown") in identity_rows(identity(without, target=exposed()))
    assert identity({}, target=exposed()).model is None


def test_the_report_says_what_is_hidden_and_whose_images_are_imitated() -> None:
    command = "cvsct evaluate --harmonized harmonized --target file-a8c7246e"
    found = identity_of(
        {"harmonized": [exposed()]}, {"harmonized": "cvsct spectrum, kernel Lung"}, MANIFEST,
        command, 0.0, b"salt 0000 0000 00",
    )  # fmt: skip
    assert dict(identity_rows(found))["Command"] == f"{command} ({HIDDEN})"
    assert identity_tables._scanner(found.sides["harmonized"], found) == (
        "cvsct spectrum, kernel Lung of the source; made to read like Maker A, kernel K1"
    )


def test_the_command_names_no_person(tmp_path: Path) -> None:
    scans = {"harmonized": Path("/data/Doe_Jane/harmonized"), "target": "/data/Doe_Jane",
             "source": [exposed()], "retest": None}  # fmt: skip
    settings = EvaluationSettings(rois=48, pairing="off")
    command = command_of(scans, settings, [tmp_path / "mask_1.nii.gz"], ["GTV*"], None, None, True)
    assert "Doe" not in command
    assert command.startswith("cvsct evaluate --harmonized harmonized --target file-")
    assert "--source '(in memory)'" in command
    assert command.endswith(
        "--masks mask_1.nii.gz --structures 'GTV*' --rois 48 --unpaired --pdf --out OUT"
    )
    assert command_text({"--seed": 0, "--ibsi": False, "--nodules": None}).endswith("--seed 0")


def test_a_user_keeps_one_salt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert report_salt(kept=False) != report_salt(kept=False)
    assert not list(tmp_path.rglob("*.salt"))
    assert report_salt() == report_salt()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cvsct" / "pseudonyms.salt"))
    assert len(report_salt()) == 32, "a folder that cannot be made is no failure"
