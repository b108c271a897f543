"""Finding and reading scans, and writing harmonized volumes."""

from __future__ import annotations

import re
from pathlib import Path

from cvsct.api.model import HarmonizedVolume
from cvsct.core.errors import SeriesError, UsageError
from cvsct.core.kinds import PATH, PATH_WORDS, refuse_no_path, refuse_other_kind
from cvsct.core.volume import CTVolume
from cvsct.io import catalog
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.dicom.write import UID_MAP, DerivedSeries
from cvsct.io.dicom.write import write_derived as _write_derived
from cvsct.io.series import open_series

DERIVED_FILE = re.compile(r"[0-9a-f]{32}\.dcm")
"""Name of a file of a derived series."""


def find_series(path: Path | str) -> list[SeriesFiles]:
    """Find the CT series under a path, from headers alone.

    A series that cannot be read is listed too: reading it raises the reason.
    `cvsct.io.catalog.catalog` also returns the files that were left out, with reasons.

    Args:
        path: a DICOM or NIfTI file, a series folder, or a tree that holds many series.

    Returns:
        One `SeriesFiles` per series: `series_uid`, `files`, `n_slices`.

    Raises:
        UsageError: if the path does not exist, or is none.
        SeriesError: if there is no CT series under it.

    Example:
        >>> [series.n_slices for series in cvsct.find_series(scans_of_a)]
        [6]
    """
    refuse_no_path(path=path)
    return catalog.find_series(Path(path))


def read_series(source: SeriesFiles | Path | str) -> CTVolume:
    """Read one CT series as a volume in HU.

    Slices are ordered by their position along the common normal (DICOM PS3.3 C.7.6.2), and stored
    values are converted by Rescale Slope and Intercept (PS3.3 C.11.1).

    Args:
        source: a series of `find_series`, or a path that holds a single series.

    Returns:
        float32 HU of shape (slices, rows, columns) with its geometry in mm; padding reads as
        -1024 HU.

    Raises:
        UsageError: if the path does not exist, or is none.
        SeriesError: if a file is not a valid CT slice, the files are not one scan, or the path
            holds several series.
        GeometryError: if the slices are not evenly spaced, parallel and aligned.

    Example:
        >>> volume = cvsct.read_series(scans_of_a)
        >>> volume.shape, round(volume.pixel_mm, 4)
        ((6, 224, 224), 0.7)
    """
    return open_series(one_series(source)).read()


def one_series(source: SeriesFiles | Path | str) -> SeriesFiles:
    """The series, or the only one under a path.

    Raises:
        UsageError: if the path does not exist, or is none.
        SeriesError: if the path holds none, or several.
    """
    refuse_other_kind(
        (SeriesFiles, *PATH), f"{PATH_WORDS}, or a series of find_series", source=source
    )
    if isinstance(source, SeriesFiles):
        return source
    all_series = find_series(source)
    if len(all_series) != 1:
        raise SeriesError(
            f"{source}: {len(all_series)} series here, expected one; choose one of find_series"
        )
    return all_series[0]


def _refuse_other_files(folder: Path) -> None:
    """Refuse a folder with files beside those of derived series.

    Raises:
        UsageError: naming one of them.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: a file, expected a folder; name another place")
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        ours = path.name == UID_MAP or DERIVED_FILE.fullmatch(path.name)
        if not ours and not path.name.startswith("."):
            raise UsageError(
                f"{folder}: holds {path.name}, which is of no derived series; name a new folder"
            )


def write_derived(harmonized: HarmonizedVolume, folder: Path | str) -> DerivedSeries:
    """Write a harmonized volume as a derived DICOM series, one file per slice.

    Files are CT Image Storage with Image Type DERIVED (DICOM PS3.3 C.7.6.1). The same volume and
    model give the same UIDs and bytes. `uid_map.json` maps source UIDs to derived UIDs.

    Args:
        harmonized: a result of `Model.harmonize`, from a volume that was read from DICOM.
        folder: the folder to write; files of an earlier identical run are replaced. It may hold
            other derived series, whose `uid_map.json` is replaced.

    Returns:
        The `DerivedSeries`: `series_uid`, `source_series_uid`, `folder`, `files`, `uid_map`.

    Raises:
        UsageError: if `harmonized` is something else, such as its `volume`, or `folder` holds
            files that are of no derived series.
        SeriesError: if the volume was not read from DICOM.
        OSError: if a file cannot be written.

    Example:
        >>> harmonized = cvsct.load_model(model).harmonize(cvsct.read_series(scans_of_a))
        >>> len(cvsct.write_derived(harmonized, out).files)
        6
    """
    refuse_other_kind(
        HarmonizedVolume, "the result of Model.harmonize, not a volume alone", harmonized=harmonized
    )
    refuse_no_path(folder=folder)
    _refuse_other_files(Path(folder))
    return _write_derived(
        harmonized.source, harmonized.volume.hu, Path(folder), harmonized.derivation
    )
