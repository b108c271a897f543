"""Writing and reading of `features.csv`: features of every region in every side's images."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import MaskedRegion
from cvsct.core.sides import side_name
from cvsct.evaluation.features.placement import PlacedRegion
from cvsct.evaluation.features.radiomics import MissingValue, RegionFeatures
from cvsct.evaluation.table import as_text

PLACE_COLUMNS = ("image", "region", "series", "z_mm", "row", "column", "rows", "columns", "label")


def features_csv(features: Mapping[str, RegionFeatures], regions: Sequence[PlacedRegion]) -> str:
    """Text of `features.csv`: a row for each side and region; undefined values are empty.

    Args:
        features: features of the regions, by side.
        regions: the regions.
    """
    buffer = io.StringIO()
    names = next(iter(features.values())).names if features else ()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow((*PLACE_COLUMNS, *names))
    for side, table in features.items():
        for number, (placed, values) in enumerate(zip(regions, table.values, strict=True)):
            region = placed.region
            if isinstance(region, MaskedRegion):
                shape, label = region.mask.shape, as_text(region.label)
            else:
                shape, label = (region.size_px, region.size_px), ""
            position = (f"{placed.z_mm:.3f}", region.row, region.column, *shape, label)
            cells = ["" if np.isnan(value) else repr(float(value)) for value in values]
            writer.writerow((side, number + 1, placed.volume + 1, *position, *cells))
    return buffer.getvalue()


@dataclass(frozen=True)
class FeatureFile:
    """Contents of a `features.csv`.

    Args:
        features: features by side, all of the same regions.
        slices: slice of each region, by series and position.
    """

    features: dict[str, RegionFeatures]
    slices: tuple[str, ...]


def read_features(path: Path) -> FeatureFile:
    """Read a `features.csv`; its values are those that were measured, bit for bit.

    Raises:
        EvaluationError: if the file is not what `features_csv` writes.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream)
    names = tuple(head[len(PLACE_COLUMNS) :])
    if tuple(head[: len(PLACE_COLUMNS)]) != PLACE_COLUMNS or not names:
        raise EvaluationError(
            f"{path}: not the columns of this version's features.csv, expected "
            f"{', '.join(PLACE_COLUMNS)} and the features; evaluate again"
        )
    rows_by_side: dict[str, list[list[str]]] = {}
    for row in rows:
        rows_by_side.setdefault(side_name(row[0]), []).append(row)
    features = {}
    for side, rows_of_side in rows_by_side.items():
        cells = [row[len(PLACE_COLUMNS) :] for row in rows_of_side]
        values = np.array([[float(cell or "nan") for cell in row] for row in cells])
        features[side] = RegionFeatures(
            names,
            values,
            tuple(
                MissingValue(int(region), names[column], "undefined when it was measured")
                for region, column in np.argwhere(np.isnan(values))
            ),
        )
    rows_of_one_side = next(iter(rows_by_side.values()), [])
    return FeatureFile(features, tuple(f"{row[2]}/{row[3]}" for row in rows_of_one_side))
