"""The wide table of features: its columns, the rows of a stage, and one row a patient.

A row is a patient's region in one stage (`source`, `harmonized`, `combat`, ...) of one series. Its
feature columns are named as PyRadiomics names them (`original_glcm_Contrast`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import EvaluationError, UsageError
from cvsct.core.kinds import kind_of
from cvsct.evaluation.extras import load_extra

SOURCE, RESAMPLED, HARMONIZED = "source", "resampled", "harmonized"
COMBAT, HARMONIZED_COMBAT = "combat", "harmonized+combat"
_OF_COMBAT = "+combat"

TEXT_COLUMNS = (
    "patient", "study_uid", "series_uid", "derived_uid", "site", "stage", "region", "scanner",
    "kernel", "batch", "harmonized_to", "error",
)  # fmt: skip
"""Columns of names, never of numbers."""

SHAPE = re.compile(r"_shape(2D)?_")
"""Features of the mask alone, which no scanner's texture changes."""

_FEATURE = re.compile(
    r"(?!diagnostics_)\w[\w.-]*_(firstorder|glcm|glrlm|glszm|gldm|ngtdm|shape|shape2D)_\w+\Z"
)
_DENSITOMETRY = re.compile(r"(lungs?|densitometry)_\w+\Z")
_NUMBERED = re.compile(r"[ _-]+\d+\Z")


def feature_columns(table: Any) -> list[str]:
    """Names of the feature columns of a table, in order.

    Raises:
        EvaluationError: if there are none.
    """
    names = [
        str(name)
        for name in table.columns
        if _FEATURE.match(str(name)) or _DENSITOMETRY.match(str(name))
    ]
    if not names:
        raise EvaluationError(
            "the table has no feature columns, expected names such as original_glcm_Contrast; "
            "give a features_wide.csv"
        )
    return names


def read_table(path: Path) -> Any:
    """Read a wide table, or one of patients or physics: CSV, or Parquet with that extra.

    Columns that name things are text, so that the patient `007` stays that.

    Raises:
        EvaluationError: if the file is not such a table.
    """
    pandas = load_extra("pandas")
    try:
        if path.suffix == ".parquet":
            return pandas.read_parquet(path)
        return pandas.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str))
    except (OSError, ValueError, ImportError) as error:
        raise EvaluationError(
            f"{path}: cannot be read as a table ({type(error).__name__}); give a CSV file with a "
            "head of column names"
        ) from error


def need_columns(table: Any, *names: str) -> None:
    """Refuse a table without some columns.

    Raises:
        EvaluationError: naming the column and those that there are.
    """
    for name in names:
        if name not in table.columns:
            features = {*table.columns[[bool(_FEATURE.match(str(c))) for c in table.columns]]}
            others = ", ".join(str(c) for c in table.columns if c not in features)
            raise EvaluationError(
                f"the table has no column {name!r} (it has {others} and features); "
                "choose one of these"
            )


def need_table(*, table: object, **others: object) -> None:
    """Refuse arguments that are no tables; of the others, those that are None are not given.

    Raises:
        UsageError: for the first that is none.
    """
    given = {"table": table, **{name: value for name, value in others.items() if value is not None}}
    for name, value in given.items():
        if not hasattr(value, "to_pandas") and not hasattr(value, "columns"):
            raise UsageError(
                f"{name}: {kind_of(value)}, expected a FeatureTable or a pandas DataFrame; read a "
                'CSV file with pandas.read_csv(path, dtype={"patient": str})'
            )


def region_name(name: str) -> str:
    """Name of a region without its number: `nodule-2` and `nodule_10` are `nodule`; `T12` stays."""
    return _NUMBERED.sub("", name) or name


def frame_of(table: Any) -> Any:
    """The pandas DataFrame of a table with rows numbered from 0; a `FeatureTable` becomes one.

    Raises:
        UsageError: if it is no table.
    """
    need_table(table=table)
    frame = table.to_pandas() if hasattr(table, "to_pandas") else table
    return frame.reset_index(drop=True)


def failed_rows(table: Any) -> Any:
    """True for each row whose region could not be measured."""
    if "error" not in table.columns:
        return np.zeros(len(table), dtype=bool)
    return (table["error"].fillna("").astype(str) != "").to_numpy()


def combat_of(stage: str) -> str:
    """Name of the stage that ComBat makes of another."""
    return COMBAT if stage == SOURCE else f"{stage}{_OF_COMBAT}"


def is_harmonized(stage: str) -> bool:
    """Whether a stage is of harmonized images alone; of several models it has the model's hash."""
    return stage.startswith(HARMONIZED) and not stage.endswith(_OF_COMBAT)


def stages_of(table: Any) -> list[str]:
    """Stages of a table: `source`, thicker slices, harmonized images, those of ComBat."""
    present = sorted({str(stage) for stage in table["stage"]})
    return (
        [stage for stage in (SOURCE, RESAMPLED) if stage in present]
        + [stage for stage in present if is_harmonized(stage)]
        + [stage for stage in present if stage == COMBAT or stage.endswith(_OF_COMBAT)]
    )


