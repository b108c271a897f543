"""Features of IBSI's CT phantom in its configurations A to E, beside IBSI's reference values.

`python -m benchmarks.ibsi_ct_phantom DIR [--out FILE.csv]`. DIR is a copy of the NIfTI files of
`ibsi_1_ct_radiomics_phantom` (github.com/theibsi/data_sets): the image, and a mask with "mask" in
its path. The configurations are those of the reference manual (arXiv 1612.07003, chapter
"Reference data sets").

`ibsi_reference.csv` holds reference values of both phantoms. Sources: the manual's tables
(repository theibsi/ibsi-doc, docs/03_Image_features.rst) for GLCM and GLRLM; the same values as
printed in docs/ibsi1_compliance.md of the repository martonkolossvary/pictologics for the other
classes, of which the digital phantom and configuration C are given. The aggregation `averaged` is
the manual's "3D, averaged" (ITBB), for A and B "2.5D, direction-merged" (JJUI); `merged` is
"3D, merged" (IAZD).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from jaxtyping import Bool, Float
from radiomics.shape import RadiomicsShape
from scipy import ndimage

from cvsct.core.errors import UsageError
from cvsct.core.files import write_atomic
from cvsct.evaluation.features.extractor import feature_values
from cvsct.evaluation.features.ibsi import FixedBinSize

REFERENCE = Path(__file__).with_name("ibsi_reference.csv")

EXCESS = 3.0
"""What PyRadiomics' kurtosis is above IBSI's, which is the excess over a normal distribution's."""


@dataclass(frozen=True)
class Configuration:
    """One of IBSI's configurations.

    Args:
        spacing_mm: voxel size after interpolation along slices, rows and columns; None keeps one.
        spline_order: order of the image's interpolation; 0 for no interpolation.
        range_hu: re-segmentation range; None for none.
        outliers_sd: standard deviations beyond which voxels are left out; None for none.
        bins: number of bins; None for bins of 25 HU from the lower end of the range.
        by_slice: whether texture is measured within slices.
    """

    spacing_mm: tuple[float | None, float, float] | None
    spline_order: int
    range_hu: tuple[float, float] | None
    outliers_sd: float | None
    bins: int | None
    by_slice: bool


CONFIGURATIONS = {
    "A": Configuration(None, 0, (-500.0, 400.0), None, None, True),
    "B": Configuration((None, 2.0, 2.0), 1, (-500.0, 400.0), None, 32, True),
    "C": Configuration((2.0, 2.0, 2.0), 1, (-1000.0, 400.0), None, None, False),
    "D": Configuration((2.0, 2.0, 2.0), 1, None, 3.0, 32, False),
    "E": Configuration((2.0, 2.0, 2.0), 3, (-1000.0, 400.0), 3.0, 32, False),
}


@dataclass(frozen=True)
class Reference:
    """A reference value: of which feature, aggregated how, of which data, within what tolerance."""

    feature: str
    aggregation: str
    data: str
    value: float
    tolerance: float | None


def read_reference() -> list[Reference]:
    """Contents of `ibsi_reference.csv`."""
    with REFERENCE.open(encoding="utf-8", newline="") as stream:
        return [
            Reference(
                row["feature"], row["aggregation"], row["data"], float(row["value"]),
                float(row["tolerance"]) if row["tolerance"] else None,
            )
            for row in csv.DictReader(stream)
        ]  # fmt: skip


def interpolated(
    values: Float[np.ndarray, "slices rows columns"],
    voxel_mm: tuple[float, float, float],
    new_mm: tuple[float, float, float],
    order: int,
) -> Float[np.ndarray, "new_slices new_rows new_columns"]:
    """Values on IBSI's grid: as many voxels as cover the image, about the same center."""
    axes = []
    for count, old, new in zip(values.shape, voxel_mm, new_mm, strict=True):
        new_count = int(np.ceil(count * old / new - 1e-9))
        axes.append((count - 1) / 2 + (np.arange(new_count) - (new_count - 1) / 2) * new / old)
    at = np.meshgrid(*axes, indexing="ij")
    return np.asarray(ndimage.map_coordinates(values, at, order=order, mode="nearest"))


