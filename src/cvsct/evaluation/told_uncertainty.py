"""Records of how uncertain harmonized images are, for the report.

They are read from the manifest of `cvsct harmonize --uncertainty`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cvsct.core.errors import one_line

MOST_CHARACTERS = 32


@dataclass(frozen=True)
class UncertaintyRecord:
    """Standard errors of one tissue of a harmonized series, medians over its slices.

    Args:
        series: name of its folder.
        tissue: name of the tissue.
        slices: number of slices that show enough of it.
        fit_hu, synthesis_hu: of each voxel, by the model's fit and by noise that was added, in HU.
        mean_hu: of the tissue's mean CT number, in HU.
        noise_percent: of its noise level, in percent.
    """

    series: str
    tissue: str
    slices: int
    fit_hu: float
    synthesis_hu: float
    mean_hu: float
    noise_percent: float


def uncertainty_of(manifest: Mapping[str, Any]) -> tuple[UncertaintyRecord, ...]:
    """Records of all series of a manifest; none where none was asked for, or it makes no sense.

    Args:
        manifest: manifest of `cvsct harmonize`; empty where there is none.
    """
    records = []
    try:
        for row in manifest["figures"]["series"]:
            for tissue, figures in row.get("uncertainty", {}).items():
                values = [float(figures[name]) for name in
                          ("fit_hu", "synthesis_hu", "mean_hu", "noise_percent")]  # fmt: skip
                if not all(map(math.isfinite, values)):
                    raise ValueError("not finite")
                folder, name = (one_line(str(text))[:MOST_CHARACTERS]
                                for text in (row["folder"], tissue))  # fmt: skip
                records.append(UncertaintyRecord(folder, name, int(figures["slices"]), *values))
    except (AttributeError, KeyError, TypeError, ValueError):
        return ()
    return tuple(records)
