"""Table of the patients of a study: covariates and outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cvsct.core.errors import UsageError
from cvsct.core.text import did_you_mean
from cvsct.evaluation.cohort_table import read_table

PATIENT = "patient"
"""Column of the Patient ID."""


def read_patients(path: Path) -> Any:
    """The table of patients, a data frame.

    Raises:
        UsageError: if it cannot be read, or has no column `patient`.
    """
    table = read_table(path)
    names = [str(name) for name in table.columns]
    if PATIENT not in names:
        near = [name for name in names if PATIENT in name.casefold()]
        hint = f"rename {near[0]!r} to it" if near else did_you_mean(PATIENT, names)
        raise UsageError(
            f"{path}: no column {PATIENT!r} (it has {', '.join(names[:8])}); {hint}".rstrip("; ")
        )
    return table
