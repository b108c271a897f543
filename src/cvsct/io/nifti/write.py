"""Writing of NIfTI: a NIfTI scan's new values under its own header, or a DICOM series.

Bytes follow from the input alone: no date, no name and no user's setting is in them.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Integer, Shaped

from cvsct.core.errors import GeometryError
from cvsct.core.files import write_atomic, write_json
from cvsct.core.names import portable_name
from cvsct.core.volume import CTVolume, Geometry
from cvsct.io.dicom.derive import Derivation
from cvsct.io.dicom.stack import SeriesFiles, Stack
from cvsct.io.dicom.write import UID_MAP, DerivedSeries, refuse_unfit
from cvsct.io.file_kinds import is_gzip
from cvsct.io.nifti.header import ESTIMATE_INTENT, SUFFIXES, is_nifti, sizes_of
from cvsct.io.nifti.read import TO_LPS, NiftiStack

DESCRIPTION = b"cvsct derived, research use only"
SYNTHESIZED = b"; noise synthesized"
RESAMPLED_DESCRIPTION = b"cvsct resampled, research use only"
HARMONIZED, RESAMPLED = "_harmonized", "_resampled"
"""Suffixes added to the name of a NIfTI source."""
SLICES_AT_ONCE = 16
_FASTEST = 1
"""Level of gzip, as in nibabel: files a tenth larger than by default, in a third of the time."""


def named_alone(series: Sequence[SeriesFiles]) -> list[SeriesFiles]:
    """The series, each NIfTI with a unique name for its outputs, made from its file's name.

    Where several files have one name, in folders of their own, a hash of the bytes is added.
    """
    stems = [_stem(files.files[0]) if is_nifti(files.files[0]) else "" for files in series]
    counts = Counter(stem.casefold() for stem in stems)
    return [
        replace(files, name=stem if counts[stem.casefold()] == 1 else f"{stem}_{_short(files)}")
        if stem
        else files
        for files, stem in zip(series, stems, strict=True)
    ]


def output_name(name: str, source: Path, made: str = HARMONIZED) -> str:
    """Name of the output of a NIfTI source called `name`; empty if it has no name."""
    return f"{name}{made}{output_suffix(source)}" if name else ""


def output_suffix(source: Path) -> str:
    """Suffix of the output, compressed if the source is, whatever the source's suffix."""
    return ".nii.gz" if is_gzip(source) else ".nii"


def _stem(path: Path) -> str:
    """A file's name without suffixes, short enough for further ones, for any system."""
    name = next(path.name[: -len(s)] for s in SUFFIXES[::-1] if path.name.lower().endswith(s))
    return portable_name(name) or "scan"


def _short(series: SeriesFiles) -> str:
    return hashlib.sha256(series.series_uid.encode()).hexdigest()[:8]


