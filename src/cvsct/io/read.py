"""CT on disk, DICOM or NIfTI, to volumes in HU; every refusal names the file and the reason.

`io.catalog` reads headers and groups files, `read_series` turns one group into a volume
(`io.dicom.stack` does it part by part), and `read_facts` gives facts about it from one header.
`read_tree` goes on after a series it must refuse, `read_all` stops at the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cvsct.core.errors import CvsctError, SeriesError
from cvsct.core.volume import CTVolume, ScanFacts
from cvsct.io.catalog import find_series
from cvsct.io.dicom.assembly import MAX_VOXELS
from cvsct.io.dicom.header import quiet
from cvsct.io.dicom.stack import SeriesFiles, acquisition_of, patient_of, read_header
from cvsct.io.series import open_headers, open_series

__all__ = [
    "MAX_VOXELS",
    "Refusal",
    "SeriesFiles",
    "find_series",
    "read_all",
    "read_facts",
    "read_series",
    "read_tree",
]


@dataclass(frozen=True)
class Refusal:
    """A series that could not be read, and why."""

    series_uid: str
    reason: str


def read_series(series: SeriesFiles) -> CTVolume:
    """Read one series as a volume, its slices ordered by position.

    Raises:
        SeriesError: if a file is not a sound CT slice, or the files do not belong together.
        GeometryError: if the slices do not form one regular stack.
    """
    with quiet():  # once for all attributes of all files
        return open_series(series).read()


def read_facts(series: SeriesFiles) -> ScanFacts:
    """Facts about a series from one header; whether its files belong together is not checked.

    Raises:
        SeriesError, GeometryError: if that header must be refused.
    """
    if series.refused:
        raise SeriesError(series.refused)
    stats = [(file.name, file.stat()) for file in series.files]
    stamp = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    if series.frames:  # one file tells it all
        stack = open_headers(series)
        shape, where = stack.shape, stack.geometry
        pixel_mm, thickness_mm = where.pixel_mm, where.thickness_mm
        acquisition, patient = stack.acquisition, stack.patient
    else:
        header, plane, encoding = read_header(series.files[0])
        shape = len(series.files), encoding.rows, encoding.columns
        pixel_mm, thickness_mm = plane.pixel_mm, plane.thickness_mm
        acquisition, patient = acquisition_of(header), patient_of(header)
    return ScanFacts(
        series_uid=series.series_uid,
        shape=shape,
        pixel_mm=pixel_mm,
        thickness_mm=thickness_mm,
        acquisition=acquisition,
        patient=patient,
        stamp=hashlib.sha256(stamp.encode()).hexdigest()[:16],
    )


def read_tree(path: Path) -> Iterator[CTVolume | Refusal]:
    """Read every series under a path one after the other, going on after those refused.

    Raises:
        SeriesError: if there is no CT series at all.
    """
    for series in find_series(path):
        try:
            yield read_series(series)
        except CvsctError as error:
            yield Refusal(series.series_uid, str(error))


def read_all(path: Path) -> list[CTVolume]:
    """Read every series under a path.

    Raises:
        SeriesError, GeometryError: at the first series that must be refused.
    """
    return [read_series(series) for series in find_series(path)]
