"""Thin slices averaged to thicker ones, from disk to disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cvsct.api.scans import one_series
from cvsct.core.files import new_folder, refuse_unwritable
from cvsct.core.kinds import refuse_no_path
from cvsct.core.settings import refuse_outside
from cvsct.io import resample
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.dicom.write import DerivedSeries


def resample_series(
    source: SeriesFiles | Path | str,
    out: Path | str,
    thickness_mm: float,
    *,
    spacing_mm: float | None = None,
) -> DerivedSeries:
    """Average the slices of a series to thicker ones and write them as a series.

    A thicker slice is the mean of slices of thickness t every s mm under a box of width
    sqrt(T^2 + s^2 - t^2), where T is `thickness_mm`: its sensitivity along the normal has the
    variance T^2 / 12. Where the box ends within slices, the weights nearest to the box's with that
    variance are taken; of four, the outer two may be as low as -1/16. A voxel is padding where
    more than half of its weight is, else the mean of what is not padding. `uid_map.json` names for
    each source slice the thicker slice that has most of it.

    Thinner slices are never made up. The result is a scan of its scanner: training and `harmonize`
    take it as any other. A few slices are in memory at a time; of NIfTI the whole scan.

    Args:
        source: a series of `find_series`, or a path that holds a single series. DICOM becomes
            derived DICOM (CT Image Storage, Image Type DERIVED, PS3.3 C.7.6.1), NIfTI becomes
            NIfTI; as NIfTI knows no slice thickness, the distance between its slices is taken.
        out: the folder to write; it appears when it is complete.
        thickness_mm: of the thicker slices, in mm.
        spacing_mm: distance between them, in mm; None for their thickness.

    Returns:
        The `DerivedSeries`: `series_uid`, `source_series_uid`, `folder`, `files`, `uid_map`.

    Raises:
        UsageError: if `source` does not exist, or `out` holds something.
        SeriesError: if the series cannot be read, or the path holds several.
        GeometryError: if the slices are more than a tenth thicker than `thickness_mm`, further
            apart than 1.5 of their thickness, too few or of unknown thickness.
        OSError: if a file cannot be written.

    Example:
        >>> thick = cvsct.resample_series(scans_of_a, out, 15.0)
        >>> volume = cvsct.read_series(thick.folder)
        >>> volume.shape, volume.geometry.thickness_mm
        ((2, 224, 224), 15.0)
    """
    refuse_no_path(out=out)
    refuse_outside(0, thickness_mm=thickness_mm, spacing_mm=spacing_mm)
    out = Path(out)
    refuse_unwritable(out)
    series = one_series(source)
    with new_folder(out) as partial:
        written = resample.resample_series(series, partial, thickness_mm, spacing_mm)
    return replace(written, folder=out, files=tuple(out / file.name for file in written.files))