class NiftiWriter:
    """Writes a NIfTI scan's new values part by part, in slice order; `finish` writes the file.

    Header, extensions, affine, type and order of voxels are the source's; only the description is
    ours. Whole numbers are rounded to the nearest value that can be stored and clipped to what
    the type holds; a voxel whose HU did not change keeps its stored value, and so does padding.

    Args:
        folder: one series a folder; a file of an earlier identical run is replaced.
        name: of the source without its suffix, for `NAME_harmonized.nii.gz`; empty for a hash.
    """

    def __init__(
        self, folder: Path, derivation: Derivation, source: NiftiStack, name: str = ""
    ) -> None:
        self._folder, self._derivation, self._source = folder, derivation, source
        self._name = name
        # in the file's own order of axes, seen in ours
        sizes = sizes_of(source.header)[:3]
        self._voxels = np.empty(sizes, source.stored.dtype, order="F")
        self._done = 0

    def write(
        self,
        part: CTVolume,
        hu: Float[np.ndarray, "slices rows columns"],
        remarks: Sequence[str] = (),
    ) -> None:
        """Take the next slices; NIfTI has no place for remarks on any of them.

        Raises:
            SeriesError: if the new values are not finite.
            GeometryError: if they have another shape than the source.
        """
        refuse_unfit(part, hu, self._done, len(self._source))
        view = self._source.grid.view(self._voxels)
        for i, values in enumerate(hu):
            before = self._source.stored[self._done]
            same = values == part.hu[i]
            if part.padding is not None:
                same |= part.padding[i]
            stored = stored_values(values, before.dtype, self._source.scaling)
            view[self._done] = np.where(same, before, stored)
            self._done += 1

    def finish(self) -> DerivedSeries:
        """Write the file and its UID map, when all slices are there."""
        source = self._source
        uid = self._derivation.uid(source.series_uid, "series")
        header = source.header.copy()
        made = SYNTHESIZED if self._derivation.synthesized_share else b""
        header["descrip"] = DESCRIPTION + made
        suffix = output_suffix(source.path)
        hashed = hashlib.sha256(uid.encode()).hexdigest()[:32]
        path = self._folder / (output_name(self._name, source.path) or f"{hashed}{suffix}")
        return write_voxels(
            path, header, self._voxels, source, uid, derivation=str(self._derivation)
        )


def write_voxels(
    path: Path,
    header: Any,
    voxels: Shaped[np.ndarray, "_ _ _"],
    source: NiftiStack,
    uid: str,
    *,
    derivation: str,
) -> DerivedSeries:
    """Write a scan that was made from another, and the UID map beside it.

    Args:
        path: compressed where its suffix says so.
        voxels: stored values along the file's own axes.
        source: the other scan, whose extensions are kept.
        uid: of the new series.
        derivation: how it was made, for the UID map.
    """
    path.parent.mkdir(parents=True, exist_ok=True)

    def fill(stream: BufferedIOBase) -> None:
        stream.write(header.binaryblock + source.extensions)
        stream.write(voxels.ravel(order="F").data.cast("B"))

    write_atomic(path, _packed(fill) if path.suffix == ".gz" else _plain(fill), private=True)
    uid_map: dict[str, Any] = {
        "research_use_only": True,
        "derivation": derivation,
        "series": {source.series_uid: uid},
        "instances": {},
        "files": {source.path.name: path.name},
    }
    write_json(path.parent / UID_MAP, uid_map, private=True)
    return DerivedSeries(uid, source.series_uid, path.parent, (path,), uid_map)


def write_nifti(stack: Stack, path: Path) -> None:
    """Write a DICOM series as .nii.gz in HU, padding as -1024, a few slices in memory at a time.

    Columns, rows and slices run as in the series; the affine, as sform and qform, turns
    left-posterior-superior to right-anterior-superior. Values are 16-bit whole numbers where
    slope, intercept and range allow it, else 32-bit floats.

    Raises:
        SeriesError: if pixels cannot be decoded.
        GeometryError: if the series has too many voxels a side for NIfTI.
    """
    slices = stack.shape[0]
    dtype = _hu_type(stack)
    header = _new_header(stack.geometry, stack.shape, dtype)

    def fill(stream: BufferedIOBase) -> None:
        stream.write(header.binaryblock + bytes(4))
        for start in range(0, slices, SLICES_AT_ONCE):
            hu = stack.read(start, start + SLICES_AT_ONCE).hu
            stream.write(np.rint(hu).astype(dtype).tobytes() if dtype == "<i2" else hu.tobytes())

    write_atomic(path, _packed(fill), private=True)