def measure(
    hu: Float[np.ndarray, "slices rows columns"],
    mask: Bool[np.ndarray, "slices rows columns"],
    voxel_mm: tuple[float, float, float],
    configuration: Configuration,
) -> dict[str, float]:
    """Features of the region in one configuration, by PyRadiomics' names."""
    if configuration.spacing_mm is not None:
        slices_mm, rows_mm, columns_mm = configuration.spacing_mm
        new_mm = (slices_mm or voxel_mm[0], rows_mm, columns_mm)
        hu = np.rint(interpolated(hu, voxel_mm, new_mm, configuration.spline_order))
        mask = interpolated(mask.astype(np.float32), voxel_mm, new_mm, 1) >= 0.5
        voxel_mm = new_mm
    box = tuple(slice(int(index.min()), int(index.max()) + 1) for index in np.nonzero(mask))
    hu, shape_mask = hu[box], mask[box]
    mask = shape_mask.copy()
    if configuration.range_hu is not None:
        mask &= (hu >= configuration.range_hu[0]) & (hu <= configuration.range_hu[1])
    if configuration.outliers_sd is not None:
        inside = hu[mask]
        mask &= np.abs(hu - inside.mean()) <= configuration.outliers_sd * inside.std()
    settings: dict[str, Any] = {"force2D": configuration.by_slice}
    discretization = None
    if configuration.bins is not None:
        settings["binCount"] = configuration.bins
    elif configuration.range_hu is not None:
        discretization = FixedBinSize(25.0, *configuration.range_hu)
    values = feature_values(hu, mask, voxel_mm, discretization, **settings)
    return values | shape_values(shape_mask, voxel_mm)


def shape_values(
    mask: Bool[np.ndarray, "slices rows columns"], voxel_mm: tuple[float, float, float]
) -> dict[str, float]:
    """PyRadiomics' features of shape; a mesh needs a rim around the mask."""
    region = SimpleITK.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
    region.SetSpacing(tuple(reversed(voxel_mm)))
    features = RadiomicsShape(region, region, label=1).execute()
    return {f"shape_{name}": float(value) for name, value in features.items()}


def compared(values: dict[str, float], configuration: str) -> list[dict[str, str]]:
    """Rows of the measured features with their references, where there are any."""
    by_name = {
        reference.feature: reference
        for reference in read_reference()
        if reference.data == configuration and reference.aggregation != "merged"
    }
    rows = []
    for name, value in sorted(values.items()):
        reference = by_name.get(name)
        excess = EXCESS if name == "firstorder_Kurtosis" else 0.0
        row = {"configuration": configuration, "feature": name, "value": repr(value - excess)}
        if reference is not None:
            tolerance = reference.tolerance or 0.0
            is_within = abs(value - excess - reference.value) <= tolerance
            row |= {"reference": f"{reference.value:g}", "tolerance": f"{tolerance:g}"}
            row["agrees"] = "yes" if is_within else "no"
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the phantom in a folder, and write and print what agrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_AsWritten)
    parser.add_argument("folder", type=Path, help="folder with the phantom's NIfTI files")
    parser.add_argument("--out", type=Path, default=Path("ibsi_ct_phantom.csv"))
    options = parser.parse_args(arguments)
    hu, mask, voxel_mm = _read(options.folder)
    rows: list[dict[str, str]] = []
    for name, configuration in CONFIGURATIONS.items():
        rows += compared(measure(hu, mask, voxel_mm, configuration), name)
        with_reference = [row for row in rows if row["configuration"] == name and "agrees" in row]
        different = [row["feature"] for row in with_reference if row["agrees"] == "no"]
        print(
            f"configuration {name}: {len(with_reference) - len(different)} of "
            f"{len(with_reference)} features within tolerance"
            + (f"; not: {', '.join(different)}" if different else "")
        )
    columns = ("configuration", "feature", "value", "reference", "tolerance", "agrees")
    lines = [",".join(columns), *(",".join(row.get(c, "") for c in columns) for row in rows)]
    write_atomic(options.out, "\n".join(lines) + "\n")


class _AsWritten(argparse.RawDescriptionHelpFormatter):
    """Help that keeps the lines of this module's docstring."""


def _read(
    folder: Path,
) -> tuple[
    Float[np.ndarray, "slices rows columns"],
    Bool[np.ndarray, "slices rows columns"],
    tuple[float, float, float],
]:
    """Image in whole HU, mask and voxel size along slices, rows and columns.

    Raises:
        UsageError: if the folder does not hold one image and one mask of one shape.
    """
    paths = sorted({*folder.rglob("*.nii"), *folder.rglob("*.nii.gz")})
    masks = [path for path in paths if "mask" in str(path.relative_to(folder)).lower()]
    images = [path for path in paths if path not in masks]
    if len(masks) != 1 or len(images) != 1:
        raise UsageError(
            f"{folder} holds {len(images)} images and {len(masks)} masks as NIfTI; expected one of "
            "each: give the folder ibsi_1_ct_radiomics_phantom/nifti"
        )
    image, mask = nibabel.load(images[0]), nibabel.load(masks[0])
    columns_mm, rows_mm, slices_mm = (float(mm) for mm in image.header.get_zooms()[:3])
    hu = np.rint(np.asarray(image.dataobj, dtype=np.float64)).T
    inside = np.rint(np.asarray(mask.dataobj, dtype=np.float64)).T > 0
    if hu.shape != inside.shape:
        raise UsageError(f"an image of {hu.shape} and a mask of {inside.shape} voxels do not fit")
    return hu, inside, (slices_mm, rows_mm, columns_mm)


if __name__ == "__main__":
    main()
