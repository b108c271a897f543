"""Series harmonized one after the other in this process, without any cohort."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from cvsct.core.errors import CvsctError, explain
from cvsct.inference.streaming import Outcome, folder_name, harmonize_series
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.dicom.write import Derivation
from cvsct.methods.volume_mapping import VolumeMapping


def finished(steps: Generator[int, None, Outcome]) -> tuple[Outcome, list[int]]:
    """What a generator returns, and what it has told on the way."""
    told = []
    while True:
        try:
            told.append(next(steps))
        except StopIteration as end:
            return end.value, told


def harmonize_each(
    series: Sequence[SeriesFiles],
    mapping: VolumeMapping,
    out: Path,
    derivation: Derivation,
    **options: Any,
) -> list[Outcome]:
    """Each series in a folder of its own in `out`; one that fails tells why."""
    outcomes = []
    for each in series:
        place = out / folder_name(each.series_uid)
        try:
            outcome, _ = finished(harmonize_series(each, mapping, place, derivation, **options))
        except (CvsctError, OSError) as error:
            reason = explain(error) if isinstance(error, OSError) else str(error)
            outcome = Outcome(each.series_uid, error=reason)
        outcomes.append(outcome)
    return outcomes