def write_label_map(
    geometry: Geometry,
    labels: Integer[np.ndarray, "slices rows columns"],
    path: Path,
    *,
    private: bool = False,
    extensions: bytes = bytes(4),
) -> None:
    """Write a label map on the grid of a series, in its own type; 0 is the background.

    Args:
        path: compressed where its suffix says so.
        private: whether only the user may read it.
        extensions: the bytes between header and voxels, a multiple of 16 after the first four.

    Raises:
        GeometryError: if there are too many voxels a side for NIfTI.
    """
    slices, rows, columns = labels.shape
    header = _new_header(geometry, (slices, rows, columns), labels.dtype.str)
    header["vox_offset"] = header.sizeof_hdr + len(extensions)

    def fill(stream: BufferedIOBase) -> None:
        stream.write(header.binaryblock + extensions + labels.tobytes())

    path.parent.mkdir(parents=True, exist_ok=True)
    content = _packed(fill) if path.suffix == ".gz" else _plain(fill)
    write_atomic(path, content, private=private)


def write_map(
    geometry: Geometry,
    values: Float32[np.ndarray, "slices rows columns"],
    path: Path,
    name: str,
    *,
    private: bool = False,
) -> None:
    """Write a map of estimates on the grid of a series, as 32-bit floats.

    Args:
        path: compressed where its suffix says so.
        name: what the numbers are, for the header; at most 15 characters.
        private: whether only the user may read it.

    Raises:
        GeometryError: if there are too many voxels a side for NIfTI.
    """
    slices, rows, columns = values.shape
    header = _new_header(geometry, (slices, rows, columns), "<f4")
    header["intent_code"], header["intent_name"] = ESTIMATE_INTENT, name

    def fill(stream: BufferedIOBase) -> None:
        stream.write(header.binaryblock + bytes(4))
        stream.write(np.ascontiguousarray(values, dtype="<f4").data.cast("B"))

    content = _packed(fill) if path.suffix == ".gz" else _plain(fill)
    write_atomic(path, content, private=private)


def _new_header(geometry: Geometry, shape: tuple[int, int, int], dtype: str) -> Any:
    """Header of a new file whose columns, rows and slices run as in a series.

    Raises:
        GeometryError: if there are too many voxels a side for NIfTI.
    """
    import nibabel as nib  # noqa: PLC0415  (half a second that others need not wait)

    slices, rows, columns = shape
    if max(shape) > np.iinfo(np.int16).max:
        raise GeometryError(f"{slices} slices are more than NIfTI can hold; split the series")
    header: Any = nib.Nifti1Header()  # type: ignore[no-untyped-call]
    header.set_data_shape((columns, rows, slices))
    header.set_data_dtype(dtype)
    affine = TO_LPS @ geometry.affine[:, [2, 1, 0, 3]]
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header.set_xyzt_units("mm")
    header["descrip"], header["vox_offset"] = DESCRIPTION, 352
    header["scl_slope"], header["scl_inter"] = 1, 0
    return header


def _hu_type(stack: Stack) -> str:
    encodings = set(stack.encodings)
    ends = [
        encoding.slope * end + encoding.intercept
        for encoding in encodings
        for end in encoding.limits
    ]
    whole = all(
        float(value).is_integer()
        for encoding in encodings
        for value in (encoding.slope, encoding.intercept)
    )
    return "<i2" if whole and min(ends) >= -(2**15) and max(ends) < 2**15 else "<f4"


def stored_values(
    hu: Float[np.ndarray, "rows columns"], dtype: np.dtype[Any], scaling: tuple[float, float]
) -> Shaped[np.ndarray, "rows columns"]:
    """HU as a file stores them: whole numbers rounded, and clipped to what the type holds."""
    slope, intercept = scaling
    values = (hu.astype(np.float64) - intercept) / slope
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        values = np.rint(values).clip(ends.min, ends.max)
    return values.astype(dtype)


def _plain(fill: Callable[[BufferedIOBase], None]) -> bytes:
    buffer = BytesIO()
    fill(buffer)
    return buffer.getvalue()


def _packed(fill: Callable[[BufferedIOBase], None]) -> bytes:
    """Compressed, without the name and time that gzip would add."""
    buffer = BytesIO()
    with gzip.GzipFile("", "wb", _FASTEST, buffer, mtime=0) as stream:
        fill(stream)
    return buffer.getvalue()
