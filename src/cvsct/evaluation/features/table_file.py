"""`features.csv`: the features of every region in every side's images, written and read back."""

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
from cvsct.evaluation.features.radiomics import FeatureTable, MissingValue
from cvsct.evaluation.table import as_text

PLACE_COLUMNS = ("image", "region", "series", "z_mm", "row", "column", "rows", "columns", "label")


def features_csv(features: Mapping[str, FeatureTable], regions: Sequence[PlacedRegion]) -> str:
    """One row a region and image; a value is empty where the feature is undefined."""
    buffer = io.StringIO()
    names = next(iter(features.values())).names if features else ()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow((*PLACE_COLUMNS, *names))
    for side, table in features.items():
        for number, (place, values) in enumerate(zip(regions, table.values, strict=True)):
            where = place.region
            shape = where.mask.shape if isinstance(where, MaskedRegion) else (where.size_px,) * 2
            label = as_text(where.label) if isinstance(where, MaskedRegion) else ""
            at = (f"{place.z_mm:.3f}", where.row, where.column, *shape, label)
            cells = ["" if np.isnan(value) else repr(float(value)) for value in values]
            writer.writerow((side, number + 1, place.volume + 1, *at, *cells))
    return buffer.getvalue()


@dataclass(frozen=True)
class FeatureFile:
    """What a `features.csv` holds.

    Args:
        features: by side, in the same regions.
        slices: which slice each region lies in.
    """

    features: dict[str, FeatureTable]
    slices: tuple[str, ...]


def read_features(path: Path) -> FeatureFile:
    """Read features back, bit for bit.

    Raises:
        EvaluationError: if the file is not what `features_csv` writes.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream)
    names = tuple(head[len(PLACE_COLUMNS) :])
    if tuple(head[: len(PLACE_COLUMNS)]) != PLACE_COLUMNS or not names:
        raise EvaluationError(f"{path}: no features.csv of this version; evaluate again")
    sides: dict[str, list[list[str]]] = {}
    for row in rows:
        sides.setdefault(side_name(row[0]), []).append(row)
    features = {}
    for side, some in sides.items():
        cells = [row[len(PLACE_COLUMNS) :] for row in some]
        values = np.array([[float(cell or "nan") for cell in row] for row in cells])
        features[side] = FeatureTable(
            names,
            values,
            tuple(
                MissingValue(int(region), names[column], "undefined when it was measured")
                for region, column in np.argwhere(np.isnan(values))
            ),
        )
    first = next(iter(sides.values()), [])
    return FeatureFile(features, tuple(f"{row[2]}/{row[3]}" for row in first))
