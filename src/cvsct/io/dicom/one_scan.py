"""Whether slices that share a Series Instance UID are one scan of one person.

UIDs alone do not show it: software that removes identities has given two patients the same, and
archives have put two acquisitions into one series. `OneScan` takes the header of each slice and
refuses one that differs in what a scan has once; what only acquisitions have once is kept as an
`Episode`, for slices in order of position (`io.dicom.interleaved`). Values are compared, never
told.
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

ALIKE = 0.8
"""Share of letters that two spellings of one name have in common (Ratcliff and Obershelp)."""
SAME_TILT_DEGREES = 0.5
_EPOCH = datetime(1900, 1, 1)

_OF_A_PERSON = {
    "PatientID": "Patient ID",
    "PatientBirthDate": "birth date",
    "PatientSex": "sex",
    "PatientAge": "age",
    "PatientName": "name",
}
_OF_A_STUDY = {"StudyDate": "Study Date", "AccessionNumber": "Accession Number"}
_OF_A_SERIES = {
    "SeriesNumber": ("series", "Series Number"),
    "DeviceSerialNumber": ("scanner", "serial number"),
    "PatientPosition": ("patient position", "Patient Position"),
    "ReconstructionAlgorithm": ("reconstruction", "Reconstruction Algorithm"),
}
_EPISODES = {
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
"""What an acquisition has once, and the next acquisition of the same series may have otherwise."""
APART = "put the files of each into a folder that is an INPUT of its own"
"""What helps where files of one Series Instance UID are not one scan."""
ACQUIRED, CREATED = "Acquisition Time", "Content Time"


@dataclass(frozen=True)
class Episode:
    """What a slice's header says of when and in which acquisition it was made.

    Args:
        name: the slice's, in messages.
        marks: what acquisitions are told apart by, where the header says it.
        times_s: seconds since some day, of the acquisition and of the image.
    """

    name: str
    marks: Mapping[str, str]
    times_s: Mapping[str, float]

    def differs(self, other: Episode) -> str:
        """The first thing in which two slices' acquisitions differ, in words; empty where none."""
        for what, mark in self.marks.items():
            if mark and other.marks.get(what, mark) != mark:
                return what
        at, then = self.times_s.get(ACQUIRED), other.times_s.get(ACQUIRED)
        return ACQUIRED if None not in (at, then) and at != then else ""


@dataclass
class OneScan:
    """What the slices seen so far have in common.

    Args:
        episodes: of each slice, in the order in which they came.
    """

    episodes: list[Episode] = field(default_factory=list)
    _known: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The first value of each attribute that has one, and the slice that has it."""

    def add(self, name: str, header: Dataset, marks: Mapping[str, str] | None = None) -> None:
        """Take in a slice.

        Args:
            marks: what tells its acquisition besides its header.

        Raises:
            SeriesError: if it cannot be of the same scan as those before, naming what differs.
        """
        with quiet():  # once for all that is read here
            self._add(name, header, marks or {})

    def _add(self, name: str, header: Dataset, marks: Mapping[str, str]) -> None:
        self._refuse_other_person(name, header)
        for keyword, what in _OF_A_STUDY.items():
            self._refuse_other(name, keyword, text(header, keyword), "study", what)
        for keyword, (kind, what) in _OF_A_SERIES.items():
            self._refuse_other(name, keyword, text(header, keyword).upper(), kind, what)
        kinds = "\\".join(text(header, "ImageType").upper().split("\\")[2:])
        self._refuse_other(name, "ImageType", kinds, "image type", "Image Type")
        self._refuse_other_tilt(name, number(header, "GantryDetectorTilt"))
        told = {what: text(header, keyword) for keyword, what in _EPISODES.items()}
        self.episodes.append(
            Episode(name, {**{k: v for k, v in told.items() if v}, **marks}, _times(header))
        )

    def _refuse_other_person(self, name: str, header: Dataset) -> None:
        first = {key: self._known.get(key, ("", "")) for key in _OF_A_PERSON}
        values = {keyword: text(header, keyword) for keyword in _OF_A_PERSON}
        id_same = _same_id(values["PatientID"], first["PatientID"][0])
        for keyword, what in _OF_A_PERSON.items():
            value, (known, where) = values[keyword], first[keyword]
            if not value:
                continue
            if not known:
                self._known[keyword] = value, name
            elif not _of_one_person(keyword, value, known, id_same):
                raise SeriesError(
                    f"{name}: mixed patient (another {what} than {where}); two persons share a "
                    f"Series Instance UID: {APART}"
                )

    def _refuse_other(self, name: str, keyword: str, value: str, kind: str, what: str) -> None:
        if not value:
            return
        known, where = self._known.setdefault(keyword, (value, name))
        if value != known:
            raise SeriesError(f"{name}: mixed {kind} (another {what} than {where}); {APART}")

    def _refuse_other_tilt(self, name: str, tilt: float | None) -> None:
        if tilt is None:
            return
        known, where = self._known.setdefault("GantryDetectorTilt", (repr(tilt), name))
        if abs(float(known) - tilt) > SAME_TILT_DEGREES:
            raise SeriesError(
                f"{name}: mixed gantry tilt ({tilt:g} degrees, {where} has {float(known):g}); "
                f"{APART}"
            )


def _same_id(one: str, other: str) -> bool:
    return bool(one) and one.strip().casefold() == other.strip().casefold()


def _of_one_person(keyword: str, one: str, other: str, id_same: bool) -> bool:
    """Whether two values that are both there can be the same person's."""
    if keyword == "PatientID":
        return id_same
    if keyword == "PatientSex":
        return {one.upper(), other.upper()} != {"M", "F"}  # other letters say that it is unknown
    if keyword != "PatientName":
        one, other = (re.sub(r"[^0-9A-Za-z]", "", value).lstrip("0") for value in (one, other))
        return one == other
    words, known = _words(one), _words(other)
    if words <= known or known <= words:
        return True
    if not id_same or _digits(one) != _digits(other):
        return False
    spelled = " ".join(sorted(words)), " ".join(sorted(known))
    return SequenceMatcher(None, *spelled).ratio() >= ALIKE


def _digits(name: str) -> list[str]:
    return re.findall(r"[0-9]+", name)


def _words(name: str) -> set[str]:
    """The words of a name as spellings of it share them: no case, accent, order or punctuation."""
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
    found = {ACQUIRED: _seconds(acquired), CREATED: _seconds(created)}
    return {what: at for what, at in found.items() if at is not None}


def _seconds(told: str) -> float | None:
    """Seconds since 1900 of a DICOM date and time, of a time alone since midnight."""
    parts = re.match(r"(\d{8})?(\d{2})(\d{2})(\d{2}(?:\.\d+)?)?", re.sub("[:-]", "", told))
    if not parts:
        return None
    date, hour, minute, second = parts.groups()
    try:
        day = datetime.strptime(date, "%Y%m%d") if date else _EPOCH
    except ValueError:
        return None
    passed_s = (day - _EPOCH).total_seconds()
    return passed_s + int(hour) * 3600 + int(minute) * 60 + float(second or 0)
