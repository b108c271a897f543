"""Whether a method behaves along z and where it has nothing to do: flicker and idempotence.

A method that works slice by slice may shift neighboring slices by different amounts, which shows
as flicker when one scrolls. And what already looks like the target should come back unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import blurred
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.residuals import Residuals, residuals
from cvsct.evaluation.image.texture import texture_or_reason
from cvsct.evaluation.image.tissues import (
    Tissue,
    TissueBias,
    TissueMap,
    bias_by_tissue,
    local_means,
)

NEIGHBORS = 1.5
"""Slices further apart than this many of the smallest gap are no neighbors."""

CLEAR_PX = 5
"""How far from other tissue noise is taken: nearer, an edge's sharpness would be."""

SPECTRUM_PX = 64


@dataclass(frozen=True)
class SliceConsistency:
    """How one side's neighboring slices differ, over soft tissue that both slices show.

    Args:
        step_hu: mean absolute difference after a Gaussian blur of 8 px within the tissue; anatomy
            changes from slice to slice, so only its ratio to the target's says something.
        step_over_target: that ratio; above 1, slices jump more than they should. None for the
            target itself, or without one.
        flicker_hu: the same figure of what the method *added* (side less source), which anatomy
            leaves out; None without a source, or for it.
        noise_correlation: of neighboring slices' noise (image less its blur of 2 px); None where
            the tissue is too narrow.
        n_gaps: pairs of neighboring slices.
    """

    step_hu: float
    step_over_target: float | None
    flicker_hu: float | None
    noise_correlation: float | None
    n_gaps: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def slice_consistency(
    sides: Mapping[str, Sequence[CTVolume]], maps: Sequence[TissueMap]
) -> dict[str, SliceConsistency]:
    """Differences of neighboring slices, by side, over the same soft tissue.

    Args:
        sides: volumes by side (`source`, `harmonized`, `target`); volume i of every side shows the
            same slices.
        maps: whose soft tissue counts: those of the target, without one of the first side.

    Returns:
        Nothing where no two neighboring slices share soft tissue.

    Raises:
        EvaluationError: if volumes that should show the same slices differ in shape.
    """
    reference = "target" if "target" in sides else next(iter(sides))
    walks = {side: _Walk() for side in sides}
    added = _Walk()
    for number, shown in enumerate(sides[reference]):
        same = {side: volumes[number] for side, volumes in sides.items()}
        for side, volume in same.items():
            if volume.hu.shape != shown.hu.shape:
                raise EvaluationError(
                    f"{side} volume {number + 1} has {volume.hu.shape} voxels, the {reference} "
                    f"{shown.hu.shape}; cut both to the slices they share"
                )
        soft = [maps[number].masks(index)["soft"] for index in range(len(shown.hu))]
        gaps = [_Gap.of(a, b, soft[a] & soft[b]) for a, b in _neighbors(shown)]
        for side, volume in same.items():
            walks[side].go(volume.hu, gaps)
        if "source" in same and "harmonized" in same:
            added.go(same["harmonized"].hu - same["source"].hu, gaps)
    if not walks[reference].places:
        return {}
    step = {side: walk.step_hu for side, walk in walks.items()}
    return {
        side: SliceConsistency(
            step_hu=step[side],
            step_over_target=_ratio(step[side], step.get("target")) if side != "target" else None,
            flicker_hu=added.step_hu if side == "harmonized" and added.places else None,
            noise_correlation=walk.correlation,
            n_gaps=walk.gaps,
        )
        for side, walk in walks.items()
    }


@dataclass(frozen=True)
class _Gap:
    """Two neighboring slices, the tissue they share, and what of it is clear of other tissue."""

    first: int
    second: int
    shared: Bool[np.ndarray, "rows columns"]
    inside: Bool[np.ndarray, "rows columns"]

    @classmethod
    def of(cls, first: int, second: int, shared: Bool[np.ndarray, "rows columns"]) -> _Gap:
        return cls(first, second, shared, ndimage.binary_erosion(shared, iterations=CLEAR_PX))


