"""A NIfTI label map as whole numbers, checked, on the grid that it was saved on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int32

from cvsct.core.errors import GeometryError, SeriesError
from cvsct.core.volume import CTVolume
from cvsct.io.dicom.header import label
from cvsct.io.mask_grid import refuse_larger
from cvsct.io.nifti.header import read_nifti_header, read_voxels, scaling_of, sizes_of
from cvsct.io.nifti.read import TO_LPS

MAX_LABELS = 1000

_MILLIMETRES = ("mm", "unknown")


def read_labels(
    path: Path, volume: CTVolume
) -> tuple[Int32[np.ndarray, "_ _ _"], Float[np.ndarray, "4 4"]]:
    """Labels in the file's own order of axes, and from their indices to mm (DICOM's axes).

    Args:
        volume: the image; a map of many more voxels is refused before it is read.

    Raises:
        SeriesError: if the file cannot be read, or is no label map.
        GeometryError: if it does not say where it lies, or is much larger than the image.
    """
    name = label(path)
    header, _ = read_nifti_header(path)
    shape, dtype = sizes_of(header), header.get_data_dtype()
    if len(shape) < 3 or any(size != 1 for size in shape[3:]) or dtype.kind not in "uif":
        raise SeriesError(
            f"{name}: shape {shape} of {dtype}, expected one 3-D map of numbers; "
            "save one label map a file"
        )
    refuse_larger(name, shape[:3], volume)
    units = header.get_xyzt_units()[0]
    coded = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    if units not in _MILLIMETRES or not coded:
        raise GeometryError(
            f"{name}: its header does not say where it lies in mm (no orientation code, or "
            f"lengths in {units}); save it again from the program that drew it"
        )
    slope, intercept = scaling_of(header)
    values = read_voxels(path, header) * slope + intercept
    whole = np.rint(values)
    if not (np.isfinite(values) & (whole == values)).all() or values.min(initial=0) < 0:
        raise SeriesError(
            f"{name}: values that are no labels (fractions or below 0); threshold the map first"
        )
    numbers = np.unique(whole[whole > 0])
    if len(numbers) > MAX_LABELS:
        raise SeriesError(f"{name}: {len(numbers)} labels look like an image; give a label map")
    if whole.max(initial=0) > np.iinfo(np.int32).max:
        raise SeriesError(
            f"{name}: labels beyond {np.iinfo(np.int32).max}, expected small whole numbers; "
            "renumber them"
        )
    return whole.astype(np.int32), TO_LPS @ header.get_best_affine()
