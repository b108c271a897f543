"""Consistency of a method: flicker between neighboring slices, and change of the target's images.

A method that works slice by slice may shift neighboring slices by different amounts, which shows
as flicker when one scrolls. Images that already look like the target should come back unchanged.
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
    LocalMeans,
    Tissue,
    TissueBias,
    TissueMap,
    bias_by_tissue,
)

MAX_GAP_RATIO = 1.5
"""Largest distance of two neighboring slices, as a multiple of the smallest in the volume."""

CLEAR_PX = 5
"""Distance from other tissue at which noise is measured: nearer, edges would add to it."""

SPECTRUM_PX = 64
"""Side of the patches of the texture spectrum."""


@dataclass(frozen=True)
class SliceConsistency:
    """Differences of one side's neighboring slices, over soft tissue that both slices show.

    Args:
        step_hu: mean absolute difference after a Gaussian blur of 8 px within the tissue. Anatomy
            changes from slice to slice, so only its ratio to the target's step has a meaning.
        step_over_target: that ratio; above 1, slices differ more than they should. None for the
            target itself, or without a target.
        flicker_hu: the same difference in the image that the method *added* (harmonized less
            source), which holds no anatomy; None for other sides, or without a source.
        noise_correlation: correlation of neighboring slices' noise (image less its blur of 2 px);
            None where the tissue is too narrow.
        n_gaps: number of pairs of neighboring slices.
    """

    step_hu: float
    step_over_target: float | None
    flicker_hu: float | None
    noise_correlation: float | None
    n_gaps: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def slice_consistency(
    sides: Mapping[str, Sequence[CTVolume]], maps: Sequence[TissueMap]
) -> dict[str, SliceConsistency]:
    """Measure the differences of neighboring slices of each side over the same soft tissue.

    Args:
        sides: volumes by side (`source`, `harmonized`, `target`); volume i of every side shows the
            same slices.
        maps: tissue maps of the target's volumes, or of the first side's where there is no target.

    Returns:
        Consistency by side; empty where no two neighboring slices share soft tissue.

    Raises:
        EvaluationError: if volumes that should show the same slices differ in shape.
    """
    reference = "target" if "target" in sides else next(iter(sides))
    sums = {side: _NeighborSums() for side in sides}
    added_sums = _NeighborSums()
    for number, reference_volume in enumerate(sides[reference]):
        stack = {side: volumes[number] for side, volumes in sides.items()}
        for side, volume in stack.items():
            if volume.hu.shape != reference_volume.hu.shape:
                raise EvaluationError(
                    f"{side} volume {number + 1} has {volume.hu.shape} voxels, the {reference} "
                    f"{reference_volume.hu.shape}; cut both to the slices they share"
                )
        soft = [maps[number].masks(index)["soft"] for index in range(len(reference_volume.hu))]
        pairs = [_SlicePair.of(a, b, soft[a] & soft[b]) for a, b in _neighbors(reference_volume)]
        for side, volume in stack.items():
            sums[side].add(volume.hu, pairs, with_noise=True)
        if "source" in stack and "harmonized" in stack:
            added_sums.add(stack["harmonized"].hu - stack["source"].hu, pairs)
    if not sums[reference].places:
        return {}
    step = {side: sums_of_side.step_hu for side, sums_of_side in sums.items()}
    return {
        side: SliceConsistency(
            step_hu=step[side],
            step_over_target=_ratio(step[side], step.get("target")) if side != "target" else None,
            flicker_hu=added_sums.step_hu if side == "harmonized" and added_sums.places else None,
            noise_correlation=sums_of_side.correlation,
            n_gaps=sums_of_side.pairs,
        )
        for side, sums_of_side in sums.items()
    }


@dataclass(frozen=True)
class _SlicePair:
    """Two neighboring slices, the tissue they share, and its part clear of other tissue."""

    first: int
    second: int
    shared: LocalMeans
    inside: Bool[np.ndarray, "rows columns"]

    @classmethod
    def of(cls, first: int, second: int, shared: Bool[np.ndarray, "rows columns"]) -> _SlicePair:
        inside = ndimage.binary_erosion(shared, iterations=CLEAR_PX)
        return cls(first, second, LocalMeans.of(shared), inside)


@dataclass
class _NeighborSums:
    """Sums over pairs of neighboring slices.

    Args:
        steps: sum of absolute local differences in HU.
        places: number of local differences.
        pairs: number of pairs.
        product: sum of the products of both slices' noise.
        squares_a: sum of squares of the first slices' noise.
        squares_b: sum of squares of the second slices' noise.
    """

    steps: float = 0.0
    places: int = 0
    pairs: int = 0
    product: float = 0.0
    squares_a: float = 0.0
    squares_b: float = 0.0

    def add(
        self,
        hu: Float[np.ndarray, "slices rows columns"],
        pairs: Sequence[_SlicePair],
        with_noise: bool = False,
    ) -> None:
        """Add the pairs of neighboring slices of a volume, in order."""
        noise: dict[int, Float[np.ndarray, "rows columns"]] = {}
        for pair in pairs:
            difference = (hu[pair.second] - hu[pair.first]).astype(np.float64)
            steps = pair.shared.of_values(difference)
            if not len(steps):
                continue
            self.steps += float(np.abs(steps).sum())
            self.places += len(steps)
            self.pairs += 1
            if not with_noise or not pair.inside.any():
                continue
            noise = {  # a slice's noise serves the pairs on both sides of it
                index: noise[index] if index in noise else hu[index] - blurred(hu[index][None])[0]
                for index in (pair.first, pair.second)
            }
            noise_a, noise_b = (_centred(plane[pair.inside]) for plane in noise.values())
            self.product += float(noise_a @ noise_b)
            self.squares_a += float(noise_a @ noise_a)
            self.squares_b += float(noise_b @ noise_b)

    @property
    def step_hu(self) -> float:
        """Mean absolute local difference."""
        return self.steps / self.places

    @property
    def correlation(self) -> float | None:
        """Correlation of the slices' noise; None where no noise was measured."""
        scale = float(np.sqrt(self.squares_a * self.squares_b))
        return self.product / scale if scale else None