def stage_rows(table: Any, stage: str, group: str) -> Any:
    """Rows of a cohort in a stage, completed by groups that did not need to be harmonized.

    A group without any row in a stage of harmonized images, such as the target scanner's, is taken
    from the stage before: `harmonized` from `source`, `harmonized+combat` from nothing.

    Args:
        table: the wide table.
        stage: name of the stage.
        group: column of the acquiring scanner, site or batch.

    Returns:
        The rows, with the same index as in the table.
    """
    own = table[table["stage"] == stage]
    if not is_harmonized(stage):
        return own
    harmonized_groups = set(own[group].astype(str))
    source = table[table["stage"] == SOURCE]
    others = source[~source[group].astype(str).isin(harmonized_groups)]
    return load_extra("pandas").concat([own, others])


@dataclass(frozen=True)
class PatientRows:
    """One row a patient and group: the volume-weighted mean of the patient's regions of one name.

    Args:
        features: names of the features.
        values: features, NaN where undefined in all of a patient's regions.
        patient: key of the patient of each row.
        group: group (scanner, site or batch) of each row.
        regions: number of regions behind each row.
    """

    features: tuple[str, ...]
    values: Float[np.ndarray, "rows features"] = field(repr=False)
    patient: tuple[str, ...] = field(repr=False)
    group: tuple[str, ...] = field(repr=False)
    regions: tuple[int, ...] = field(repr=False)

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Patient and group of each row."""
        return list(zip(self.patient, self.group, strict=True))

    def select(self, rows: Sequence[int]) -> PatientRows:
        """Some of the rows."""
        return PatientRows(
            self.features,
            self.values[np.asarray(rows, dtype=np.int64)],
            tuple(self.patient[i] for i in rows),
            tuple(self.group[i] for i in rows),
            tuple(self.regions[i] for i in rows),
        )


def patient_rows(rows: Any, features: Sequence[str], group: str) -> PatientRows:
    """Join the rows of one stage and one region name to one row a patient and group.

    Weights are `volume_mm3`, else `voxels`, else 1. An undefined value is left out of its mean.
    Rows whose region failed are left out.

    Args:
        rows: rows of a wide table.
        features: the feature columns to use.
        group: column of the group.
    """
    rows = rows[~failed_rows(rows)]
    keys = list(zip(rows["patient"].astype(str), rows[group].astype(str), strict=True))
    order = sorted(set(keys))
    number_of = {key: number for number, key in enumerate(order)}
    number = np.array([number_of[key] for key in keys], dtype=np.int64)
    values = rows[list(features)].to_numpy(dtype=np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    weight = _weights(rows)
    defined = np.isfinite(values)
    total = np.zeros((len(order), len(features)))
    mass = np.zeros_like(total)
    np.add.at(total, number, np.where(defined, values * weight[:, None], 0.0))
    np.add.at(mass, number, defined * weight[:, None])
    with np.errstate(invalid="ignore"):
        mean = np.where(mass > 0, total / np.where(mass > 0, mass, 1.0), np.nan)
    return PatientRows(
        tuple(features),
        mean,
        tuple(patient for patient, _ in order),
        tuple(name for _, name in order),
        tuple(int(count) for count in np.bincount(number, minlength=len(order))),
    )


def patient_values(
    keys: Iterable[str], table: Any, names: Sequence[str], patients: Any | None = None
) -> dict[str, list[Any]]:
    """Values of columns for patients: from a table of patients, else from the wide table.

    Args:
        keys: keys of the patients.
        table: the wide table.
        names: names of the columns, such as covariates.
        patients: table with a column `patient`, one row a patient; None to look in `table` alone.

    Raises:
        EvaluationError: if a column is nowhere, or a patient has two values of it.
    """
    values: dict[str, list[Any]] = {}
    for name in names:
        origin = patients if patients is not None and name in patients.columns else table
        need_columns(origin, "patient", name)
        value_of: dict[str, Any] = {}
        known = origin[["patient", name]].dropna(subset=[name])
        for patient, value in zip(known["patient"].astype(str), known[name].tolist(), strict=True):
            if value_of.setdefault(patient, value) != value:
                raise EvaluationError(
                    f"column {name} has two values for one patient, expected one value a "
                    "patient; correct the table"
                )
        values[name] = [value_of.get(patient) for patient in map(str, keys)]
    return values


def same_patient_notes(table: Any) -> list[str]:
    """A note where patients have the same ID at two sites."""
    if "site" not in table.columns:
        return []
    sites = table.groupby(table["patient"].astype(str))["site"].nunique()
    shared = int((sites > 1).sum())
    if not shared:
        return []
    return [
        f"{shared} patient IDs occur at two sites and count as one patient; give each patient an "
        "ID of their own if they are not"
    ]


def _weights(rows: Any) -> Float[np.ndarray, " rows"]:
    for column in ("volume_mm3", "voxels"):
        if column in rows.columns:
            weight = rows[column].to_numpy(dtype=np.float64)
            if np.isfinite(weight).all() and (weight > 0).all():
                return np.asarray(weight)
    return np.ones(len(rows))
