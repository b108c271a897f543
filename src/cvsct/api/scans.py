"""Scans found and read, and harmonized volumes written."""

from __future__ import annotations

from pathlib import Path

from cvsct.api.model import HarmonizedVolume
from cvsct.core.errors import SeriesError
from cvsct.core.volume import CTVolume
from cvsct.io import catalog
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.dicom.write import DerivedSeries
from cvsct.io.dicom.write import write_derived as _write_derived
from cvsct.io.series import open_series


def find_series(path: Path | str) -> list[SeriesFiles]:
    """The CT series in a DICOM or NIfTI file, a series folder, or a tree that holds many.

    Headers only. `cvsct.io.catalog.catalog` also tells which files were left out, and why.

    Raises:
        SeriesError: if nothing is there, or nothing of it is a CT slice.

    Example:
        >>> [series.n_slices for series in cvsct.find_series(scans_of_a)]
        [6]
    """
    return catalog.find_series(Path(path))


def read_series(source: SeriesFiles | Path | str) -> CTVolume:
    """Read one series as a volume in HU, its slices ordered by position along their normal.

    Args:
        source: one of `find_series`, or a path that holds a single series.

    Returns:
        float32 HU of shape (slices, rows, columns) with its geometry; padding reads as -1024 HU.

    Raises:
        SeriesError: if a file is not a sound CT slice, the files do not belong together, or a
            path holds several series.
        GeometryError: if the slices do not form one regular stack.

    Example:
        >>> volume = cvsct.read_series(scans_of_a)
        >>> volume.shape, round(volume.pixel_mm, 4)
        ((6, 224, 224), 0.7)
    """
    if isinstance(source, SeriesFiles):
        return open_series(source).read()
    found = find_series(source)
    if len(found) != 1:
        raise SeriesError(
            f"{source}: {len(found)} series here, expected one; choose one of find_series"
        )
    return open_series(found[0]).read()


def write_derived(harmonized: HarmonizedVolume, folder: Path | str) -> DerivedSeries:
    """Write a harmonized volume as a derived DICOM series, one file a slice, with its UID map.

    Args:
        harmonized: of `Model.harmonize`, from a volume that was read from DICOM.
        folder: one series a folder; files of an earlier identical run are replaced.

    Raises:
        SeriesError: if the volume did not come from DICOM.
        OSError: if it cannot be written.

    Example:
        >>> harmonized = cvsct.load_model(model).harmonize(cvsct.read_series(scans_of_a))
        >>> len(cvsct.write_derived(harmonized, out).files)
        6
    """
    return _write_derived(
        harmonized.source, harmonized.volume.hu, Path(folder), harmonized.derivation
    )
