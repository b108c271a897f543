"""Masks find their scans: by series, frame of reference, name, pattern and grid."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvsct.core.errors import UsageError
from cvsct.io.mask_files import find_mask_files, match_masks
from cvsct.io.read import find_series
from cvsct.io.scan_record import ScanGroup, group_by_source, record_of
from tests.support.dicom_files import write_series
from tests.support.feature_scans import (
    scan_hu,
    write_nifti_mask,
    write_patient,
    write_rtstruct,
    write_seg,
)


def groups_in(folder: Path) -> list[ScanGroup]:
    return group_by_source([record_of(series, folder) for series in find_series(folder)])


def matched(
    scans: Path, masks: Path, pattern: str = "", notes: list[str] | None = None
) -> dict[str, list[str]]:
    """Names of the matched mask files by patient."""
    groups, told = groups_in(scans), notes if notes is not None else []
    files = match_masks(find_mask_files([masks], told.append), groups, {}, pattern, told.append)
    return {
        group.first.patient_id: sorted(file.path.name for file in group_files)
        for group, group_files in zip(groups, files, strict=True)
    }


@pytest.fixture
def two(tmp_path: Path) -> Path:
    write_patient(tmp_path / "scans" / "first", "P1", 1)
    write_patient(tmp_path / "scans" / "second", "P2", 2)
    (tmp_path / "masks").mkdir()
    return tmp_path


def test_dicom_masks_find_the_series_or_the_frame_that_they_name(two: Path) -> None:
    write_seg(two / "masks" / "b.dcm", two / "scans" / "second")
    write_rtstruct(two / "masks" / "a.dcm", two / "scans" / "first")  # names a frame alone
    assert matched(two / "scans", two / "masks") == {"P1": ["a.dcm"], "P2": ["b.dcm"]}


def test_another_series_of_the_same_frame_takes_a_mask_only_without_one_of_its_own(
    two: Path,
) -> None:
    first = two / "scans" / "first"

    def other_kernel(ds, i):  # type: ignore[no-untyped-def]
        ds.PatientID, ds.ConvolutionKernel = "P1", "K9"
        ds.StudyInstanceUID, ds.FrameOfReferenceUID = "1.2.826.1.1", "1.2.826.1.2"
        ds.SOPInstanceUID = f"1.2.826.1.4.{i + 1}"

    stored = scan_hu(5) + 1024
    write_series(two / "scans" / "third", change=other_kernel, stored=stored, series="1.2.826.1.4")
    write_seg(two / "masks" / "a.dcm", first)
    groups = groups_in(two / "scans")
    files = match_masks(find_mask_files([two / "masks"]), groups, {})
    chosen = {g.first.series_uid: len(f) for g, f in zip(groups, files, strict=True)}
    assert chosen == {"1.2.826.1.3": 1, "1.2.826.1.4": 1, "1.2.826.2.3": 0}
    write_seg(two / "masks" / "c.dcm", two / "scans" / "third")
    files = match_masks(find_mask_files([two / "masks"]), groups, {})
    assert [len(group_files) for group_files in files] == [1, 1, 0]


def test_the_frame_of_another_patient_is_not_enough(two: Path) -> None:
    def same_frame(ds, i):  # type: ignore[no-untyped-def]
        ds.PatientID, ds.FrameOfReferenceUID = "P3", "1.2.826.1.2"

    write_series(two / "scans" / "third", 6, change=same_frame, series="1.2.826.5")
    write_seg(two / "masks" / "a.dcm", two / "scans" / "first")
    assert matched(two / "scans", two / "masks")["P3"] == []


def test_nifti_masks_begin_with_the_name_of_their_scan(two: Path) -> None:
    write_nifti_mask(two / "masks" / "P1_lesion.nii.gz", two / "scans" / "first")
    write_nifti_mask(two / "masks" / "second.nii.gz", two / "scans" / "second")
    assert matched(two / "scans", two / "masks") == {
        "P1": ["P1_lesion.nii.gz"], "P2": ["second.nii.gz"]
    }  # fmt: skip


def test_a_longer_name_is_another_patient(two: Path) -> None:
    write_nifti_mask(two / "masks" / "P12_lesion.nii.gz", two / "scans" / "first")
    notes: list[str] = []
    assert matched(two / "scans", two / "masks", notes=notes) == {"P1": [], "P2": []}
    assert "2 of the scans have its grid" in notes[0]


def test_a_pattern_finds_masks_by_any_name(two: Path) -> None:
    for patient, scan in (("P1", "first"), ("P2", "second")):
        path = two / "masks" / patient / "roi" / "gtv.nii.gz"
        write_nifti_mask(path, two / "scans" / scan)
    assert matched(two / "scans", two / "masks", "{patient}/roi/*.nii.gz") == {
        "P1": ["gtv.nii.gz"], "P2": ["gtv.nii.gz"]
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"\{patient\}"):
        matched(two / "scans", two / "masks", "{nobody}.nii.gz")


def test_the_only_scan_of_a_grid_takes_a_mask_of_any_name(tmp_path: Path) -> None:
    write_patient(tmp_path / "scans" / "first", "P1", 1)

    def elsewhere(ds, i):  # type: ignore[no-untyped-def]
        ds.PatientID = "P2"
        ds.ImagePositionPatient = [-90, -120, i * 5.0]

    write_series(tmp_path / "scans" / "second", 6, change=elsewhere, series="1.2.826.5")
    write_nifti_mask(tmp_path / "masks" / "segmentation.nii.gz", tmp_path / "scans" / "first")
    assert matched(tmp_path / "scans", tmp_path / "masks") == {
        "P1": ["segmentation.nii.gz"], "P2": []
    }  # fmt: skip


def test_a_folder_without_masks_is_refused(two: Path) -> None:
    (two / "masks" / "notes.txt").write_text("nothing", encoding="utf-8")
    with pytest.raises(UsageError, match="no masks here"):
        find_mask_files([two / "masks"])
