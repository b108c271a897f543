"""Header and stored values of a NIfTI file, read without trusting either.

nibabel interprets the header; bytes are read here, so that what is declared is capped before
anything is allocated or inflated, and so that header and extensions can be written back as they
were.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from cvsct.core.errors import CvsctError, SeriesError
from cvsct.io.dicom.header import label
from cvsct.io.dicom.pixels import MAX_SIDE
from cvsct.io.file_kinds import EMPTY, NIFTI, NIFTI_MARKS, PACKED, UNKNOWN, is_gzip, kind_of

SUFFIXES = (".nii", ".nii.gz")
MAX_BYTES = 4 * 2**30
"""Largest size of the voxels: 8000 slices of 512 x 512 as 16-bit numbers."""
MAX_RATIO = 200
"""Largest ratio of inflated to compressed bytes; compressed CT shrinks to a third."""
MAX_EXTENSION_BYTES = 16 * 2**20

ESTIMATE_INTENT, _LABEL_INTENT = 1001, 1002
"""Intent codes of maps of estimates, such as standard errors, and of label maps."""


def is_nifti(path: Path) -> bool:
    """Whether the file's name says that it is NIfTI."""
    return path.name.lower().endswith(SUFFIXES)


def not_a_scan(header: Any) -> str:
    """Why this image cannot be a CT scan, or an empty text."""
    if int(header["intent_code"]) == _LABEL_INTENT:
        return "a label map"
    if int(header["intent_code"]) == ESTIMATE_INTENT:
        return "a map of estimates, such as uncertainty"
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize < 2:
        return "an image of colors, complex numbers or 8 bits"
    return ""


def refuse_large(name: str, path: Path, header: Any) -> None:
    """Refuse a header that declares too many voxels, before anything is allocated."""
    sizes = sizes_of(header)
    if len(sizes) < 3 or any(size != 1 for size in sizes[3:]):
        raise SeriesError(
            f"{name}: {' x '.join(map(str, sizes))} voxels, expected one 3-D image, or a 2-D one "
            "for a slice; save one scan a file"
        )
    if not all(0 < size <= 2 * MAX_SIDE for size in sizes[:3]):
        raise SeriesError(
            f"{name}: declares {' x '.join(map(str, sizes))} voxels, expected 1 to {2 * MAX_SIDE} "
            "a side; the header is damaged or this is no CT"
        )
    declared = math.prod(sizes) * header.get_data_dtype().itemsize
    held = path.stat().st_size
    if declared > MAX_BYTES or (is_gzip(path) and declared > MAX_RATIO * held):
        raise SeriesError(
            f"{name}: {held} bytes declare {declared} bytes of voxels, more than any CT; "
            "split or crop the scan, or check where the file came from"
        )


def read_voxels(path: Path, header: Any) -> Shaped[np.ndarray, "_ _ _"]:
    """The stored values in the file's own order of axes."""
    name, start = label(path), int(header["vox_offset"])
    dtype, sizes = header.get_data_dtype(), sizes_of(header)[:3]
    expected = math.prod(sizes) * dtype.itemsize
    with refusing(name), opened(path) as stream:
        stream.seek(start)
        data = stream.read(expected)
        more = len(stream.read(2**20))  # to the end of a compressed file, where its checksum is
    if len(data) < expected or more == 2**20:
        raise SeriesError(
            f"{name}: {'more' if more else len(data)} bytes of voxels, its header declares "
            f"{expected}; copy the file again"
        )
    return np.frombuffer(data, dtype).reshape(sizes, order="F")


@contextmanager
def opened(path: Path) -> Iterator[BufferedIOBase]:
    """The file's bytes, inflated where the first two say that it is compressed."""
    if is_gzip(path):
        with gzip.open(path) as stream:
            yield stream
    else:
        with path.open("rb") as plain:
            yield plain


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """Turn an exception of a damaged file into a refusal that does not quote the file."""
    try:
        yield
    except CvsctError:
        raise
    except Exception as error:  # zlib, gzip and nibabel raise many kinds
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise SeriesError(
            f"{name}: cannot be read as NIfTI ({reason}); copy or export the file again"
        ) from None


def scaling_of(header: Any) -> tuple[float, float]:
    """Slope and intercept from stored value to HU; 1 and 0 where none are set."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    return slope, intercept if math.isfinite(intercept) else 0.0


def sizes_of(header: Any) -> tuple[int, ...]:
    """Voxels along each of the file's axes; an image of two is a slice, one voxel thick."""
    sizes = tuple(int(size) for size in header.get_data_shape())
    return (*sizes, 1) if len(sizes) == 2 else sizes


def read_nifti_header(path: Path) -> tuple[Any, bytes]:
    """A file's header, as nibabel gives it, and the bytes between header and voxels.

    Raises:
        SeriesError: if the file cannot be read as NIfTI of one part.
    """
    import nibabel as nib  # noqa: PLC0415  (half a second that DICOM users need not wait)

    name = label(path)
    with refusing(name), opened(path) as stream:
        block = stream.read(540)
        version = next(
            (mark for mark, (at, _) in NIFTI_MARKS.items() if block[at : at + 4] == mark), None
        )
        if version is None:
            raise SeriesError(f"{name}: not a NIfTI file of one part{_but(path)}")
        length = NIFTI_MARKS[version][1]
        kind: Any = nib.Nifti1Header if version == b"n+1\0" else nib.Nifti2Header
        header = kind(block[:length], check=False)
        start = float(header["vox_offset"])
        if not length <= start <= MAX_EXTENSION_BYTES or start != int(start):
            raise SeriesError(
                f"{name}: voxels begin at byte {start:g}, expected {length} to "
                f"{MAX_EXTENSION_BYTES}; export the file again"
            )
        extensions = block[length:] + stream.read(max(int(start) - len(block), 0))
        extensions = extensions[: int(start) - length]
        header.get_data_dtype()  # raises where the type is none
    return header, extensions


def _but(path: Path) -> str:
    """End of a message: the kind of a file that is not NIfTI, and the remedy."""
    kind = kind_of(path)
    if kind in (NIFTI, PACKED, UNKNOWN):  # bytes that begin as something else does
        return "; save the scan as .nii or .nii.gz"
    otherwise = "copy it again" if kind == EMPTY else "save the scan as .nii or .nii.gz"
    return f" ({kind.one}); {kind.remedy_of(1) or otherwise}"
