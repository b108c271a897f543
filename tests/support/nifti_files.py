"""NIfTI scans on disk in any orientation, with knobs for what a test wants to be odd."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cvsct.io.dicom.stack import open_stack
from cvsct.io.nifti.write import DESCRIPTION, write_nifti
from cvsct.io.read import find_series

SHAPE = (6, 20, 24)
"""Slices, rows and columns."""
STEPS_MM = (5.0, 0.75, 0.5)
FIRST_MM = (-100.0, -120.0, 40.0)
"""Where the first voxel lies, along left, posterior and superior."""


def scan_hu() -> np.ndarray:
    """Seeded HU, whole numbers, none of them padding."""
    rng = np.random.default_rng(11)
    return rng.integers(-1000, 1500, SHAPE)


def write_converted(source: Path, path: Path) -> Path:
    """A DICOM series as another program would convert it: nothing says that it is ours."""
    write_nifti(open_stack(find_series(source)[0]), path)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(
        gzip.compress(content.replace(DESCRIPTION, b"converted".ljust(len(DESCRIPTION))))
    )
    return path


def write_scan(
    path: Path,
    axes: str = "LPS",
    *,
    hu: np.ndarray | None = None,
    dtype: str = "<i2",
    scaling: tuple[float, float] = (1, 0),
    version: int = 1,
    **changes: Any,
) -> Path:
    """Write `scan_hu` with its voxels ordered along these directions.

    Args:
        axes: of the file's first, second and third axis, `L` or `R`, `P` or `A`, `S` or `I`.
        changes: header fields set after all others.
    """
    values = scan_hu() if hu is None else hu
    affine = np.eye(4)  # from our slice, row and column to left, posterior, superior
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (
        (0, 0, STEPS_MM[0]),
        (0, STEPS_MM[1], 0),
        (STEPS_MM[2], 0, 0),
    )
    affine[:3, 3] = FIRST_MM
    affine = np.diag([-1.0, -1, 1, 1]) @ affine
    order = [next(i for i, pair in enumerate(("SI", "PA", "LR")) if c in pair) for c in axes]
    turned = np.eye(4)
    for ours in (i for i, c in zip(order, axes, strict=True) if c in "IAR"):
        values = np.flip(values, ours)
        turned[ours, ours], turned[ours, 3] = -1, values.shape[ours] - 1
    affine = (affine @ turned)[:, [*order, 3]]
    stored = (values.transpose(order) - scaling[1]) / scaling[0]
    kind: Any = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    header = kind.header_class(endianness=dtype[0])
    header.set_data_dtype(dtype)
    image = kind(stored.astype(dtype), affine, header)
    image.header.set_xyzt_units("mm")
    image.header.set_sform(affine, code=1)
    image.header.set_qform(affine, code=1)
    image.header["descrip"] = b"made for a test"
    image.header["cal_max"] = 300
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment to be kept"))
    image.header.set_slope_inter(*scaling)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
    return _with_header(path, scaling, changes)


def _with_header(path: Path, scaling: tuple[float, float], changes: dict[str, Any]) -> Path:
    """Set fields that nibabel sets itself when it writes."""
    from cvsct.io.nifti.header import opened, read_nifti_header

    header, extensions = read_nifti_header(path)
    with opened(path) as stream:
        data = stream.read()[int(header["vox_offset"]) :]
    header["scl_slope"], header["scl_inter"] = scaling
    for field, value in changes.items():
        header[field] = value
    content = header.binaryblock + extensions + data
    if path.name.endswith(".gz"):
        import gzip

        content = gzip.compress(content)
    path.write_bytes(content)
    return path
