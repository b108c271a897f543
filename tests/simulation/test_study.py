"""The study of several hospitals: who is scanned where, what foretells the outcome, masks."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread

from cvsct.io.masks import read_masks
from cvsct.io.read import read_all
from cvsct.simulation.benchmark import STUDY
from cvsct.simulation.phantom.lesion import Lesion
from cvsct.simulation.plan import plan, plan_patients
from cvsct.simulation.study import HOSPITALS, draw_patients
from cvsct.simulation.study_files import write_study_files
from tests.support.fake_scanner import FAKE, FakePhantom, simulate


def test_hospitals_get_their_shares_and_patients_do_not_depend_on_their_number() -> None:
    patients = draw_patients(200, 3)
    homes = Counter(patient.visits[0].hospital.name for patient in patients)
    assert homes == {hospital.name: round(200 * hospital.share) for hospital in HOSPITALS}
    assert draw_patients(20, 3) == patients[:20]
    assert draw_patients(20, 4) != patients[:20]
    assert len({patient.body.seed for patient in patients}) == 200


def test_some_patients_are_scanned_at_two_hospitals_and_all_techniques_occur() -> None:
    patients = draw_patients(400, 0)
    visits = [visit for patient in patients for visit in patient.visits]
    assert 0.1 < len(visits) / 400 - 1 < 0.2
    for patient in patients:
        names = [visit.hospital.name for visit in patient.visits]
        assert len(set(names)) == len(names)
    seen = {(v.hospital.name, v.technique.kernel, v.technique.thickness_mm) for v in visits}
    assert seen == {(h.name, t.kernel, t.thickness_mm) for h in HOSPITALS for t in h.protocols}
    assert len({visit.technique.scanner for visit in visits}) == 5


def test_texture_foretells_the_outcome_and_size_does_not() -> None:
    patients = draw_patients(4000, 1)
    outcome = np.array([patient.outcome for patient in patients])
    traits = [patient.body.lesion for patient in patients]
    for name, low, high in (("heterogeneity_hu", 0.76, 0.84), ("diameter_mm", 0.47, 0.53)):
        values = np.array([getattr(trait, name) for trait in traits])
        ranks = values.argsort().argsort()
        wins = ranks[outcome].sum() - outcome.sum() * (outcome.sum() - 1) / 2
        area = wins / outcome.sum() / (~outcome).sum()  # Mann-Whitney
        assert low < area < high


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    scans = plan("tiny", 0, parts=(STUDY,))
    patients = plan_patients("tiny", 0)

    def finish(folder: Path, complete: object) -> dict[str, str]:
        return write_study_files(folder, scans, patients)

    simulate(scans, {}, out, workers=1, builders=FAKE, finish=finish)
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_tables_name_every_scan_and_every_patient_once(study: Path) -> None:
    scans = rows(study / STUDY / "patients.csv")
    assert {row["folder"] for row in scans} == {
        series.folder for scan in plan("tiny", 0, parts=(STUDY,)) for series in scan.series()
    }
    assert all(
        (study / row["folder"]).is_dir() and (study / row["mask"]).is_file() for row in scans
    )
    outcomes, truth = (rows(study / STUDY / f"{name}.csv") for name in ("outcomes", "truth"))
    assert [row["patient"] for row in outcomes] == [row["patient"] for row in truth]
    assert {row["patient"] for row in scans} == {row["patient"] for row in outcomes}
    assert set(outcomes[0]) == {"patient", "outcome"}


def test_masks_of_all_three_formats_mark_the_true_lesion(study: Path) -> None:
    """Read with the reader of users' masks; the truth is the sign of the lesion's distance."""
    formats = {hospital.name: hospital.mask_format for hospital in HOSPITALS}
    lesions = {f"cvsct-{p.body.name}": FakePhantom(p.body).lesion for p in plan_patients("tiny", 0)}
    seen = set()
    for row in rows(study / STUDY / "patients.csv"):
        (volume,) = read_all(study / row["folder"])
        lesion = lesions[row["patient"]]
        assert isinstance(lesion, Lesion)
        geometry = volume.geometry
        px = geometry.pixel_mm[0]
        x, y = (geometry.positions_mm[0, axis] + px * np.arange(volume.hu.shape[1])
                for axis in (0, 1))  # fmt: skip
        truth = lesion.mask(x, y, geometry.z_mm)
        drawn = np.zeros_like(truth)
        regions = read_masks(study / row["mask"], volume)
        for region in regions:
            height, width = region.mask.shape
            drawn[region.slice_index, region.row : region.row + height,
                  region.column : region.column + width] |= region.mask  # fmt: skip
        mask_format = formats[row["hospital"]]
        assert {region.label for region in regions} == (
            {"1"} if mask_format == "nifti" else {"lesion"}
        )
        overlap = 2 * (drawn & truth).sum() / (drawn.sum() + truth.sum())
        assert overlap > (0.9 if mask_format == "rtstruct" else 0.9999)
        seen.add(mask_format)
    assert seen == {"seg", "rtstruct", "nifti"}


def test_segmentations_are_accepted_by_highdicom_and_name_their_images(study: Path) -> None:
    row = next(r for r in rows(study / STUDY / "patients.csv") if r["hospital"] == "north")
    segmentation = highdicom.seg.segread(study / row["mask"])
    images = {str(dcmread(path).SOPInstanceUID) for path in (study / row["folder"]).iterdir()}
    named = {str(uid) for _, _, uid in segmentation.get_source_image_uids()}
    assert named <= images
    assert named
    assert segmentation.get_segment_description(1).segment_label == "lesion"
    assert segmentation.get_segment_description(1).tracking_id == "lesion"


def test_hospitals_stand_in_the_headers(study: Path) -> None:
    names = {
        row["hospital"]: str(dcmread(next((study / row["folder"]).iterdir())).InstitutionName)
        for row in rows(study / STUDY / "patients.csv")
    }
    assert names == {name: f"Virtual hospital {name}" for name in names}
    assert len(names) == 5


def test_masks_have_the_same_bytes_when_written_again(study: Path) -> None:
    scans = plan("tiny", 0, parts=(STUDY,))
    before = {path: path.read_bytes() for path in (study / STUDY / "masks").rglob("*.*")}
    write_study_files(study, scans, plan_patients("tiny", 0))
    assert {path: path.read_bytes() for path in before} == before


def test_a_study_without_any_complete_scan_has_no_files(tmp_path: Path) -> None:
    assert write_study_files(tmp_path, (), plan_patients("tiny", 0)) == {}
    assert not list(tmp_path.iterdir())
