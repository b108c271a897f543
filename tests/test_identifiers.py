"""Fifty identifiers planted in every series; none may leave through anything but derived DICOM."""

from __future__ import annotations

import gzip
import logging
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, Sequence
from pydicom.uid import JPEGLSLossless

from tests.commands import Run
from tests.conftest import phantom_hu
from tests.dicom_files import slice_dataset, write_series, write_slice
from tests.test_enhanced import enhanced

KEYWORDS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "OtherPatientNames", "PatientBirthName"),
    *("PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers", "PatientComments"),
    *("AdditionalPatientHistory", "Occupation", "EthnicGroup", "MilitaryRank", "BranchOfService"),
    *("PatientReligiousPreference", "CountryOfResidence", "RegionOfResidence", "MedicalAlerts"),
    *("MedicalRecordLocator", "Allergies", "ResponsiblePerson", "ResponsibleOrganization"),
    *("AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ProtocolName"),
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName"),
    *("DeviceSerialNumber", "ReferringPhysicianName", "ReferringPhysicianAddress"),
    *("ReferringPhysicianTelephoneNumbers", "PerformingPhysicianName", "OperatorsName"),
    *("NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "RequestingPhysician"),
    *("RequestedProcedureDescription", "PerformedProcedureStepID", "ImageComments"),
    *("PerformedProcedureStepDescription", "AdmissionID", "CurrentPatientLocation"),
    *("DerivationDescription", "GantryID", "RequestingService"),
)
IDENTIFIERS = [f"Zq{i:02d}xW" for i in range(50)]
assert len(KEYWORDS) == len(IDENTIFIERS) - 1


def plant(ds: Dataset, _: int = 0) -> None:
    """One in each attribute, and the last in a private one and deep in a sequence."""
    for keyword, value in zip(KEYWORDS, IDENTIFIERS, strict=False):
        setattr(ds, keyword, value)
    ds.private_block(0x0009, "MAKER", create=True).add_new(1, "LO", IDENTIFIERS[-1])
    other = Dataset()
    other.PatientID = IDENTIFIERS[-1]
    ds.OtherPatientIDsSequence = Sequence([other])
    ds.PatientSize, ds.PatientWeight, ds.WindowCenter = "1.23456", "98.7654", "0040.00"


def spoil(file: Path) -> None:
    """Numbers that are none: what pydicom warns of, quoting them."""
    content = file.read_bytes()
    for i, plain in enumerate((b"1.23456", b"98.7654", b"0040.00")):
        content = content.replace(plain, IDENTIFIERS[i].encode() + b"q")
    file.write_bytes(content)


def _gap(ds: Dataset, i: int) -> None:
    plant(ds)
    ds.ImagePositionPatient = [0, 0, 5 * i + 20 * (i == 3)]


def _no_rescale(ds: Dataset, i: int) -> None:
    plant(ds)
    del ds.RescaleSlope


def _scout(ds: Dataset, i: int) -> None:
    plant(ds)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    """`good` and `target`: a sound series among foreign files; `bad`: all that fails."""
    for name, seed, blur in (("good", 1, 0.0), ("target", 2, 0.8)):
        stored = (phantom_hu(seed, blur) + 1024).astype("<u2")
        write_series(tmp_path / name, stored=stored, series=f"1.2.{seed}", change=plant)
        write_series(tmp_path / name / "scout", 1, series=f"1.3.{seed}", change=_scout)
        (tmp_path / name / "notes.txt").write_text(IDENTIFIERS[0])
    bad = tmp_path / "bad"
    write_series(bad / "gap", series="1.4.1", change=_gap)
    write_series(bad / "rescale", series="1.4.2", change=_no_rescale)
    cut = slice_dataset(0, np.zeros((40, 36), int), series="1.4.3")
    plant(cut)
    file = write_slice(bad / "cut.dcm", cut, JPEGLSLossless)
    content = bytearray(file.read_bytes())
    content[-40:-20] = bytes(20)
    file.write_bytes(content)
    frames = enhanced()
    plant(frames)
    frames.SeriesInstanceUID, frames.NumberOfFrames = "1.4.4", 4
    write_slice(bad / "enhanced.dcm", frames)
    for file in tmp_path.rglob("*.dcm"):
        spoil(file)
    content = (bad / "gap" / "001.dcm").read_bytes()
    (bad / "damaged.dcm").write_bytes(content[: content.index(b"Zq10xW") + 3])
    return tmp_path


def _told_in(folder: Path) -> list[str]:
    """Names and contents of all files but DICOM, inflated."""
    found = []
    for path in folder.rglob("*"):
        found.append(str(path.relative_to(folder)))
        if path.is_file() and path.suffix != ".dcm":
            content = path.read_bytes()
            if path.suffix == ".gz":
                content = gzip.decompress(content)
            found.append(content.decode("latin-1"))
    return found


def test_no_planted_identifier_leaves(
    run: Run, trees: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    out = tmp_path / "out"

    def call(expected: int, *words: object) -> str:
        code, printed, err = run(*words)
        assert code == expected, err
        told.extend((printed, err))
        return err

    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(0, "inspect", trees / "good")
        err = call(1, "inspect", trees / "bad", "--json")
        for part in ("gap of 25.0 mm", "no usable Rescale", "cut.dcm", "enhanced.dcm", "damaged"):
            assert part in err
        sides = ("--source", trees / "good", "--target", trees / "target")
        call(0, "train", "input", *sides, "--out", out / "model")
        model = ("--model", out / "model")
        call(0, "harmonize", trees / "good", *model, "--out", out / "harmonized", "--nifti")
        call(1, "harmonize", trees / "bad", *model, "--out", out / "nothing")
        (trees / "bad" / "good").symlink_to(trees / "good", target_is_directory=True)
        (trees / "target").rename(trees / "bad" / "target")
        call(3, "harmonize", trees / "bad", *model, "--out", out / "some")
        target = ("--target", trees / "bad" / "target")
        call(1, "evaluate", "--harmonized", trees / "bad", *target, "--out", out / "failed")
        call(
            0, "evaluate", "--harmonized", out / "harmonized", *target, "--source", trees / "good",
            "--rois", 3, "--workers", 1, "--out", out / "report",
        )  # fmt: skip
    told += [caplog.text, *(str(warning.message) for warning in caught), *_told_in(out)]
    told += _told_in(Path(os.environ["XDG_CACHE_HOME"]))
    assert len(list(out.rglob("*.nii.gz"))) == 1
    everything = "\n".join(told)
    assert len(everything) > 10_000
    assert [value for value in IDENTIFIERS if value in everything] == []
    assert (trees / "good" / "notes.txt").read_text() == IDENTIFIERS[0]
