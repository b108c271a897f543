"""Survey of a file, a folder or a tree: every CT series, and a census of them by protocol.

Each series is read in full, so a refusal here is the refusal that the other commands give. The
results hold technical attributes, the day of the study and a hash of the patient; reasons for a
refusal name files.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cvsct.core.errors import CvsctError
from cvsct.core.progress import Progress, silent
from cvsct.core.volume import Acquisition
from cvsct.io.dicom.header import read_dataset, text
from cvsct.io.nifti.header import is_nifti
from cvsct.io.read import SeriesFiles, read_facts, read_series


@dataclass(frozen=True)
class SurveyedSeries:
    """Description of one series that was surveyed.

    Args:
        refused: why it cannot be read; empty where it can.
        shape: slices, rows, columns; None where not even one header can be read.
        pixel_mm: spacing between rows and between columns.
        spacing_mm: between slices; None where the series cannot be read, or is a single slice.
        thickness_mm: 0 where the file does not say.
        padded: whether pixels are marked as padding.
        notes: remarks on a series that can be read.
        patient: hash, the same for all scans of one patient; empty where unknown.
        study_date: `YYYY-MM-DD`; empty where the file does not say.
    """

    series_uid: str
    n_files: int
    refused: str = ""
    acquisition: Acquisition = field(default_factory=Acquisition)
    shape: tuple[int, int, int] | None = None
    pixel_mm: tuple[float, float] | None = None
    spacing_mm: float | None = None
    thickness_mm: float | None = None
    padded: bool = False
    notes: tuple[str, ...] = ()
    patient: str = field(default="", repr=False)
    study_date: str = ""

    def to_json(self) -> dict[str, Any]:
        """The description as JSON values."""
        slices, rows, columns = self.shape or (None, None, None)
        return {
            "series_uid": self.series_uid,
            "readable": not self.refused,
            "refused": self.refused,
            "files": self.n_files,
            "manufacturer": self.acquisition.manufacturer,
            "model": self.acquisition.model,
            "kernel": self.acquisition.kernel,
            "kvp": self.acquisition.kvp or None,
            "slices": slices,
            "rows": rows,
            "columns": columns,
            "pixel_mm": list(self.pixel_mm) if self.pixel_mm else None,
            "spacing_mm": self.spacing_mm,
            "thickness_mm": self.thickness_mm or None,
            "padded": self.padded,
            "notes": list(self.notes),
            "patient": self.patient,
            "study_date": self.study_date,
        }


@dataclass(frozen=True)
class CensusRow:
    """Series of one protocol: the same scanner, kernel, tube voltage and slice thickness.

    Args:
        kvp, thickness_mm: 0 where files do not say.
        n_patients: distinct patients; series of unknown patients do not count.
        n_refused: series that cannot be read; their slices do not count.
        first_date, last_date: of studies, `YYYY-MM-DD`; empty where no file says.
    """

    scanner: str
    kernel: str
    kvp: float
    thickness_mm: float
    n_patients: int
    n_series: int
    n_refused: int
    n_slices: int
    first_date: str
    last_date: str


def census(series: Sequence[SurveyedSeries]) -> list[CensusRow]:
    """Count series by protocol, the largest group first.

    Example:
        >>> series = SurveyedSeries("1.2", 3, shape=(3, 512, 512), thickness_mm=5.0)
        >>> [(row.n_series, row.n_slices) for row in census([series, series])]
        [(2, 6)]
    """
    groups: defaultdict[tuple[str, str, float, float], list[SurveyedSeries]] = defaultdict(list)
    for member in series:
        acquisition, thickness_mm = member.acquisition, round(member.thickness_mm or 0.0, 2)
        protocol = acquisition.scanner, acquisition.kernel, acquisition.kvp, thickness_mm
        groups[protocol].append(member)
    rows = []
    for protocol, members in groups.items():
        dates = sorted(filter(None, (member.study_date for member in members)))
        readable = [member for member in members if not member.refused]
        rows.append(
            CensusRow(
                *protocol,
                n_patients=len({member.patient for member in members} - {""}),
                n_series=len(members),
                n_refused=len(members) - len(readable),
                n_slices=sum(member.shape[0] for member in readable if member.shape),
                first_date=dates[0] if dates else "",
                last_date=dates[-1] if dates else "",
            )
        )
    return sorted(rows, key=lambda row: (-row.n_series, row.scanner, row.kernel, row.kvp))


def survey(series: Sequence[SeriesFiles], progress: Progress = silent) -> Iterator[SurveyedSeries]:
    """Read and describe every series that `catalog` found, one in memory at a time."""
    for number, files in enumerate(series, 1):
        yield _survey_series(files)
        progress("reading", number, len(series))


def _survey_series(series: SeriesFiles) -> SurveyedSeries:
    description = SurveyedSeries(
        series.series_uid, len(series.files), study_date=_study_date(series)
    )
    try:
        volume = read_series(series)
    except CvsctError as error:
        return _describe_refused(description, series, str(error))
    return replace(
        description,
        acquisition=volume.acquisition,
        shape=(volume.hu.shape[0], volume.hu.shape[1], volume.hu.shape[2]),
        pixel_mm=volume.geometry.pixel_mm,
        spacing_mm=round(volume.geometry.spacing_mm, 4) if len(volume.hu) > 1 else None,
        thickness_mm=volume.geometry.thickness_mm,
        padded=volume.padding is not None,
        notes=volume.notes,
        patient=volume.patient,
    )


def _study_date(series: SeriesFiles) -> str:
    """Day of the study, or of the acquisition; empty if the first file has neither."""
    file = series.files[0]
    if is_nifti(file):
        return ""
    try:
        header = read_dataset(file, pixels=False, tags=["StudyDate", "AcquisitionDate"])
    except CvsctError:
        return ""
    for keyword in ("StudyDate", "AcquisitionDate"):
        day = re.fullmatch(r"(\d{4})(\d{2})(\d{2})", text(header, keyword))
        if day:
            return "-".join(day.groups())
    return ""


def _describe_refused(
    description: SurveyedSeries, series: SeriesFiles, reason: str
) -> SurveyedSeries:
    """Describe a refused series by its first header, if that can be read."""
    try:
        facts = read_facts(series)
    except CvsctError:
        return replace(description, refused=reason)
    return replace(
        description,
        refused=reason,
        acquisition=facts.acquisition,
        shape=facts.shape,
        pixel_mm=facts.pixel_mm,
        thickness_mm=facts.thickness_mm,
        patient=facts.patient,
    )
