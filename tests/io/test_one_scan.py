"""One series is one scan of one person: what may differ from slice to slice, and what may not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import Dataset

from cvsct.core.errors import CvsctError, SeriesError
from cvsct.io.read import Refusal, find_series, read_tree
from tests.io.test_enhanced import enhanced
from tests.support.dicom_files import Change, only, write_series, write_slice

UPPER = 3
"""Slices from here on are another's, of six."""


def _upper(**values: object) -> Change:
    def change(ds: Dataset, i: int) -> None:
        if i >= UPPER:
            for keyword, value in values.items():
                setattr(ds, keyword, value)

    return change


def _each(keyword: str, values: Sequence[object]) -> Change:
    def change(ds: Dataset, i: int) -> None:
        if values[i] is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, values[i])

    return change


PERSONS: dict[str, tuple[dict[str, object], str]] = {
    "another number": ({"PatientID": "P2"}, "another Patient ID"),
    "another of everything": (
        {"PatientID": "P2", "PatientName": "Ruiz^Jo", "PatientSex": "M"},
        "another Patient ID",
    ),
    "one number for all": ({"PatientName": "Ruiz^Jo"}, "another name"),
    "pseudonyms": ({"PatientName": "SUBJECT^2"}, "another name"),
    "birth date": ({"PatientBirthDate": "19550404"}, "another birth date"),
    "sex": ({"PatientSex": "M"}, "another sex"),
    "age": ({"PatientAge": "071Y"}, "another age"),
}


@pytest.mark.parametrize("kind", PERSONS)
@pytest.mark.parametrize("interleaved", [False, True])
def test_two_persons_in_one_series_are_refused(
    tmp_path: Path, kind: str, interleaved: bool
) -> None:
    values, told = PERSONS[kind]

    def change(ds: Dataset, i: int) -> None:
        ds.PatientAge = "059Y"
        if kind == "pseudonyms":
            ds.PatientName = "SUBJECT^1"
        if i % 2 if interleaved else i >= UPPER:
            _upper(**values)(ds, UPPER)

    write_series(tmp_path, 6, change=change)
    with pytest.raises(SeriesError, match=rf"mixed patient \({told} than 00\d\.dcm\)") as refused:
        only(tmp_path)
    for value in ("P1", "P2", "Ruiz", "SUBJECT", "Anna", "1955", "1960", "071"):
        assert value not in str(refused.value)


def test_a_first_slice_without_a_number_hides_no_second_person(tmp_path: Path) -> None:
    write_series(tmp_path, 4, change=_each("PatientID", ["P2", "P1", "P1", ""]))
    with pytest.raises(SeriesError, match="mixed patient"):
        only(tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"PatientName": "MUELLER^ANNA"},
        {"PatientName": "Muller^Anna^^"},
        {"PatientName": "Anna Müller"},
        {"PatientName": "Müller^Anna^Maria"},
        {"PatientName": ""},
        {"PatientID": ""},
        {"PatientID": "p1 "},
        {"PatientSex": "O"},
        {"PatientBirthDate": ""},
    ],
)
def test_one_person_spelled_in_two_ways_stays_one(
    tmp_path: Path, values: dict[str, object]
) -> None:
    assert len(only(write_series(tmp_path, 6, change=_upper(**values))).hu) == 6


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"SeriesNumber": 3}, "mixed series"),
        ({"DeviceSerialNumber": "43"}, "mixed scanner"),
        ({"PatientPosition": "FFS"}, "mixed patient position"),
        ({"StudyDate": "20210607"}, "mixed study"),
        ({"AccessionNumber": "A2"}, "mixed study"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "VMI"]}, "mixed image type"),
        ({"GantryDetectorTilt": 12}, "mixed gantry tilt"),
    ],
)
def test_what_a_scan_has_once_is_compared(
    tmp_path: Path, values: dict[str, object], told: str
) -> None:
    def change(ds: Dataset, i: int) -> None:
        ds.GantryDetectorTilt = 0
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"]
        _upper(**values)(ds, i)

    with pytest.raises(CvsctError, match=told):
        only(write_series(tmp_path, 6, change=change))


INTERLEAVED: dict[str, Change] = {
    "number": _each("AcquisitionNumber", [1, 2, 1, 2, 1, 2]),
    "three": _each("AcquisitionNumber", [1, 2, 3, 1, 2, 3]),
    "pairs": _each("AcquisitionNumber", [1, 1, 2, 2, 1, 1]),
    "one of another": _each("AcquisitionNumber", [1, 1, 1, 2, 1, 1]),
    "some without": _each("AcquisitionNumber", [1, None, 2, 1, 2, None]),
    "event": _each("IrradiationEventUID", ["1.2.7", "1.2.8"] * 3),
    "contrast": _each("ContrastBolusAgent", ["NONE", "OMNIPAQUE"] * 3),
    "phase": _each("NominalPercentageOfCardiacPhase", [30.0, 70.0] * 3),
    "acquisition time": _each("AcquisitionTime", ["101112", "101512"] * 3),
    "close in time": _each(
        "AcquisitionTime", ["101110.1", "101121", "101111.1", "101122", "101112.1", "101123"]
    ),
    "content time": _each("ContentTime", ["101112", "103000"] * 3),
}


