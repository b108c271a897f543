"""What a file, a folder or a tree holds: every CT series, by technical attributes alone.

Whether a series can be read is found out by reading it, so what is told here is what the other
commands will say. No path and no attribute that could name a patient is among the answers, but
reasons for a refusal name files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cvsct.errors import CvsctError
from cvsct.io.dicom import SeriesFiles, read_facts, read_series
from cvsct.runs import Progress, silent
from cvsct.volume import Acquisition


@dataclass(frozen=True)
class Surveyed:
    """One series.

    Args:
        refused: why it cannot be read; empty where it can.
        shape: slices, rows, columns; None where not even one header can be read.
        pixel_mm: spacing between rows and between columns.
        spacing_mm: between slices; None where the series cannot be read, or is a single slice.
        thickness_mm: 0 where the file does not say.
        padded: whether pixels are marked as padding.
        notes: what is odd about a series that can be read.
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

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
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
        }


def survey(found: Sequence[SeriesFiles], progress: Progress = silent) -> Iterator[Surveyed]:
    """Look at every series that `catalog` found, one in memory at a time."""
    for number, series in enumerate(found, 1):
        yield _look_at(series)
        progress("reading", number, len(found))


def _look_at(series: SeriesFiles) -> Surveyed:
    about = Surveyed(series.series_uid, len(series.files))
    try:
        volume = read_series(series)
    except CvsctError as error:
        return _by_header(about, series, str(error))
    return replace(
        about,
        acquisition=volume.acquisition,
        shape=(volume.hu.shape[0], volume.hu.shape[1], volume.hu.shape[2]),
        pixel_mm=volume.geometry.pixel_mm,
        spacing_mm=round(volume.geometry.spacing_mm, 4) if len(volume.hu) > 1 else None,
        thickness_mm=volume.geometry.thickness_mm,
        padded=volume.padding is not None,
        notes=volume.notes,
    )


def _by_header(about: Surveyed, series: SeriesFiles, reason: str) -> Surveyed:
    """What the first header tells of a series that is refused, where it tells anything."""
    try:
        facts = read_facts(series)
    except CvsctError:
        return replace(about, refused=reason)
    return replace(
        about,
        refused=reason,
        acquisition=facts.acquisition,
        shape=facts.shape,
        pixel_mm=facts.pixel_mm,
        thickness_mm=facts.thickness_mm,
    )
