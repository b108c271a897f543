"""Resolution from natural edges: the task transfer function of skin and of the lungs' border.

Noise and resolution are confounded in a power spectrum; an edge carries resolution alone. Pixels
along many pieces of edge are sorted by their distance from the edge, each piece is placed to a
fraction of a pixel on each side's own image, and the mean profile is transformed (AAPM Report 233,
section 4.3, with natural edges for its rods).

An edge of a body is not ideally sharp: it slants through a thick slice and tissue near it varies.
What is measured is that blur times the scanner's, so absolute values read low, and only
*differences between sides on the same edges* are the scanner's or the method's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.seeding import random_stream
from cvsct.core.volume import AIR_FLOOR_HU, CTVolume
from cvsct.evaluation.image.edges import (
    LENGTH_PX,
    REACH_PX,
    Edge,
    EdgeKind,
    find_edges,
)
from cvsct.evaluation.image.mtf import STEPS_PER_PX, ModulationTransfer, edge_transform
from cvsct.evaluation.image.noise import stacks_of

MIN_EDGES = 10
RESAMPLES = 100
BINS = int(2 * REACH_PX * STEPS_PER_PX)
SHOWN = 4
"""Of this many frequencies one goes into the record."""


@dataclass(frozen=True)
class EdgeTransfer:
    """Transfer function of one side over one kind of edge.

    Args:
        mtf50_interval: 95 % bootstrap interval over pieces of edge, in cycles/mm; None where some
            resample has no crossing.
        clipped_share: of the pixels on the dark side, those stored at or below -1024 HU. Clipped
            undershoot and noise blunt an edge: above a few per cent do not trust the curve.
    """

    modulation: ModulationTransfer = field(repr=False)
    mtf50_interval: tuple[float, float] | None
    n_edges: int
    length_mm: float
    clipped_share: float

    def to_json(self) -> dict[str, Any]:
        """As plain values, with part of the curve."""
        return {
            "mtf50_per_mm": _number(self.modulation.mtf50_per_mm),
            "mtf50_interval": list(self.mtf50_interval) if self.mtf50_interval else None,
            "mtf10_per_mm": _number(self.modulation.mtf10_per_mm),
            "contrast_hu": self.modulation.contrast_hu,
            "n_edges": self.n_edges,
            "length_mm": self.length_mm,
            "clipped_share": self.clipped_share,
            "f_per_mm": self.modulation.f_per_mm[::SHOWN].tolist(),
            "mtf": self.modulation.mtf[::SHOWN].tolist(),
        }


def edge_transfer(
    sides: Mapping[str, Sequence[CTVolume]], seed: int = 0
) -> dict[EdgeKind, dict[str, EdgeTransfer]]:
    """Transfer function of each side by kind of edge, all sides on the same pieces of edge.

    About `noise.SLICES` slices are measured. Volumes of another pixel size than the first are left
    out, and so is a kind of edge with fewer than `MIN_EDGES` pieces.

    Args:
        sides: volumes by side; volume i of every side shows the same slices. Sides of different
            bodies are measured one at a time.

    Raises:
        EvaluationError: if sides differ in their number of volumes or in a volume's shape.
    """
    profiles: dict[EdgeKind, dict[str, list[_Profile]]] = {"skin": {}, "lung": {}}
    pixel_mm = 1.0
    for same in stacks_of(sides):
        pixel_mm = next(iter(same.values())).pixel_mm
        for edge in find_edges(list(same.values())):
            for side, volume in same.items():
                profiles[edge.kind].setdefault(side, []).append(_profile(edge, volume))
    return {
        kind: {side: _transfer(some, pixel_mm, seed) for side, some in by_side.items()}
        for kind, by_side in profiles.items()
        if all(len(some) >= MIN_EDGES for some in by_side.values()) and by_side
    }


def transfer_ratio(
    one: EdgeTransfer, target: EdgeTransfer, least: float = 0.1
) -> Float[np.ndarray, " frequencies"]:
    """How much sharper one side is than the target, by frequency; NaN where the target sees little.

    The blur that anatomy adds to both cancels. Both must come from one `edge_transfer`.
    """
    seen = target.modulation.mtf >= least
    known = np.where(seen, target.modulation.mtf, 1.0)
    return np.where(seen, one.modulation.mtf / known, np.nan)


@dataclass(frozen=True)
class _Profile:
    """One piece of edge: sums of distance and normalized HU of its pixels, by bin of distance."""

    counts: Float[np.ndarray, " bins"]
    distance: Float[np.ndarray, " bins"]
    height: Float[np.ndarray, " bins"]
    contrast_hu: float
    clipped_share: float


def _profile(edge: Edge, volume: CTVolume) -> _Profile:
    distance, hu = edge.profile(volume.hu)
    dark, bright = distance < -REACH_PX / 2, distance > REACH_PX / 2
    low, high = float(hu[dark].mean()), float(hu[bright].mean())
    height = (hu - low) / (high - low)
    moved = distance - _place(distance, height)
    index = np.floor((moved + REACH_PX) * STEPS_PER_PX).astype(int)
    kept = (index >= 0) & (index < BINS)
    index, moved, height = index[kept], moved[kept], height[kept]
    return _Profile(
        counts=np.bincount(index, minlength=BINS).astype(np.float64),
        distance=np.bincount(index, moved, BINS),
        height=np.bincount(index, height, BINS),
        contrast_hu=high - low,
        clipped_share=float(np.mean(hu[dark] <= AIR_FLOOR_HU)),
    )


def _place(distance: Float[np.ndarray, " n"], height: Float[np.ndarray, " n"]) -> float:
    """Where the edge lies: the step with the same area as the profile, whatever its shape."""
    half = REACH_PX / 2
    cells = np.floor((distance + half) * 2).astype(int)
    within = (cells >= 0) & (cells < round(4 * half))
    count = np.bincount(cells[within], minlength=round(4 * half))
    mean = np.bincount(cells[within], height[within], round(4 * half)) / np.maximum(count, 1)
    return half - float(mean.sum()) / 2


def _transfer(profiles: Sequence[_Profile], pixel_mm: float, seed: int) -> EdgeTransfer:
    counts, distance, height = (
        np.stack([getattr(one, name) for one in profiles])
        for name in ("counts", "distance", "height")
    )

    def modulation(weights: Float[np.ndarray, " edges"]) -> ModulationTransfer:
        total = weights @ counts
        filled = total > 0
        middles = (np.arange(BINS) + 0.5) / STEPS_PER_PX - REACH_PX
        esf = np.interp(
            middles,
            (weights @ distance)[filled] / total[filled],
            (weights @ height)[filled] / total[filled],
        )
        f, curve = edge_transform(esf, pixel_mm)
        return ModulationTransfer(f, curve, float(np.mean([one.contrast_hu for one in profiles])))

    n = len(profiles)
    rng = random_stream(seed, "edges")
    draws = [
        modulation(rng.multinomial(n, np.full(n, 1 / n)).astype(np.float64)).mtf50_per_mm
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return EdgeTransfer(
        modulation=modulation(np.ones(n)),
        mtf50_interval=(float(low), float(high)) if np.isfinite([low, high]).all() else None,
        n_edges=n,
        length_mm=n * LENGTH_PX * pixel_mm,
        clipped_share=float(np.mean([one.clipped_share for one in profiles])),
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
