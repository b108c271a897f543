"""Whether slices that share a Series Instance UID are one scan of one person.

UIDs alone do not show it: software that removes identities has given two patients the same, and
archives have put two acquisitions into one series. `OneScan` takes the header of each slice and
refuses one that differs in an attribute that a scan has once. Attributes that an acquisition has
once are kept as a `SliceAcquisition`, to be compared in order of position
(`io.dicom.interleaved`). Values are compared, never printed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import SequenceMatcher

from pydicom import Dataset

from cvsct.core.errors import SeriesError
from cvsct.io.dicom.header import number, quiet, text

MIN_NAME_SIMILARITY = 0.8
"""Least share of letters that two spellings of one name have in common (Ratcliff, Obershelp)."""
SAME_TILT_DEGREES = 0.5
_EPOCH = datetime(1900, 1, 1)

_PERSON_ATTRIBUTES = {
    "PatientID": "Patient ID",
    "PatientBirthDate": "birth date",
    "PatientSex": "sex",
    "PatientAge": "age",
    "PatientName": "name",
}
_STUDY_ATTRIBUTES = {"StudyDate": "Study Date", "AccessionNumber": "Accession Number"}
_SERIES_ATTRIBUTES = {
    "SeriesNumber": ("series", "Series Number"),
    "DeviceSerialNumber": ("scanner", "serial number"),
    "PatientPosition": ("patient position", "Patient Position"),
    "ReconstructionAlgorithm": ("reconstruction", "Reconstruction Algorithm"),
}
_ACQUISITION_ATTRIBUTES = {
    "AcquisitionNumber": "Acquisition Number",
    "AcquisitionUID": "Acquisition UID",
    "IrradiationEventUID": "Irradiation Event UID",
    "TemporalPositionIdentifier": "Temporal Position",
    "NominalPercentageOfCardiacPhase": "cardiac phase",
    "ContrastBolusAgent": "contrast agent",
    "ScanOptions": "Scan Options",
    "FilterType": "Filter Type",
    "SpiralPitchFactor": "pitch",
    "TotalCollimationWidth": "collimation",
}
"""Attributes with one value in an acquisition, and maybe another in the next one of a series."""
SEPARATE_REMEDY = "put the files of each into a folder that is an INPUT of its own"
"""Remedy, in messages, where files of one Series Instance UID are not one scan."""
ACQUIRED, CREATED = "Acquisition Time", "Content Time"


@dataclass(frozen=True)
class SliceAcquisition:
    """The acquisition that a slice belongs to and its times, as far as its header tells.

    Args:
        name: of the slice, in messages.
        marks: values that distinguish acquisitions, by attribute; those that the header has.
        times_s: seconds since some day, of the acquisition and of the image.
    """

    name: str
    marks: Mapping[str, str]
    times_s: Mapping[str, float]

    def differs(self, other: SliceAcquisition) -> str:
        """Name of the first attribute in which two acquisitions differ, or an empty text."""
        for attribute, mark in self.marks.items():
            if mark and other.marks.get(attribute, mark) != mark:
                return attribute
        time_s, other_s = self.times_s.get(ACQUIRED), other.times_s.get(ACQUIRED)
        return ACQUIRED if None not in (time_s, other_s) and time_s != other_s else ""


@dataclass
class OneScan:
    """Attributes that all slices of a scan share, compared as slices are added.

    Args:
        slice_acquisitions: one for each slice, in the order of the calls of `add`.
    """

    slice_acquisitions: list[SliceAcquisition] = field(default_factory=list)
    _known: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The first value of each attribute that has one, and the slice that has it."""

    def add(self, name: str, header: Dataset, marks: Mapping[str, str] | None = None) -> None:
        """Add a slice, or refuse it.

        Args:
            marks: values that distinguish its acquisition and are not in its header.

        Raises:
            SeriesError: if it cannot be of the same scan as those before, naming what differs.
        """
        with quiet():  # once for all that is read here
            self._add(name, header, marks or {})

    def _add(self, name: str, header: Dataset, marks: Mapping[str, str]) -> None:
        self._refuse_other_person(name, header)
        for keyword, what in _STUDY_ATTRIBUTES.items():
            self._refuse_other(name, keyword, text(header, keyword), "study", what)
        for keyword, (kind, what) in _SERIES_ATTRIBUTES.items():
            self._refuse_other(name, keyword, text(header, keyword).upper(), kind, what)
        kinds = "\\".join(text(header, "ImageType").upper().split("\\")[2:])
        self._refuse_other(name, "ImageType", kinds, "image type", "Image Type")
        self._refuse_other_tilt(name, number(header, "GantryDetectorTilt"))
        marks_of_header = {
            attribute: text(header, keyword)
            for keyword, attribute in _ACQUISITION_ATTRIBUTES.items()
        }
        self.slice_acquisitions.append(
            SliceAcquisition(
                name, {**{k: v for k, v in marks_of_header.items() if v}, **marks}, _times(header)
            )
        )

    def _refuse_other_person(self, name: str, header: Dataset) -> None:
        first = {key: self._known.get(key, ("", "")) for key in _PERSON_ATTRIBUTES}
        values = {keyword: text(header, keyword) for keyword in _PERSON_ATTRIBUTES}
        id_same = _same_id(values["PatientID"], first["PatientID"][0])
        for keyword, what in _PERSON_ATTRIBUTES.items():
            value, (known, where) = values[keyword], first[keyword]
            if not value:
                continue
            if not known:
                self._known[keyword] = value, name
            elif not _of_one_person(keyword, value, known, id_same):
                raise SeriesError(
                    f"{name}: mixed patient (another {what} than {where}); two persons share a "
                    f"Series Instance UID: {SEPARATE_REMEDY}"
                )

    def _refuse_other(self, name: str, keyword: str, value: str, kind: str, what: str) -> None:
        if not value:
            return
        known, where = self._known.setdefault(keyword, (value, name))
        if value != known:
            raise SeriesError(
                f"{name}: mixed {kind} (another {what} than {where}); {SEPARATE_REMEDY}"
            )

    def _refuse_other_tilt(self, name: str, tilt: float | None) -> None:
        if tilt is None:
            return
        known, where = self._known.setdefault("GantryDetectorTilt", (repr(tilt), name))
        if abs(float(known) - tilt) > SAME_TILT_DEGREES:
            raise SeriesError(
                f"{name}: mixed gantry tilt ({tilt:g} degrees, {where} has {float(known):g}); "
                f"{SEPARATE_REMEDY}"
            )