@dataclass
class _Walk:
    """Sums over pairs of neighboring slices."""

    steps: float = 0.0
    places: int = 0
    gaps: int = 0
    product: float = 0.0
    squares_a: float = 0.0
    squares_b: float = 0.0

    def go(self, hu: Float[np.ndarray, "slices rows columns"], gaps: Sequence[_Gap]) -> None:
        for gap in gaps:
            steps = local_means(hu[gap.second] - hu[gap.first], gap.shared)
            if not len(steps):
                continue
            self.steps += float(np.abs(steps).sum())
            self.places += len(steps)
            self.gaps += 1
            if not gap.inside.any():
                continue
            one, other = (_grain(hu[index], gap.inside) for index in (gap.first, gap.second))
            self.product += float(one @ other)
            self.squares_a += float(one @ one)
            self.squares_b += float(other @ other)

    @property
    def step_hu(self) -> float:
        return self.steps / self.places

    @property
    def correlation(self) -> float | None:
        scale = float(np.sqrt(self.squares_a * self.squares_b))
        return self.product / scale if scale else None


def _grain(
    plane: Float[np.ndarray, "rows columns"], inside: Bool[np.ndarray, "rows columns"]
) -> Float[np.ndarray, " n"]:
    """A slice's noise at some pixels, with mean 0."""
    noise = (plane - blurred(plane[None].astype(np.float64))[0])[inside]
    return np.asarray(noise - noise.mean())


def _neighbors(volume: CTVolume) -> list[tuple[int, int]]:
    gaps = np.abs(np.diff(volume.geometry.z_mm))
    if not len(gaps):
        return []
    near = np.flatnonzero(gaps <= NEIGHBORS * gaps.min())
    return [(int(index), int(index) + 1) for index in near]


def _ratio(step_hu: float, target_hu: float | None) -> float | None:
    return step_hu / target_hu if target_hu else None


@dataclass(frozen=True)
class Idempotence:
    """What a method does to the target scanner's own images, which need nothing done.

    Args:
        change: the images put through it, less what they were.
        bias: low-frequency bias it gives each tissue.
        spectrum_db: rms change of the texture power spectrum over the band that textures are
            compared in; None where there is too little soft tissue.
        gain_db: signed mean of that change; above 0, it sharpens or adds noise.
    """

    change: Residuals
    bias: Mapping[Tissue, TissueBias]
    spectrum_db: float | None
    gain_db: float | None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "change": self.change.to_json(),
            "bias": {tissue: one.to_json() for tissue, one in self.bias.items()},
            "spectrum_db": self.spectrum_db,
            "gain_db": self.gain_db,
        }


def idempotence(
    targets: Sequence[CTVolume],
    mapped: Sequence[CTVolume],
    maps: Sequence[TissueMap],
    size_px: int = SPECTRUM_PX,
) -> Idempotence:
    """Compare target images with the same images put through a method.

    Args:
        maps: of the targets.

    Raises:
        EvaluationError: if they differ in number or shape.
    """
    if [one.hu.shape for one in targets] != [one.hu.shape for one in mapped]:
        raise EvaluationError(
            f"{len(mapped)} mapped volumes do not fit {len(targets)} target volumes; "
            "give each target volume and what became of it, in one order"
        )
    pairs = list(zip(mapped, targets, strict=True))
    texture, _ = texture_or_reason({"harmonized": mapped, "target": targets}, size_px)
    gain_db = None
    if texture is not None:
        low, high = texture.band_per_mm
        f = texture.frequencies_per_mm
        change = texture.power_db["harmonized"] - texture.power_db["target"]
        gain_db = float(change[(f >= low) & (f <= high)].mean())
    return Idempotence(
        change=residuals(pairs, maps),
        bias=bias_by_tissue(pairs, maps),
        spectrum_db=texture.distance_db["harmonized"] if texture else None,
        gain_db=gain_db,
    )


def idempotence_of(
    mapping: Callable[[CTVolume], Float[np.ndarray, "_ _ _"]],
    targets: Sequence[CTVolume],
    size_px: int = SPECTRUM_PX,
) -> Idempotence:
    """The same for a mapping from a volume to its new HU."""
    mapped = [one.with_hu(mapping(one)) for one in targets]
    return idempotence(targets, mapped, [TissueMap.of(one) for one in targets], size_px)
