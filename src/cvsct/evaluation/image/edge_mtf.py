"""Resolution from natural edges: modulation transfer over skin and the border of the lungs.

A power spectrum mixes noise and resolution; an edge shows resolution alone. Pixels along many
pieces of edge are sorted by their distance from the edge, whose position is measured to a fraction
of a pixel on each side's own image, and the mean profile is transformed (AAPM Report 233, section
4.3, with natural edges in place of its rods).

An edge of a body is not ideally sharp: it slants through a thick slice, and tissue near it varies.
The curve is the product of that blur and the scanner's, so absolute values are too low, and only
*differences between sides on the same edges* belong to the scanner or the method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cvsct.core.volume import AIR_FLOOR_HU, CTVolume
from cvsct.evaluation.image.edges import (
    LENGTH_PX,
    REACH_PX,
    EdgeKind,
    EdgePixels,
    find_edges,
)
from cvsct.evaluation.image.mean_image import MeanImage
from cvsct.evaluation.image.mtf import (
    STEPS_PER_PX,
    ModulationTransfer,
    edge_transform,
    first_below,
)
from cvsct.evaluation.image.noise import stacks_of
from cvsct.evaluation.resampled import Resampled, draw_weights

MIN_EDGES = 10
"""Smallest number of pieces of edge from which a kind of edge is measured."""

CLIPPED_SHARE = 0.01
"""Share of an edge's dark side at or below -1024 HU from which all sides are cut off there, as
scanners store air: a side that keeps its undershoot and noise looks sharper than one that lost
them, by 2 % at the skin where noise has 60 HU."""

BINS = int(2 * REACH_PX * STEPS_PER_PX)
"""Number of bins of a profile."""

RECORDED_EVERY = 4
"""Step between the frequencies that go into the record."""


@dataclass(frozen=True)
class EdgeTransfer:
    """Modulation transfer of one side over one kind of edge.

    Args:
        transfer: the curve, with the edges' mean contrast.
        mtf50: 50 % frequency in cycles/mm, resampled over pieces of edge, alike for sides that were
            measured on the same pieces; NaN where a curve does not fall to 0.5.
        n_edges: number of pieces of edge.
        length_mm: their length in all.
        clipped_share: share of the pixels on the dark side that are stored at or below -1024 HU.
            Clipping undershoot and noise blunts an edge, so that the absolute curve is not to be
            trusted above a few percent. Sides can be compared: all are cut off alike.
    """

    transfer: ModulationTransfer = field(repr=False)
    mtf50: Resampled
    n_edges: int
    length_mm: float
    clipped_share: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, with every fourth point of the curve."""
        return {
            "mtf50_per_mm": _finite_or_none(self.transfer.mtf50_per_mm),
            "mtf50_interval": self.mtf50.interval,
            "mtf10_per_mm": _finite_or_none(self.transfer.mtf10_per_mm),
            "contrast_hu": self.transfer.contrast_hu,
            "n_edges": self.n_edges,
            "length_mm": self.length_mm,
            "clipped_share": self.clipped_share,
            "f_per_mm": self.transfer.f_per_mm[::RECORDED_EVERY].tolist(),
            "mtf": self.transfer.mtf[::RECORDED_EVERY].tolist(),
        }


def edge_transfer(
    sides: Mapping[str, Sequence[CTVolume]],
    seed: int = 0,
    means: Sequence[MeanImage] | None = None,
) -> dict[EdgeKind, dict[str, EdgeTransfer]]:
    """Measure modulation transfer by kind of edge, each side on the same pieces of edge.

    About `noise.SLICES` slices are measured. Volumes of another pixel size than the first are left
    out, and so is a kind of edge with fewer than `MIN_EDGES` pieces.

    Args:
        sides: volumes by side; volume i of every side shows the same slices. Sides of different
            bodies are measured by a call for each.
        seed: seed of the bootstrap.
        means: mean image of each of `stacks_of(sides)`, where they are known; None computes them.

    Raises:
        EvaluationError: if sides differ in their number of volumes or in a volume's shape.
    """
    profiles: dict[EdgeKind, dict[str, list[_Profiles]]] = {"skin": {}, "lung": {}}
    pixel_mm = 1.0
    for number, stack in enumerate(stacks_of(sides)):
        first = next(iter(stack.values()))
        pixel_mm, shape = first.pixel_mm, (first.hu.shape[1], first.hu.shape[2])
        mean = means[number] if means is not None else MeanImage.of(list(stack.values()))
        edges = find_edges(mean)
        for kind, by_side in profiles.items():
            pixels = [edge.pixels(shape) for edge in edges if edge.kind == kind]
            for side, profile in _profiles_of_sides(pixels, stack).items() if pixels else ():
                by_side.setdefault(side, []).append(profile)
    return {
        kind: {side: _transfer(of_side, pixel_mm, seed) for side, of_side in by_side.items()}
        for kind, by_side in profiles.items()
        if by_side and all(sum(map(len, of_side)) >= MIN_EDGES for of_side in by_side.values())
    }


def transfer_ratio(
    side: EdgeTransfer, target: EdgeTransfer, least: float = 0.1
) -> Float[np.ndarray, " frequencies"]:
    """Ratio of a side's modulation transfer to the target's, by frequency.

    The blur that anatomy adds to both cancels.

    Args:
        side: transfer of the side, from the same call of `edge_transfer` as the target's.
        target: transfer of the target.
        least: transfer of the target below which the ratio is NaN.
    """
    is_known = target.transfer.mtf >= least
    divisor = np.where(is_known, target.transfer.mtf, 1.0)
    return np.where(is_known, side.transfer.mtf / divisor, np.nan)


