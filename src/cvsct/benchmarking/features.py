"""What a benchmark asks of the features themselves: ComBat as a rival, and whether a lead is real.

Both need the features of every method in the same regions, which `features.csv` of each report
holds: regions are placed by the target and the seed, whatever the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cvsct.evaluation.agreement.combat import crossfit_combat
from cvsct.evaluation.agreement.comparison import reproducible_shares, way_to_retest
from cvsct.evaluation.agreement.concordance import across_regions, within_regions
from cvsct.evaluation.agreement.paired_tests import PairedTest, paired_tests
from cvsct.evaluation.features.table_file import FeatureFile
from cvsct.evaluation.table import Table


def combat_metrics(file: FeatureFile, bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """What ComBat makes of the input's features, as `metrics.json` has it for a method.

    Cross-fitted over slices: no region is harmonized by a fit that saw its slice. There are no
    images, so image quality is not there.

    Raises:
        EvaluationError: if there are too few regions to fit on.
        MissingExtraError: if neuroCombat is not installed.
    """
    source, target = file.features["source"], file.features["target"]
    made = crossfit_combat(source, target, seed=seed, groups=np.array(file.slices))
    now, before = (across_regions(side, target, bootstrap, seed) for side in (made, source))
    by_region = within_regions(made, target)
    record: dict[str, Any] = {
        "n_rois": len(target.values),
        "ccc_within": {k: v.mean if v else None for k, v in by_region.items()},
        "ccc_within_sd": {k: v.sd if v else None for k, v in by_region.items()},
        "ccc_across": {k: v.ccc for k, v in now.classes.items()},
        "ccc_across_mean": now.mean.ccc,
        "ccc_across_mean_interval": [now.mean.low, now.mean.high],
        "shares": [one.to_json() for one in reproducible_shares(now)],
    }
    if "retest" in file.features:
        retest = across_regions(file.features["retest"], target, bootstrap, seed)
        record["way_to_retest"] = way_to_retest(now, before, retest).to_json()
    return record


def leader_table(files: Mapping[str, FeatureFile], direction: str, number: int) -> Table | None:
    """Every method against the one of the best concordance: the difference, and whether it is real.

    None where there are not two methods, or their regions differ.
    """
    if len(files) < 2:
        return None
    tables = {name: file.features["harmonized"] for name, file in files.items()}
    target = next(iter(files.values())).features["target"]
    if any(len(table.values) != len(target.values) for table in tables.values()):
        return None
    means = {
        name: across_regions(table, target, 1).mean.ccc or -1.0 for name, table in tables.items()
    }
    leader = max(means, key=lambda name: means[name])
    found = paired_tests(tables, target, against=leader)
    by_class: dict[str, list[PairedTest]] = {}
    for one in found.of("class"):
        by_class.setdefault(one.first, []).append(one)
    rows = [
        (
            one.first,
            f"{one.difference:+.3f}",
            _p_text(one.p_adjusted),
            ", ".join(each.name for each in by_class.get(one.first, []) if _worse(each)) or "none",
            ", ".join(each.name for each in by_class.get(one.first, []) if _better(each)) or "none",
        )
        for one in sorted(found.of("mean"), key=lambda one: -one.difference)
    ]
    return Table(
        key=f"lead{number + 1}",
        title=f"Is the lead of {leader} real? {direction}",
        caption=(
            f"Each method against {leader}: difference of the mean concordance across regions over "
            f"features defined in all; paired permutation test over {found.units} regions of these "
            "images (Holm). It says nothing of other bodies."
        ),
        head=("Method", "difference", "p", "classes clearly worse", "classes clearly better"),
        rows=tuple(rows),
    )


def _worse(one: PairedTest) -> bool:
    return one.p_adjusted < 0.05 and one.difference < 0


def _better(one: PairedTest) -> bool:
    return one.p_adjusted < 0.05 and one.difference > 0


def _p_text(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
