"""Opening and derived writing of a series, whether it is DICOM or NIfTI."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cvsct.core.errors import SeriesError
from cvsct.io.dicom.derive import Derivation, is_derived_here
from cvsct.io.dicom.enhanced import FrameStack, open_enhanced
from cvsct.io.dicom.header import MAX_FILE_BYTES, MAX_MULTIFRAME_BYTES, label, read_dataset
from cvsct.io.dicom.hu_check import refuse_no_hu
from cvsct.io.dicom.stack import SeriesFiles, Stack, open_stack
from cvsct.io.dicom.write import DerivedWriter
from cvsct.io.nifti.header import is_nifti, read_nifti_header
from cvsct.io.nifti.read import NiftiStack, open_nifti
from cvsct.io.nifti.write import DESCRIPTION, NiftiWriter

Opened = Stack | FrameStack | NiftiStack
"""A series whose headers were checked; `read(start, stop)` gives slices of it as a volume."""


def open_series(series: SeriesFiles) -> Opened:
    """Check a series' headers, and that its values are HU; other pixels are read on request.

    Of DICOM one slice is decoded for that, and more only if it shows neither air nor fat.

    Raises:
        SeriesError: if a file is not sound, the files do not belong together or are no HU.
        GeometryError: if the slices do not form one regular stack.
    """
    opened = open_headers(series)
    if isinstance(opened, NiftiStack):  # which looks at all its voxels when the first are read
        return opened
    notes = refuse_no_hu(opened, _name(series), opened.unspecified)
    return replace(opened, notes=(*opened.notes, *notes)) if notes else opened


def open_headers(series: SeriesFiles) -> Opened:
    """Check the headers of a series as `open_series` does; no pixel is decoded.

    Raises:
        SeriesError: if a file is not sound, or the files do not belong together.
        GeometryError: if the slices do not form one regular stack.
    """
    if series.refused:
        raise SeriesError(series.refused)
    if not series.frames:
        return open_stack(series)
    (path,) = series.files
    return open_nifti(path) if is_nifti(path) else open_enhanced(path)


def _name(series: SeriesFiles) -> str:
    more = len(series.files) - 1
    return label(series.files[0]) + (f" and {more} more" if more else "")


def derived_writer(
    source: Opened, folder: Path, derivation: Derivation, series: SeriesFiles
) -> DerivedWriter | NiftiWriter:
    """A writer of derived files of the kind that the series was read from.

    Args:
        series: the files that the source was opened from.

    Raises:
        SeriesError: if the source's values must be read first, and are not sound.
    """
    if isinstance(source, NiftiStack):
        return NiftiWriter(folder, derivation, source, series.name)
    return DerivedWriter(folder, derivation, len(source), series.repeated)


def is_harmonized(series: SeriesFiles) -> bool:
    """Whether this program harmonized the series, by its first file.

    A series that it only averaged to thicker slices is the scanner's.

    Raises:
        SeriesError: if that file cannot be read.
    """
    path = series.files[0]
    if is_nifti(path):
        descrip = read_nifti_header(path)[0]["descrip"]
        return bytes(descrip.tobytes()).startswith(DESCRIPTION)
    limit = MAX_MULTIFRAME_BYTES if series.frames else MAX_FILE_BYTES
    return is_derived_here(read_dataset(path, pixels=False, limit_bytes=limit))


def input_path(series: SeriesFiles, root: Path) -> str:
    """Path of a series relative to `root`: its only file, or the folder of its files."""
    first = series.files[0].absolute()
    place = first if len(series.files) == 1 else first.parent
    return place.relative_to(root).as_posix() if place.is_relative_to(root) else place.name
