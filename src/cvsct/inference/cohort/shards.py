"""Selection of the series of a run: all of a cohort, or one of N parts of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cvsct.core.errors import UsageError
from cvsct.inference.streaming import folder_name
from cvsct.io.dicom.stack import SeriesFiles


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a cohort; a series belongs to a part by the hash of its UID.

    Args:
        index: number of the part, from 1.
        count: number of parts.
    """

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse text such as `2/4`.

        Raises:
            UsageError: if the text is anything else.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        shard = cls(*map(int, match.groups())) if match else cls(0, 0)
        if not 1 <= shard.index <= shard.count:
            raise UsageError(f"--shard {text}: expected I/N with I from 1 to N, such as 2/4")
        return shard

    @property
    def name(self) -> str:
        """Name of the part in file names, such as `2of4`; empty for the whole."""
        return f"{self.index}of{self.count}" if self.count > 1 else ""

    def holds(self, key: str) -> bool:
        """Whether a series belongs to this part, whatever other series there are."""
        return int(key, 16) % self.count == self.index - 1


def by_key(series: Sequence[SeriesFiles], root: Path, shard: Shard) -> dict[str, SeriesFiles]:
    """Series of a shard by their keys in the journal.

    Args:
        series: all series under the input.
        root: the input; a file without a UID is identified by its path under it.
        shard: the part to select.
    """
    selected = {}
    for candidate in series:
        file = candidate.files[0]
        within = file.relative_to(root) if file.is_relative_to(root) else file.name
        key = folder_name(candidate.series_uid or f"file {within}")
        if shard.holds(key):  # workers elsewhere have another working directory
            files = tuple(path.absolute() for path in candidate.files)
            selected[key] = replace(candidate, files=files)
    return selected
