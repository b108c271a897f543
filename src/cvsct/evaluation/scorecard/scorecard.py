"""Scorecard of an evaluation: every axis against its tolerance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvsct.evaluation.scorecard import features_tile, physics_tiles, trust_tiles
from cvsct.evaluation.scorecard.tile import Scorecard

if TYPE_CHECKING:
    from cvsct.evaluation.result import Evaluation

AXES = (
    features_tile.features,
    physics_tiles.noise_level,
    physics_tiles.noise_texture,
    physics_tiles.resolution,
    physics_tiles.ct_numbers,
    physics_tiles.geometry,
    trust_tiles.guards,
    trust_tiles.independence,
)
"""Axes in the order in which they are shown."""


def scorecard_of(evaluation: Evaluation) -> Scorecard:
    """Judge an evaluation by the tolerances of its settings."""
    return Scorecard(tuple(axis(evaluation) for axis in AXES))
