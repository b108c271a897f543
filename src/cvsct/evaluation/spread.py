"""Mean and spread of a figure over slices or regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (population) of a figure over slices or regions."""

    mean: float
    sd: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Mean and standard deviation of the values, of which there is at least one."""
        return cls(float(np.mean(values)), float(np.std(values)), len(values))
