"""Disk space of a study, compared with what is free before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from cvsct.core.errors import CvsctError
from cvsct.core.progress import Note
from cvsct.io.dicom.header import MAX_MULTIFRAME_BYTES, read_dataset, whole
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.nifti.header import is_nifti
from cvsct.study.plan import StudyPlan
from cvsct.study.prepare import PreparedSeries

BYTES_PER_PIXEL = 2
"""Of derived DICOM images."""

SPARE = 0.05
"""Share of what is needed that is left for models, masks and tables."""


def needed_bytes(plan: StudyPlan, series: Sequence[PreparedSeries]) -> int:
    """Bytes that the series still need: thicker slices and harmonized images."""
    total = 0.0
    missing = {
        group.name: _missing_share(plan, group.name, group.n_series) for group in plan.groups
    }
    for each in series:
        size = _written_bytes(each.source)
        thinner = each.row.spacing_mm / each.to_spacing_mm if each.to_spacing_mm else 1.0
        slices = max(min(thinner, 1.0), 0.0) * size
        if each.is_averaged and not each.is_done:
            total += slices
        if each.row.group != plan.reference:
            total += slices * missing[each.row.group]
    return round(total * (1 + SPARE))


def _written_bytes(series: SeriesFiles) -> int:
    """Bytes of a series as this program writes it: DICOM without compression, NIfTI as it was."""
    first = series.files[0]
    size = sum(file.stat().st_size for file in series.files)
    if is_nifti(first):
        return size
    try:
        header = read_dataset(
            first, pixels=False, tags=["Rows", "Columns"], limit_bytes=MAX_MULTIFRAME_BYTES
        )
    except CvsctError:  # which its preparation will tell
        return size
    pixels = (whole(header, "Rows") or 0) * (whole(header, "Columns") or 0)
    return max(size, series.n_slices * pixels * BYTES_PER_PIXEL)


def _missing_share(plan: StudyPlan, group: str, members: int) -> float:
    """Share of a group's series that are not harmonized yet."""
    there = sum(1 for path in (plan.folder / "harmonized" / group).glob("*") if path.is_dir())
    return max(1 - there / members, 0.0) if members else 0.0


def refuse_full_disk(plan: StudyPlan, series: Sequence[PreparedSeries], note: Note) -> None:
    """Tell how much space the run needs, and refuse a disk with less.

    Raises:
        CvsctError: naming both.
    """
    needed, free = needed_bytes(plan, series), shutil.disk_usage(plan.folder).free
    text = f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free"
    if needed > free:
        raise CvsctError(f"{plan.folder}: the disk is too small: {text}; make room, or move it")
    note(f"{len(series)} series: {text}")
