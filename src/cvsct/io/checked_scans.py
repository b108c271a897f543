"""Check of all scans before a training: the sound ones, and the refusals of the others.

Every series is opened first, so that all refusals are known at once, and not one by one while
a training reads its scans.
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
"""Slices read at once when pixels are checked; they are not kept."""


@dataclass(frozen=True)
class CheckedScans:
    """The series under a path, sound or refused.

    Args:
        scans: the sound series.
        refused: reasons for the others, by number in the order of `cvsct inspect`.
        harmonized: the sound series that this program harmonized, by number.
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


def check_series(
    path: Path, pixels: bool = False, progress: Progress = silent, what: str = "checking"
) -> CheckedScans:
    """Open every series under a path and collect the refusals.

    Args:
        pixels: read all pixels too, for damage that no header shows.
        what: name of the stage, for progress.

    Raises:
        SeriesError: if there is no CT series at all.
    """
    listed = catalog(path)
    all_series = listed.series
    sound: list[tuple[SeriesFiles, ScanFacts]] = []
    refused: dict[int, str] = {}
    ours: dict[int, SeriesFiles] = {}
    progress(what, 0, len(all_series))
    for number, series in enumerate(all_series, 1):
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
        progress(what, number, len(all_series))
    return CheckedScans(_on_disk(sound), refused, ours, listed.left_out)


def _on_disk(pairs: Sequence[tuple[SeriesFiles, ScanFacts]]) -> SeriesOnDisk:
    return SeriesOnDisk(tuple(series for series, _ in pairs), tuple(facts for _, facts in pairs))


def _facts_of_sound(series: SeriesFiles, pixels: bool) -> ScanFacts:
    """Facts from the headers of a series, after the whole series was checked.

    Raises:
        CvsctError, OSError: if it is not sound.
    """
    facts = read_facts(series)
    opened = open_series(series)
    if pixels:
        for start in range(0, len(opened), SLICES_AT_ONCE):
            opened.read(start, min(start + SLICES_AT_ONCE, len(opened)))
    return facts