@dataclass(frozen=True)
class _Profiles:
    """Sums over the pixels of each piece of edge, by bin of distance from it.

    Args:
        counts: number of pixels.
        distance: sum of their distances in pixels.
        height: sum of their HU, scaled to 0 on the dark side and 1 on the bright one.
        contrast_hu: bright side less dark side.
        clipped_share: share of the dark side's pixels at or below -1024 HU.
    """

    counts: Float[np.ndarray, "edges bins"]
    distance: Float[np.ndarray, "edges bins"]
    height: Float[np.ndarray, "edges bins"]
    contrast_hu: Float[np.ndarray, " edges"]
    clipped_share: Float[np.ndarray, " edges"]

    def __len__(self) -> int:
        return len(self.counts)


def _profiles_of_sides(
    edges: Sequence[EdgePixels], stack: Mapping[str, CTVolume]
) -> dict[str, _Profiles]:
    """Profiles of every side, all of them cut off at -1024 HU if one of them is."""
    profiles = {side: _profiles(edges, volume) for side, volume in stack.items()}
    if max(float(each.clipped_share.mean()) for each in profiles.values()) <= CLIPPED_SHARE:
        return profiles
    return {side: _profiles(edges, volume, AIR_FLOOR_HU) for side, volume in stack.items()}


def _profiles(
    edges: Sequence[EdgePixels], volume: CTVolume, floor_hu: float = -np.inf
) -> _Profiles:
    """Profiles across the edges of one side's image, around each edge's position in that image."""
    n = len(edges)
    edge = np.repeat(np.arange(n), [len(pixels.rows) for pixels in edges])
    distance = np.concatenate([pixels.distance_px for pixels in edges])
    hu = np.maximum(np.concatenate([pixels.hu_of(volume.hu) for pixels in edges]), floor_hu)
    dark, bright = distance < -REACH_PX / 2, distance > REACH_PX / 2
    low, high = (_means(edge[side], hu[side], n) for side in (dark, bright))
    contrast = high - low
    height = (hu - low[edge]) / contrast[edge]
    centred = distance - _edge_positions(edge, distance, height, n)[edge]
    index = np.floor((centred + REACH_PX) * STEPS_PER_PX).astype(int)
    kept = (index >= 0) & (index < BINS)
    cell = (edge * BINS + index)[kept]
    counts, distances, heights = (
        np.bincount(cell, values, n * BINS).reshape(n, BINS)
        for values in (np.ones(len(cell)), centred[kept], height[kept])
    )
    clipped = (hu[dark] <= AIR_FLOOR_HU).astype(np.float64)
    return _Profiles(counts, distances, heights, contrast, _means(edge[dark], clipped, n))


def _means(
    group: Int[np.ndarray, " values"], values: Float[np.ndarray, " values"], n: int
) -> Float[np.ndarray, " n"]:
    """Mean of each of `n` groups of values; 0 for a group without any."""
    counts = np.maximum(np.bincount(group, minlength=n), 1)
    return np.asarray(np.bincount(group, values, n) / counts)


def _edge_positions(
    edge: Int[np.ndarray, " pixels"],
    distance: Float[np.ndarray, " pixels"],
    height: Float[np.ndarray, " pixels"],
    n: int,
) -> Float[np.ndarray, " n"]:
    """Position of the ideal step that has the same area as the profile, in pixels, by edge."""
    half = REACH_PX / 2
    cells = round(4 * half)
    cell = np.floor((distance + half) * 2).astype(int)
    within = (cell >= 0) & (cell < cells)
    mean = _means((edge * cells + cell)[within], height[within], n * cells)
    return np.asarray(half - mean.reshape(n, cells).sum(axis=1) / 2)


def _transfer(profiles: Sequence[_Profiles], pixel_mm: float, seed: int) -> EdgeTransfer:
    """Modulation transfer of the mean of the profiles, with its bootstrap interval."""
    counts, distance, height, contrasts, clipped_shares = (
        np.concatenate([getattr(part, name) for part in profiles])
        for name in ("counts", "distance", "height", "contrast_hu", "clipped_share")
    )
    contrast_hu = float(contrasts.mean())
    n = len(counts)
    weights = np.concatenate([np.ones((1, n)), draw_weights(n, seed, "edges")])
    middles = (np.arange(BINS) + 0.5) / STEPS_PER_PX - REACH_PX
    spread_functions = []
    for weight in weights:
        total = weight @ counts
        filled = total > 0
        spread_functions.append(
            np.interp(
                middles,
                (weight @ distance)[filled] / total[filled],
                (weight @ height)[filled] / total[filled],
            )
        )
    f, curves = edge_transform(np.stack(spread_functions), pixel_mm)
    resampled = np.array([first_below(f, curve, 0.5) for curve in curves[1:]])
    transfer = ModulationTransfer(f, curves[0], contrast_hu)
    return EdgeTransfer(
        transfer=transfer,
        mtf50=Resampled(transfer.mtf50_per_mm, resampled),
        n_edges=n,
        length_mm=n * LENGTH_PX * pixel_mm,
        clipped_share=float(clipped_shares.mean()),
    )


def _finite_or_none(value: float) -> float | None:
    """A finite number, or None, which JSON can hold."""
    return float(value) if np.isfinite(value) else None
