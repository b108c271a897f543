"""Thin slices of a NIfTI scan averaged to thicker ones, under the scan's own header.

Axes, directions, type and extensions of the file stay; along the axis of the slices there are
fewer voxels, each larger, and the affine (sform and qform, where coded) says where they lie.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.slice_average import SliceAverage
from cvsct.core.thick_slices import ThickSlice, padding_values
from cvsct.io.dicom.resampled import Resampling
from cvsct.io.dicom.write import DerivedSeries
from cvsct.io.nifti.header import read_nifti_header, sizes_of
from cvsct.io.nifti.read import NiftiStack
from cvsct.io.nifti.write import (
    DESCRIPTION,
    RESAMPLED,
    RESAMPLED_DESCRIPTION,
    output_name,
    output_suffix,
    stored_values,
    write_voxels,
)

_MAX_DESCRIPTION = 80
"""Bytes of the header's field `descrip`."""


def is_resampled(path: Path) -> bool:
    """Whether this program wrote the file as thicker slices of a scan.

    Raises:
        SeriesError: if the file cannot be read.
    """
    descrip = read_nifti_header(path)[0]["descrip"]
    return bytes(descrip.tobytes()).startswith(RESAMPLED_DESCRIPTION)


class NiftiResampledWriter:
    """Takes thicker slices one by one, in slice order; `finish` writes the file and its UID map.

    Args:
        folder: one series a folder; a file of an earlier identical run is replaced.
        name: of the source without its suffix, for `NAME_resampled.nii.gz`; empty for a hash.
    """

    def __init__(
        self,
        folder: Path,
        resampling: Resampling,
        average: SliceAverage,
        source: NiftiStack,
        name: str = "",
    ) -> None:
        self._folder, self._resampling, self._source = folder, resampling, source
        self._average, self._name = average, name
        sizes = list(sizes_of(source.header)[:3])
        sizes[source.grid.axes[0]] = len(average)
        self._voxels = np.empty(sizes, source.stored.dtype, order="F")
        self._done = 0

    def write(self, thick: ThickSlice) -> None:
        """Take the next slice."""
        view = self._source.grid.view(self._voxels)
        stored = stored_values(thick.hu, self._voxels.dtype, self._source.scaling)
        if thick.padding.any():
            sources = [thick.nearest_source, *thick.other_sources]
            stored[thick.padding] = padding_values(thick, sources)
        view[self._done] = stored
        self._done += 1

    def finish(self) -> DerivedSeries:
        """Write the file and its UID map, when all slices are there."""
        source = self._source
        uid = self._resampling.uid(source.series_uid, "series")
        hashed = hashlib.sha256(uid.encode()).hexdigest()[:32]
        named = output_name(self._name, source.path, RESAMPLED)
        path = self._folder / (named or f"{hashed}{output_suffix(source.path)}")
        header = _resampled_header(source, self._average)
        return write_voxels(
            path, header, self._voxels, source, uid, derivation=str(self._resampling)
        )


def _resampled_header(source: NiftiStack, average: SliceAverage) -> Any:
    """The source's header with the thicker slices' number, distance and place."""
    header = source.header.copy()
    axis = source.grid.axes[0]
    shape = list(header.get_data_shape())
    shape[axis] = len(average)
    zooms = list(header["pixdim"])
    header.set_data_shape(shape)
    zooms[axis + 1] = average.spacing_mm
    header["pixdim"] = zooms
    to_source = _to_source_voxels(source, average)
    if int(header["sform_code"]) > 0:
        rows = header.get_sform() @ to_source
        header["srow_x"], header["srow_y"], header["srow_z"] = rows[:3]
    if int(header["qform_code"]) > 0:
        first = source.header.get_qform() @ to_source[:, 3]
        header["qoffset_x"], header["qoffset_y"], header["qoffset_z"] = first[:3]
    for field in ("slice_start", "slice_end", "slice_code", "slice_duration"):
        header[field] = 0
    before = bytes(header["descrip"].tobytes()).rstrip(b"\0")
    if before.startswith(DESCRIPTION):  # a harmonized scan stays one
        header["descrip"] = (before + b"; resampled")[:_MAX_DESCRIPTION]
    else:
        header["descrip"] = RESAMPLED_DESCRIPTION
    return header


def _to_source_voxels(source: NiftiStack, average: SliceAverage) -> Float[np.ndarray, "4 4"]:
    """From voxel indices of the new file to those of the source's, along the file's axes."""
    axis, back = source.grid.axes[0], source.grid.turned[0]
    z = source.geometry.z_mm
    step = source.geometry.spacing_mm
    places = (average.z_mm - z[0]) / step  # in our order
    matrix = np.eye(4)
    matrix[axis, axis] = average.spacing_mm / step
    matrix[axis, 3] = len(z) - 1 - places[-1] if back else places[0]
    return matrix
