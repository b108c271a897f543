"""Preparation of the series of a study: one folder a series, at the reference's slice thickness.

A series that has that thickness already is linked, any other is averaged, with its masks. Each
folder appears whole or not at all, and says what it was made of, so that a run goes on where it was
stopped and an edit of the plan makes only what it changes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvsct.core.errors import CvsctError, SeriesError
from cvsct.core.files import config_hash, new_folder, write_json
from cvsct.core.names import portable_name
from cvsct.core.platform import link_or_copy
from cvsct.core.thick_slices import plan_average
from cvsct.io.carried_masks import carry_mask
from cvsct.io.catalog import catalog
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.nifti.header import is_nifti
from cvsct.io.read import read_series
from cvsct.io.resample import resample_series
from cvsct.study.measure import series_key
from cvsct.study.plan import PLAN_TABLE, PlanRow, StudyPlan

IMAGES, MASKS = "prepared", "masks"
"""Folders of images and masks in the study's."""

RECORD = ".record.json"
"""Hidden file in the folder of a series: what it was made of."""

PREPARED = 1
"""Version of what is prepared; a higher one prepares every series again."""


@dataclass(frozen=True)
class PreparedSeries:
    """A series of the study, ready to be harmonized.

    Args:
        row: its line in the plan.
        source: its files as acquired.
        masks: mask files of these.
        folder: of its images at the reference's thickness.
        masks_folder: of its masks on these images, where they are averaged.
        to_thickness_mm, to_spacing_mm: what it is averaged to; 0 where it is linked.
        stamp: hash of all that its folder follows from.
        content: hash of all that its images and masks follow from, wherever its files lie.
    """

    row: PlanRow
    source: SeriesFiles = field(repr=False)
    masks: tuple[Path, ...] = field(repr=False)
    folder: Path
    masks_folder: Path
    to_thickness_mm: float
    to_spacing_mm: float
    stamp: str
    content: str

    @property
    def key(self) -> str:
        """Name of its folder."""
        return self.folder.name

    @property
    def paths(self) -> tuple[Path, ...]:
        """What a worker must see."""
        return self.source.files[0].absolute(), *self.masks, self.folder.parents[2]

    @property
    def is_averaged(self) -> bool:
        """Whether its slices are averaged."""
        return self.to_thickness_mm > 0

    @property
    def is_done(self) -> bool:
        """Whether its folder is there and of this stamp."""
        return _record(self.folder) == self.stamp

    @property
    def uid(self) -> str:
        """Series Instance UID of the prepared series, once it is done."""
        return _record(self.folder, "series_uid")

    def files(self) -> SeriesFiles:
        """The prepared series.

        Raises:
            CvsctError: if it is not there.
        """
        return only_series(self.folder)

    def carried(self) -> tuple[Path, ...]:
        """Mask files on the prepared series."""
        if not self.is_averaged:
            return self.masks
        return tuple(sorted(path for path in self.masks_folder.glob("[!.]*") if path.is_file()))


def only_series(folder: Path) -> SeriesFiles:
    """The one series in a folder.

    Raises:
        SeriesError: if there is another number.
    """
    series = catalog(folder).series
    if len(series) != 1:
        raise SeriesError(f"{folder}: {len(series)} series, expected one; delete the folder")
    return series[0]


def planned_series(plan: StudyPlan) -> tuple[list[PreparedSeries], list[tuple[PlanRow, str]]]:
    """The series of a plan with their files, and those whose files are not there any more.

    Only the folders that the plan names are looked at.
    """
    found: dict[str, Mapping[str, SeriesFiles]] = {}
    series, lost = [], []
    for line, row in enumerate(plan.rows, start=2):  # after the names of the columns
        if not row.used:
            continue
        if row.path not in found:
            found[row.path] = _series_under(plan.scans / row.path)
        files = found[row.path].get(row.series_uid)
        masks = tuple(plan.scans / mask for mask in row.masks)
        if files is not None and all(mask.exists() for mask in masks):
            series.append(_prepared(plan, row, files, masks))
            continue
        lacks = "its files are" if files is None else "its mask is"
        where = f"{PLAN_TABLE}, line {line}"
        lost.append((row, f"{lacks} not there ({where}); correct it, or set use to no"))
    return series, lost


def _series_under(path: Path) -> dict[str, SeriesFiles]:
    try:
        return {series.series_uid: series for series in catalog(path).series}
    except CvsctError:
        return {}


def _prepared(
    plan: StudyPlan, row: PlanRow, files: SeriesFiles, masks: tuple[Path, ...]
) -> PreparedSeries:
    wanted, averaged = plan.options.thickness_mm, plan.averages(row)
    key = series_key(files)
    about = {
        "files": [_stamp(file) for file in files.files],
        "masks": [_stamp(mask) for mask in masks] if averaged else [],
        "to": [wanted, plan.options.spacing_mm] if averaged else [],
        "own": row.thickness_mm if averaged else 0,
        "version": PREPARED,
    }
    links = [] if averaged else [str(file.absolute()) for file in files.files]
    return PreparedSeries(
        row, files, masks,
        plan.folder / IMAGES / row.group / key, plan.folder / MASKS / IMAGES / row.group / key,
        wanted if averaged else 0.0, plan.options.spacing_mm if averaged else 0.0,
        config_hash({**about, "links": links}), config_hash(about),
    )  # fmt: skip