@pytest.mark.parametrize("kind", INTERLEAVED)
def test_acquisitions_that_alternate_are_refused(tmp_path: Path, kind: str) -> None:
    write_series(tmp_path, 6, change=INTERLEAVED[kind])
    with pytest.raises(SeriesError, match=r"^00\d\.dcm: \d acquisitions interleaved \(.+; put"):
        only(tmp_path)


def test_two_acquisitions_off_by_less_than_half_the_spacing(tmp_path: Path) -> None:
    def change(ds: Dataset, i: int) -> None:
        ds.AcquisitionNumber = i % 2
        ds.ImagePositionPatient = [-100, -120, 5 * (i // 2) + i % 2]

    with pytest.raises(SeriesError, match="2 acquisitions interleaved"):
        only(write_series(tmp_path, 6, change=change))


ONE_STACK: dict[str, Change] = {
    "two blocks": _each("AcquisitionNumber", [1, 1, 1, 2, 2, 2]),
    "downwards": _each("AcquisitionNumber", [3, 3, 2, 2, 1, 1]),
    "step and shoot": _each("AcquisitionNumber", [1, 2, 3, 4, 5, 6]),
    "each in its own order": _each("AcquisitionNumber", [1, 2, 4, 3, 6, 5]),
    "not all numbered": _each("AcquisitionNumber", [1, None, 1, 2, None, 2]),
    "blocks in time": _each("AcquisitionTime", ["101112"] * 3 + ["101512"] * 3),
    "along the table": _each("AcquisitionTime", [f"10111{i}.5" for i in range(6)]),
    "against the table": _each("AcquisitionTime", [f"10111{9 - i}" for i in range(6)]),
    "four rows a turn": _each(
        "AcquisitionTime", ["101110.3", "101110.2", "101110.1", "101113.3", "101113.2", "101113.1"]
    ),
    "created in any order": _each("ContentTime", ["101115", "101112", "101119", "101113"] * 2),
    "one created again": _each("ContentTime", ["101112", "101113", "104000"] + ["101114"] * 3),
}


@pytest.mark.parametrize("kind", ONE_STACK)
def test_acquisitions_that_follow_each_other_are_one_stack(tmp_path: Path, kind: str) -> None:
    volume = only(write_series(tmp_path, 6, change=ONE_STACK[kind]))
    assert len(volume.hu) == 6
    assert volume.notes == ()


def test_two_slices_exchanged_between_blocks_are_noted(tmp_path: Path) -> None:
    volume = only(write_series(tmp_path, 6, change=_each("AcquisitionNumber", [1, 1, 2, 1, 2, 2])))
    assert volume.notes == (
        "two neighboring slices are exchanged between acquisitions (Acquisition Number)",
    )


def test_slices_at_one_place_say_whether_they_are_of_two_acquisitions(tmp_path: Path) -> None:
    def twice(ds: Dataset, i: int) -> None:
        ds.ImagePositionPatient = [-100, -120, 5 * (i // 2)]

    def acquired_twice(ds: Dataset, i: int) -> None:
        twice(ds, i)
        ds.AcquisitionNumber = 1 + i % 2

    with pytest.raises(CvsctError, match=r"\(of the same acquisition\); remove the copy"):
        only(write_series(tmp_path / "copies", 6, change=twice))
    with pytest.raises(CvsctError, match="two acquisitions, Acquisition Number differs"):
        only(write_series(tmp_path / "acquired", 6, change=acquired_twice))


@pytest.mark.parametrize("keyword", ["FrameAcquisitionNumber", "TemporalPositionIndex", "StackID"])
def test_frames_of_two_acquisitions_are_refused(tmp_path: Path, keyword: str) -> None:
    ds = enhanced()
    for group in ds.PerFrameFunctionalGroupsSequence:
        place = int(group.PlanePositionSequence[0].ImagePositionPatient[2]) // 5
        number = 1 + place % 2
        setattr(
            group.FrameContentSequence[0], keyword, str(number) if keyword == "StackID" else number
        )
    with pytest.raises(SeriesError, match=r"a\.dcm: frame \d: 2 acquisitions interleaved"):
        only(write_slice(tmp_path / "a.dcm", ds))


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
def test_a_long_uid_is_one_series_and_noted(tmp_path: Path) -> None:
    long = "1.2.3." + "9" * 60
    folder = write_series(tmp_path, 4, series=long)
    assert [each.series_uid for each in find_series(folder)] == [long]
    assert "SeriesInstanceUID of 66 characters, at most 64 are allowed" in only(folder).notes


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
@pytest.mark.parametrize(
    ("uid", "told"),
    [("1.2." + "9" * 200, "204 characters, 64 are allowed"), ("DOE/JOHN", "other than digits")],
)
def test_an_impossible_uid_is_one_refusal_that_says_why(
    tmp_path: Path, uid: str, told: str
) -> None:
    def change(ds: Dataset, i: int) -> None:
        ds.SeriesInstanceUID = uid

    (refusal,) = read_tree(write_series(tmp_path, 4, change=change))
    assert isinstance(refusal, Refusal)
    assert told in refusal.reason
    assert refusal.series_uid == ""
    assert "DOE" not in refusal.reason
