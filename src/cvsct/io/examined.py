"""Scans looked at before anything is learned from them: the sound ones, and all that are not.

A training meets a series that must be refused only when it comes to it. Here every series is
opened first, so that all refusals are known at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cvsct.core.errors import CvsctError
from cvsct.core.progress import Progress, silent
from cvsct.core.volume import ScanFacts
from cvsct.io.catalog import catalog
from cvsct.io.dicom.header import label
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.left_out import LeftOut
from cvsct.io.read import read_facts
from cvsct.io.scans import SeriesOnDisk
from cvsct.io.series import is_harmonized, open_series

SLICES_AT_ONCE = 16
"""Of a series whose pixels are tried; what was read is let go."""


@dataclass(frozen=True)
class Examined:
    """The series under a path.

    Args:
        scans: those that are sound.
        refused: why the others are not, by their number, as `cvsct inspect` counts them.
        harmonized: of the sound ones those that this program made, by their number.
        left_out: files under the path that are no part of any series.
    """

    scans: SeriesOnDisk
    refused: Mapping[int, str]
    harmonized: Mapping[int, SeriesFiles]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def acquired(self) -> SeriesOnDisk:
        """The sound scans that a scanner made."""
        ours = set(self.harmonized.values())
        pairs = zip(self.scans.series, self.scans.facts, strict=True)
        kept = [(series, facts) for series, facts in pairs if series not in ours]
        return _on_disk(kept)


def examine(
    path: Path, pixels: bool = False, progress: Progress = silent, what: str = "checking"
) -> Examined:
    """Open every series under a path; those that must be refused are told, not raised.

    Args:
        pixels: read all pixels too, for damage that no header shows.
        what: is done, for progress.

    Raises:
        SeriesError: if there is no CT series at all.
    """
    listed = catalog(path)
    found = listed.series
    sound: list[tuple[SeriesFiles, ScanFacts]] = []
    refused: dict[int, str] = {}
    ours: dict[int, SeriesFiles] = {}
    progress(what, 0, len(found))
    for number, series in enumerate(found, 1):
        try:
            facts = _facts_of_sound(series, pixels)
            if is_harmonized(series):
                ours[number] = series
            sound.append((series, facts))
        except CvsctError as error:
            refused[number] = str(error)
        except OSError as error:
            why = error.strerror or type(error).__name__
            refused[number] = f"{label(series.files[0])}: {why}"
        progress(what, number, len(found))
    return Examined(_on_disk(sound), refused, ours, listed.left_out)


def _on_disk(pairs: Sequence[tuple[SeriesFiles, ScanFacts]]) -> SeriesOnDisk:
    return SeriesOnDisk(tuple(one for one, _ in pairs), tuple(facts for _, facts in pairs))


def _facts_of_sound(series: SeriesFiles, pixels: bool) -> ScanFacts:
    """What headers tell of a series after all of it was checked.

    Raises:
        CvsctError, OSError: if it is not sound.
    """
    facts = read_facts(series)
    opened = open_series(series)
    if pixels:
        for start in range(0, len(opened), SLICES_AT_ONCE):
            opened.read(start, min(start + SLICES_AT_ONCE, len(opened)))
    return facts