def _stamp(file: Path) -> list[object]:
    stat = file.stat()
    return [file.name, stat.st_size, stat.st_mtime_ns]


def prepare_series(series: PreparedSeries) -> Generator[int, None, tuple[str, ...]]:
    """Prepare one series; a worker's function.

    Returns:
        Remarks on its masks.

    Raises:
        CvsctError: if it cannot be averaged or a mask cannot be carried over.
    """
    for folder in (series.folder, series.masks_folder):
        if folder.exists():
            shutil.rmtree(folder)
    notes: list[str] = []
    with new_folder(series.folder) as folder:
        if series.is_averaged:
            resample_series(
                series.source, folder, series.to_thickness_mm, series.to_spacing_mm or None,
                own_thickness_mm=series.row.thickness_mm,
            )  # fmt: skip
            if series.masks:
                _average_masks(series, folder, notes)
        else:
            link_files(series.source.files, folder)
        uid = only_series(folder).series_uid
        write_json(folder / RECORD, {"stamp": series.stamp, "series_uid": uid}, private=True)
    yield 1
    return tuple(notes)


def _average_masks(series: PreparedSeries, folder: Path, notes: list[str]) -> None:
    """Carry the masks of a series over to its thicker slices, in `folder`."""
    source, thick = read_series(series.source), read_series(only_series(folder))
    average = plan_average(
        source.geometry, series.to_thickness_mm, series.to_spacing_mm or None,
        thickness_mm=series.row.thickness_mm,
    )  # fmt: skip
    with new_folder(series.masks_folder) as masks:
        for number, mask in enumerate(series.masks, start=1):
            carry_mask(
                mask, source, thick, masks, average=average, note=notes.append,
                name=mask_name(only_series(folder).name or series.key, number),
            )  # fmt: skip


def mask_name(scan: str, number: int) -> str:
    """Name of a mask of a scan, without suffix, by which it is matched with the scan.

    Args:
        scan: name of the scan's file without suffix, or of the folder of its files.
        number: of the mask, from 1.
    """
    return portable_name(f"{scan}_mask" if number == 1 else f"{scan}_mask-{number}")


def link_files(files: Sequence[Path], folder: Path) -> None:
    """Link files into a folder, or copy them where the system does not link.

    Names of DICOM files are numbers, for files of one series may share a name in folders of
    their own.
    """
    for number, file in enumerate(files, start=1):
        link_or_copy(file, folder / (file.name if is_nifti(file) else f"{number:05d}.dcm"))


@dataclass(frozen=True)
class CarriedMasks:
    """Masks of a series, to be carried over to its harmonized images.

    Args:
        series: the series.
        harmonized: folder of the harmonized series.
        folder: to be written.
    """

    series: PreparedSeries
    harmonized: Path
    folder: Path

    @property
    def key(self) -> str:
        """Name of the series."""
        return self.series.key

    @property
    def paths(self) -> tuple[Path, ...]:
        """What a worker must see."""
        return self.series.folder, self.harmonized, *self.series.carried()

    @property
    def stamp(self) -> str:
        """Hash of all that the masks follow from."""
        series = only_series(self.harmonized)
        own = [] if self.series.is_averaged else [_stamp(mask) for mask in self.series.masks]
        return config_hash({"series": series.series_uid, "prepared": self.series.content,
                            "masks": own})  # fmt: skip

    @property
    def is_done(self) -> bool:
        """Whether the folder is there and of this stamp."""
        return _record(self.folder) == self.stamp


def carry_masks(masks: CarriedMasks) -> Generator[int, None, tuple[str, ...]]:
    """Carry the masks of one series over; a worker's function.

    Returns:
        Remarks on the masks.

    Raises:
        CvsctError: if a mask cannot be carried over.
    """
    if masks.folder.exists():
        shutil.rmtree(masks.folder)
    notes: list[str] = []
    made = only_series(masks.harmonized)
    source, derived = read_series(masks.series.files()), read_series(made)
    scan = made.name or masks.harmonized.name
    with new_folder(masks.folder) as folder:
        for number, mask in enumerate(masks.series.carried(), start=1):
            carry_mask(
                mask, source, derived, folder, note=notes.append,
                name=mask_name(scan, number),
            )  # fmt: skip
        write_json(folder / RECORD, {"stamp": masks.stamp}, private=True)
    yield 1
    return tuple(notes)


def link_prepared(series: PreparedSeries, folder: Path) -> None:
    """Link the images of a prepared series into a folder, unless that is done already."""
    files = series.files().files
    stamp = config_hash({"stamp": series.stamp, "files": [str(file.absolute()) for file in files]})
    if _record(folder) == stamp:
        return
    if folder.exists():
        shutil.rmtree(folder)
    with new_folder(folder) as partial:
        link_files(files, partial)
        write_json(partial / RECORD, {"stamp": stamp}, private=True)


def _record(folder: Path, name: str = "stamp") -> str:
    """What the record of a folder says under a name; empty where there is none."""
    return str(read_json(folder / RECORD).get(name, ""))


def read_json(path: Path) -> dict[str, Any]:
    """A record; empty where there is none that can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
