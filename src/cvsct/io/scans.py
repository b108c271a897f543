"""Many series as one sequence of scans that need not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cvsct.core.volume import CTVolume, ScanFacts
from cvsct.io.catalog import find_series
from cvsct.io.read import SeriesFiles, read_facts, read_series


@dataclass(frozen=True)
class SeriesOnDisk:
    """Series that are read one at a time, and again at each pass.

    Args:
        series: in the order in which they are read.
        facts: from one header of each.
    """

    series: tuple[SeriesFiles, ...]
    facts: tuple[ScanFacts, ...]

    def __len__(self) -> int:
        return len(self.series)

    def __iter__(self) -> Iterator[CTVolume]:
        """Read each series; nothing here holds on to it.

        Raises:
            SeriesError, GeometryError: at the first series that must be refused.
        """
        for series in self.series:
            yield read_series(series)


def open_scans(path: Path) -> SeriesOnDisk:
    """The CT series in a file, folder or tree, described from headers and not yet read.

    Raises:
        SeriesError, GeometryError: if there is no series, or one whose first header is refused.
    """
    series = tuple(find_series(path))
    return SeriesOnDisk(series, tuple(map(read_facts, series)))
