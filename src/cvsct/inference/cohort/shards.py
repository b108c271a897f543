"""Which series a run is to do: all of a cohort, or one of N parts of it."""

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
    """One of so many parts of a cohort, from 1. A series belongs to one by the hash of its UID."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/4`.

        Raises:
            UsageError: if it is something else.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        shard = cls(*map(int, found.groups())) if found else cls(0, 0)
        if not 1 <= shard.index <= shard.count:
            raise UsageError(f"--shard {text}: expected I/N with I from 1 to N, such as 2/4")
        return shard

    @property
    def name(self) -> str:
        """`2of4`; empty for the whole."""
        return f"{self.index}of{self.count}" if self.count > 1 else ""

    def holds(self, key: str) -> bool:
        """Whether a series belongs to it; the others that are there do not matter."""
        return int(key, 16) % self.count == self.index - 1


def by_key(series: Sequence[SeriesFiles], root: Path, shard: Shard) -> dict[str, SeriesFiles]:
    """The shard's series by what the journal calls them.

    Args:
        root: INPUT; a file that tells no UID is known by its place under it.
    """
    found = {}
    for each in series:
        file = each.files[0]
        within = file.relative_to(root) if file.is_relative_to(root) else file.name
        key = folder_name(each.series_uid or f"file {within}")
        if shard.holds(key):  # workers elsewhere have another working directory
            files = tuple(path.absolute() for path in each.files)
            found[key] = replace(each, files=files)
    return found
