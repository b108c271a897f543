"""ComBat on a wide table of features: further stages of the same table, and estimates to keep.

One fit for each region name and stage, on one row a patient and batch. What is fitted on patients
is applied to each region's row. The outcome of a study must not be a covariate: ComBat would keep,
and in small batches make, differences by outcome.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cvsct.core.errors import EvaluationError
from cvsct.core.files import made_folder, write_json
from cvsct.core.kinds import texts
from cvsct.evaluation.cohort_table import (
    COMBAT,
    SHAPE,
    PatientRows,
    combat_of,
    failed_rows,
    feature_columns,
    frame_of,
    need_columns,
    need_table,
    patient_rows,
    patient_values,
    region_name,
    same_patient_notes,
    stage_rows,
    stages_of,
)
from cvsct.evaluation.combat.estimates import ComBatEstimates, estimate_combat
from cvsct.evaluation.extras import load_extra

MIN_PATIENTS = 10
"""Smallest number of patients of a batch from which ComBat is fitted."""

FORMAT = 1
"""Version of the file of estimates."""


@dataclass(frozen=True)
class FeatureComBat:
    """Fitted ComBat of a table: estimates for each region name and stage.

    Args:
        batch: name of the column of batches.
        covariates: names of the covariates.
        estimates: estimates by stage that they are applied to and region name.
    """

    batch: str
    covariates: tuple[str, ...]
    estimates: dict[tuple[str, str], ComBatEstimates] = field(repr=False)

    def apply(self, table: Any, patients: Any | None = None) -> Any:
        """Rows of the stages `combat` and `harmonized+combat` of a table, such as of new patients.

        Args:
            table: wide table of patients of known batches.
            patients: table of covariates with a column `patient`; None if `table` has them.

        Returns:
            pandas DataFrame with the columns of the table; regions that were not fitted are left
            out.

        Raises:
            EvaluationError: if a batch or a covariate's value is not among the fitted ones.
        """
        table = frame_of(table)
        need_columns(table, "patient", "region", "stage", self.batch)
        names = table["region"].astype(str).map(region_name)
        parts = []
        for (stage, region), estimates in self.estimates.items():
            rows = stage_rows(table, stage, self.batch)
            rows = rows[names.loc[rows.index] == region]
            if len(rows):
                parts.append(self._applied(rows, stage, estimates, table, patients))
        return load_extra("pandas").concat(parts) if parts else table.iloc[:0]

    def save(self, path: Path | str) -> None:
        """Write the estimates as JSON; the file names no patient, and its folder is made.

        Raises:
            UsageError: if a file stands in the folder's way.
        """
        write_json(
            made_folder(Path(path).parent) / Path(path).name,
            {
                "format": FORMAT,
                "method": "ComBat (parametric empirical Bayes)",
                "batch": self.batch,
                "covariates": list(self.covariates),
                "regions": [
                    {"stage": stage, "region": region, **estimates.to_json()}
                    for (stage, region), estimates in self.estimates.items()
                ],
            },
        )

    @classmethod
    def load(cls, path: Path | str) -> FeatureComBat:
        """Read the estimates that `save` wrote.

        Raises:
            EvaluationError: if the file is not such a file.
        """
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
            is_known = record["format"] == FORMAT
            regions = {
                (each["stage"], each["region"]): ComBatEstimates.from_json(each)
                for each in record["regions"]
            }
            combat = cls(record["batch"], tuple(record["covariates"]), regions)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EvaluationError(
                f"{Path(path).name}: no estimates of ComBat ({type(error).__name__}); give the "
                "combat.json that the fit wrote"
            ) from error
        if not is_known:
            raise EvaluationError(
                f"{Path(path).name}: format {record['format']}, expected {FORMAT}; fit again"
            )
        return combat

    def _applied(
        self, rows: Any, stage: str, estimates: ComBatEstimates, table: Any, patients: Any | None
    ) -> Any:
        """Rows of one stage and region name, harmonized."""
        applied = rows.copy()
        applied["stage"] = combat_of(stage)
        features = list(estimates.features)
        good = ~failed_rows(rows)
        batch = rows[self.batch].astype(str).to_numpy()[good]
        covariates = patient_values(rows["patient"][good], table, self.covariates, patients)
        values = rows[features].to_numpy(dtype=np.float64, copy=True)
        values[good] = estimates.apply(values[good], list(batch), covariates)
        applied[features] = values
        undefined = [
            name for name, reason in estimates.not_fitted.items() if "unchanged" not in reason
        ]
        applied[undefined] = np.nan
        return applied


@dataclass(frozen=True)
class HarmonizedFeatures:
    """Result of ComBat on a table.

    Args:
        table: the wide table with the further stages below its rows.
        combat: the estimates, for new patients of the same batches.
        failed: reason for each region name and stage that could not be fitted.
        notes: what a reader must know: features that stayed as they are, numbers of patients.
    """

    table: Any = field(repr=False)
    combat: FeatureComBat
    failed: dict[str, str]
    notes: tuple[str, ...]


def harmonize_features(
    table: Any,
    batch: str = "batch",
    *,
    covariates: Sequence[str] = (),
    patients: Any | None = None,
    reference: str | None = None,
    mean_only: bool = False,
    min_patients: int = MIN_PATIENTS,
) -> HarmonizedFeatures:
    """Add the stages `combat` (of `source`) and `harmonized+combat` (of `harmonized`) to a table.

    Regions of one name, such as `nodule-1` and `nodule-2`, are fitted together; a patient with
    several of them, or several scans in one batch, counts once, with their volume-weighted mean.
    Shape features stay as they are: masks, not scanners, make them.

    Args:
        table: wide table of features, as pandas DataFrame or `FeatureTable`.
        batch: column of the batches, such as `batch`, `scanner` or `site`.
        covariates: columns whose effect on the features is kept, such as age and sex. Never the
            outcome of the study.
        patients: pandas DataFrame with the column `patient` and the covariates; None if `table` has
            them.
        reference: batch that stays as it is; None to bring all to a common level.
        mean_only: fit shifts alone.
        min_patients: smallest number of patients of each batch.

    Returns:
        The `HarmonizedFeatures`: `table`, `failed`, `notes`, and `combat`, whose `save` writes
        `combat.json`. For new patients of the same batches
        `cvsct.evaluation.combat.harmonize_features.FeatureComBat.load(path).apply(table)` returns
        the rows of these stages.

    Raises:
        UsageError: if a table is none, such as a path.
        EvaluationError: if a column is missing, or no region can be fitted.
        MissingExtraError: if pandas is not installed.

    Example:
        >>> harmonized = cvsct.harmonize_features(table, "scanner", covariates=["age"])
        >>> sorted(set(harmonized.table["stage"]))
        ['combat', 'source']
    """
    need_table(table=table, patients=patients)
    covariates = texts(covariates)
    table = frame_of(table)
    need_columns(table, "patient", "region", "stage", batch)
    features = [name for name in feature_columns(table) if not SHAPE.search(name)]
    names = table["region"].astype(str).map(region_name)
    estimates: dict[tuple[str, str], ComBatEstimates] = {}
    failed: dict[str, str] = {}
    notes = same_patient_notes(table)
    for stage in (each for each in stages_of(table) if not each.endswith(COMBAT)):
        rows = stage_rows(table, stage, batch)
        for region in sorted(set(names.loc[rows.index])):
            here = rows[names.loc[rows.index] == region]
            measured = [name for name in features if here[name].notna().any()]
            joined = patient_rows(here, measured, batch)
            try:
                _refuse_few(joined, min_patients, batch)
                values = patient_values(joined.patient, table, covariates, patients)
                fitted = estimate_combat(
                    joined.values, measured, joined.group, values,
                    reference=reference, mean_only=mean_only, batch_name=batch,
                )  # fmt: skip
            except EvaluationError as error:
                failed[f"{region}, {combat_of(stage)}"] = str(error)
                continue
            estimates[stage, region] = fitted
            notes += _fit_notes(fitted, f"{region}, {combat_of(stage)}")
    if not estimates:
        reason = next(iter(failed.items()), None)
        shown = f"{reason[0]}: {reason[1]}" if reason else "no rows of the stage source"
        raise EvaluationError(f"ComBat could not be fitted for any region ({shown})")
    combat = FeatureComBat(batch, tuple(covariates), estimates)
    pandas = load_extra("pandas")
    kept = table[~table["stage"].isin([combat_of(stage) for stage, _ in estimates])]
    further = combat.apply(table, patients)
    return HarmonizedFeatures(
        pandas.concat([kept, further], ignore_index=True), combat, failed, tuple(notes)
    )


def _refuse_few(rows: PatientRows, min_patients: int, batch: str) -> None:
    """Refuse batches of too few patients.

    Raises:
        EvaluationError: naming the smallest batch.
    """
    counts = {name: rows.group.count(name) for name in sorted(set(rows.group))}
    few = {name: count for name, count in counts.items() if count < min_patients}
    if few:
        name, count = min(few.items(), key=lambda item: item[1])
        others = f" (and {len(few) - 1} more batches)" if len(few) > 1 else ""
        raise EvaluationError(
            f"{batch} {name!r} has {count} patient{'s' if count != 1 else ''}{others}, expected at "
            f"least {min_patients}; leave it out, choose a coarser column, or lower the minimum "
            "(--min-patients)"
        )


def _fit_notes(estimates: ComBatEstimates, what: str) -> list[str]:
    notes = []
    for reason in sorted(set(estimates.not_fitted.values())):
        names = [name for name, own in estimates.not_fitted.items() if own == reason]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        notes.append(f"{what}: {len(names)} features {reason} ({shown})")
    return notes
