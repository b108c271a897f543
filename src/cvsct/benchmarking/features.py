"""Parts of a benchmark that need features only: ComBat, and tests of the leading method.

Both need the features of every method in the same regions, which the `features.csv` of each report
has: the target and the seed determine the regions, whatever the method.
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
    """Metrics of ComBat on the input's features, under the keys of `metrics.json`.

    It is cross-fitted over slices: no region is harmonized by a fit on regions of its slice. There
    are no images, and so no image quality.

    Args:
        file: features of a report, with a source.
        bootstrap: number of resamples behind each interval.
        seed: seed of the folds and the resamples.

    Raises:
        EvaluationError: if there are too few regions to fit on.
    """
    source, target = file.features["source"], file.features["target"]
    harmonized = crossfit_combat(source, target, seed=seed, groups=np.array(file.slices))
    after, before = (across_regions(side, target, bootstrap, seed) for side in (harmonized, source))
    by_class = within_regions(harmonized, target)
    record: dict[str, Any] = {
        "n_rois": len(target.values),
        "ccc_within": {k: v.mean if v else None for k, v in by_class.items()},
        "ccc_within_sd": {k: v.sd if v else None for k, v in by_class.items()},
        "ccc_across": {k: v.ccc for k, v in after.classes.items()},
        "ccc_across_mean": after.mean.ccc,
        "ccc_across_mean_interval": [after.mean.low, after.mean.high],
        "shares": [share.to_json() for share in reproducible_shares(after)],
    }
    if "retest" in file.features:
        retest = across_regions(file.features["retest"], target, bootstrap, seed)
        record["way_to_retest"] = way_to_retest(after, before, retest).to_json()
    return record


def leader_table(files: Mapping[str, FeatureFile], direction: str, number: int) -> Table | None:
    """Table of tests of every method against the one of the highest concordance.

    Args:
        files: features of each method's report.
        direction: name of the direction.
        number: number of the direction.

    Returns:
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
    tests = paired_tests(tables, target, against=leader)
    class_tests: dict[str, list[PairedTest]] = {}
    for test in tests.of("class"):
        class_tests.setdefault(test.first, []).append(test)
    rows = [
        (
            test.first,
            f"{test.difference:+.3f}",
            _p_text(test.p_adjusted),
            ", ".join(t.name for t in class_tests.get(test.first, []) if _worse(t)) or "none",
            ", ".join(t.name for t in class_tests.get(test.first, []) if _better(t)) or "none",
        )
        for test in sorted(tests.of("mean"), key=lambda test: -test.difference)
    ]
    return Table(
        key=f"lead{number + 1}",
        title=f"Is the lead of {leader} real? {direction}",
        caption=(
            f"Each method against {leader}: difference of the mean concordance across regions over "
            f"features defined in all; paired permutation test over {tests.units} regions of these "
            "images (Holm). It does not extend to other bodies."
        ),
        head=("Method", "difference", "p", "classes clearly worse", "classes clearly better"),
        rows=tuple(rows),
    )


def _worse(test: PairedTest) -> bool:
    return test.p_adjusted < 0.05 and test.difference < 0


def _better(test: PairedTest) -> bool:
    return test.p_adjusted < 0.05 and test.difference > 0


def _p_text(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
