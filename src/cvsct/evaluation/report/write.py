"""Files of an evaluation: `metrics.json`, `features.csv` and `report.html`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cvsct.core.files import write_atomic, write_json
from cvsct.core.sides import with_old_keys
from cvsct.evaluation.agreement.comparison import changes, reproducible_shares, way_to_retest
from cvsct.evaluation.agreement.concordance import AcrossRegions
from cvsct.evaluation.evaluate import evaluate
from cvsct.evaluation.features.table_file import features_csv
from cvsct.evaluation.report.page import report_html
from cvsct.evaluation.report.verdict import verdict
from cvsct.evaluation.result import Comparison, Evaluation
from cvsct.evaluation.settings import EvaluationSettings

__all__ = ["Evaluation", "EvaluationSettings", "evaluate", "metrics", "write_report"]

PAIRED_KEYS = ("psnr_db", "ssim", "ncc", "ccc_within", "ccc_across", "hu_bias")
"""Keys of `metrics.json` that are null in an unpaired evaluation."""


def write_report(evaluation: Evaluation, folder: Path) -> None:
    """Write `metrics.json`, `report.html` and, if slices pair, `features.csv` into a folder.

    Raises:
        MissingExtraError: if the extra `evaluate` is not installed.
    """
    write_json(folder / "metrics.json", metrics(evaluation))
    if evaluation.paired:
        table = features_csv(evaluation.features, evaluation.regions)
        write_atomic(folder / "features.csv", table, private=True)
    write_atomic(folder / "report.html", report_html(evaluation))


def metrics(evaluation: Evaluation) -> dict[str, Any]:
    """Contents of `metrics.json`; every figure is finite, or null where it was not measured.

    The keys of 0.1.0 are written beside those that have changed.
    """
    texture = evaluation.texture
    distance = texture.distance_db if texture else {}
    result = verdict(evaluation)
    record: dict[str, Any] = {
        **_comparison_json(evaluation.harmonized),
        "n_slices": evaluation.n_slices,
        "n_rois": len(evaluation.regions),
        "spectral_distance_db": distance.get("harmonized"),
        "soft_tissue_hu": evaluation.soft_tissue_hu,
    }
    others = {"input": ("source", evaluation.input), "retest": ("retest", evaluation.retest)}
    for key, (side, comparison) in others.items():
        if side in evaluation.scanners:
            record[key] = {
                **_comparison_json(comparison),
                "n_slices": evaluation.n_slices,
                "n_rois": len(evaluation.regions),
                "spectral_distance_db": distance.get(side),
            }
    return with_old_keys(
        record
        | _gains_json(evaluation)
        | {
            "paired": evaluation.paired,
            "unpaired_because": evaluation.unpaired_because or None,
            "scorecard": evaluation.scorecard.to_json(),
            "verdict": {"kind": result.kind, "text": result.text},
            "notes": list(evaluation.notes),
            "guards": [record.to_json() for record in evaluation.guards],
            "uncertainty": [asdict(record) for record in evaluation.uncertainty],
            "independence": evaluation.independence.to_json() if evaluation.independence else None,
            "identity": evaluation.identity.to_json() if evaluation.identity else None,
            "scanners": evaluation.scanners,
            "spectra": None
            if texture is None
            else {
                "frequencies_per_mm": texture.frequencies_per_mm.tolist(),
                "band_per_mm": list(texture.band_per_mm),
                "power_db": {
                    side: [float(v) if np.isfinite(v) else None for v in power]
                    for side, power in texture.power_db.items()
                },
            },
            "physics": evaluation.physics.to_json(),
            "settings": evaluation.settings.model_dump(mode="json"),
            "extraction": evaluation.extraction,
            "research_use_only": True,
        }
    )


def _comparison_json(comparison: Comparison | None) -> dict[str, Any]:
    """Figures of one side against the target; nulls where nothing was compared."""
    if comparison is None:
        return dict.fromkeys(PAIRED_KEYS)
    quality, across = comparison.quality, comparison.across
    return {
        "psnr_db": quality.psnr_db.mean,
        "psnr_db_sd": quality.psnr_db.sd,
        "ssim": quality.ssim.mean,
        "ssim_sd": quality.ssim.sd,
        "ncc": quality.ncc.mean,
        "ncc_sd": quality.ncc.sd,
        "hu_bias": quality.hu_bias,
        "ccc_within": {k: v.mean if v else None for k, v in comparison.within.items()},
        "ccc_within_sd": {k: v.sd if v else None for k, v in comparison.within.items()},
        "ccc_across": {k: v.ccc for k, v in across.classes.items()},
        "ccc_across_mean": across.mean.ccc,
        "ccc_across_mean_interval": [across.mean.low, across.mean.high],
        "ccc_across_detail": {k: v.to_json() for k, v in across.classes.items()},
        "shares": [share.to_json() for share in reproducible_shares(across)],
        "features": [feature.to_json() for feature in across.features],
        **_ibsi_json(comparison.across_ibsi),
    }


def _ibsi_json(across: AcrossRegions | None) -> dict[str, Any]:
    """Concordance of features by IBSI's gray levels; nothing where they were not measured."""
    if across is None:
        return {}
    return {
        "ccc_across_ibsi": {k: v.ccc for k, v in across.classes.items()},
        "ccc_across_mean_ibsi": across.mean.ccc,
    }


def _gains_json(evaluation: Evaluation) -> dict[str, Any]:
    """Changes of features, and the share of the way to the retest; nulls without a source."""
    new, old, retest = evaluation.harmonized, evaluation.input, evaluation.retest
    if new is None or old is None:
        return {"changes": None, "way_to_retest": None}
    way = way_to_retest(new.across, old.across, retest.across) if retest else None
    return {
        "changes": changes(new.across, old.across).to_json(),
        "way_to_retest": way.to_json() if way else None,
    }
