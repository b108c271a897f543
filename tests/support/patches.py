"""Patches whose power and covariates a test chooses."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from cvsct.methods.spectrum.patches import Patches


def made_patches(log_power: np.ndarray, **columns: np.ndarray) -> Patches:
    """Patches each in a slice of its own, with covariates of 0 but for those given."""
    n = len(log_power)
    zeros = {column.name: np.zeros(n) for column in fields(Patches)}
    given = {"log_power": log_power, "slice_number": np.arange(n), **columns}
    return Patches(**{**zeros, **given})