def _centred(noise: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Noise with mean 0."""
    values = noise.astype(np.float64)
    return np.asarray(values - values.mean())


def _neighbors(volume: CTVolume) -> list[tuple[int, int]]:
    """Numbers of slices that follow each other without a larger gap."""
    gaps = np.abs(np.diff(volume.geometry.z_mm))
    if not len(gaps):
        return []
    near = np.flatnonzero(gaps <= MAX_GAP_RATIO * gaps.min())
    return [(int(index), int(index) + 1) for index in near]


def _ratio(step_hu: float, target_hu: float | None) -> float | None:
    return step_hu / target_hu if target_hu else None


@dataclass(frozen=True)
class Idempotence:
    """Change that a method makes to the target scanner's own images, which need none.

    Args:
        change: size of the difference between the mapped images and the images themselves.
        bias: low-frequency bias of each tissue.
        spectrum_db: rms change of the texture power spectrum over the band in which textures are
            compared; None where there is too little soft tissue.
        gain_db: signed mean of that change; above 0, the method sharpens or adds noise.
    """

    change: Residuals
    bias: Mapping[Tissue, TissueBias]
    spectrum_db: float | None
    gain_db: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "change": self.change.to_json(),
            "bias": {tissue: bias.to_json() for tissue, bias in self.bias.items()},
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
        targets: volumes of the target scanner.
        mapped: the same volumes put through the method, in the same order.
        maps: tissue maps of the targets.
        size_px: side of the patches of the texture spectrum.

    Raises:
        EvaluationError: if they differ in number or shape.
    """
    if [volume.hu.shape for volume in targets] != [volume.hu.shape for volume in mapped]:
        raise EvaluationError(
            f"{len(mapped)} mapped volumes do not fit {len(targets)} target volumes in number or "
            "shape; give each target volume and its mapped volume in one order"
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
    """Change that a mapping makes to target images.

    Args:
        mapping: function from a volume to its new HU.
        targets: volumes of the target scanner.
        size_px: side of the patches of the texture spectrum.
    """
    mapped = [volume.with_hu(mapping(volume)) for volume in targets]
    return idempotence(targets, mapped, [TissueMap.of(volume) for volume in targets], size_px)