def _same_id(patient_id: str, other: str) -> bool:
    return bool(patient_id) and patient_id.strip().casefold() == other.strip().casefold()


def _of_one_person(keyword: str, value: str, other: str, id_same: bool) -> bool:
    """Whether two values of an attribute can belong to one person; both are present."""
    if keyword == "PatientID":
        return id_same
    if keyword == "PatientSex":
        return {value.upper(), other.upper()} != {"M", "F"}  # other letters say that it is unknown
    if keyword != "PatientName":
        value, other = (
            re.sub(r"[^0-9A-Za-z]", "", spelling).lstrip("0") for spelling in (value, other)
        )
        return value == other
    words, known = _words(value), _words(other)
    if words <= known or known <= words:
        return True
    if not id_same or _digits(value) != _digits(other):
        return False
    spelled = " ".join(sorted(words)), " ".join(sorted(known))
    return SequenceMatcher(None, *spelled).ratio() >= MIN_NAME_SIMILARITY


def _digits(name: str) -> list[str]:
    return re.findall(r"[0-9]+", name)


def _words(name: str) -> set[str]:
    """The words of a name without case, accents, order and punctuation."""
    plain = unicodedata.normalize("NFKD", (name.split("=", maxsplit=1)[0] or name).casefold())
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    for written, as_one in (("ae", "a"), ("oe", "o"), ("ue", "u")):
        plain = plain.replace(written, as_one)
    return set(re.findall(r"\w+", plain.replace("_", " ")))


def _times(header: Dataset) -> dict[str, float]:
    acquired = text(header, "AcquisitionDateTime") or (
        text(header, "AcquisitionDate") + text(header, "AcquisitionTime")
    )
    created = text(header, "ContentDate") + text(header, "ContentTime")
    times_s = {ACQUIRED: _seconds(acquired), CREATED: _seconds(created)}
    return {attribute: time_s for attribute, time_s in times_s.items() if time_s is not None}


def _seconds(date_and_time: str) -> float | None:
    """Seconds since 1900 of a DICOM date and time, or since midnight of a time alone."""
    parts = re.match(r"(\d{8})?(\d{2})(\d{2})(\d{2}(?:\.\d+)?)?", re.sub("[:-]", "", date_and_time))
    if not parts:
        return None
    date, hour, minute, second = parts.groups()
    try:
        day = datetime.strptime(date, "%Y%m%d") if date else _EPOCH
    except ValueError:
        return None
    day_s = (day - _EPOCH).total_seconds()
    return day_s + int(hour) * 3600 + int(minute) * 60 + float(second or 0)
