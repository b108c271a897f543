"""What a series is opened as and derived to, whichever way it is stored."""

from __future__ import annotations

from pathlib import Path

from cvsct.io.derivation import Derivation
from cvsct.io.derived import DerivedWriter
from cvsct.io.enhanced import FrameStack, open_enhanced
from cvsct.io.nifti import NiftiStack, open_nifti
from cvsct.io.nifti_header import is_nifti
from cvsct.io.nifti_write import NiftiWriter
from cvsct.io.stack import SeriesFiles, Stack, open_stack

Opened = Stack | FrameStack | NiftiStack
"""Each gives some of its slices, or all, as a volume: `read(start, stop)`."""


def open_series(series: SeriesFiles) -> Opened:
    """Read and check a series' headers; its pixels are read when asked for.

    Raises:
        SeriesError: if a file is not sound, or the files do not belong together.
        GeometryError: if the slices do not form one regular stack.
    """
    if not series.frames:
        return open_stack(series)
    (path,) = series.files
    return open_nifti(path) if is_nifti(path) else open_enhanced(path)


def derived_writer(
    source: Opened, folder: Path, derivation: Derivation
) -> DerivedWriter | NiftiWriter:
    """What writes a series' new values as files of the kind it was read from.

    Raises:
        SeriesError: if the source's values must be looked at first, and are not sound.
    """
    if isinstance(source, NiftiStack):
        return NiftiWriter(folder, derivation, source)
    return DerivedWriter(folder, derivation, len(source))
