"""Pairs of patches of the same position on both scanners, drawn by seed, for paired methods.

Slices pair as in an evaluation, by geometry (`cvsct.core.pairing`), unless their patients are known
to differ, and images must show one body (`cvsct.core.same_body`). Places are the source's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int

from cvsct.core.errors import GeometryError, TrainingError
from cvsct.core.pairing import VolumePair, pair_volumes, unpaired_reason
from cvsct.core.same_body import likeness
from cvsct.core.volume import HUWindow
from cvsct.training.data.sampler import (
    Patches,
    PatchPosition,
    PatchSampler,
    cut_turned,
    cut_upright,
    random_turns,
)
from cvsct.training.data.splits import split_slices
from cvsct.training.data.store import Store

REMEDY = (
    "give scans of the same bodies at the same positions on both scanners, or take an unpaired "
    "method such as cvsct or spectrum"
)


class PairSampler:
    """Sampler of pairs of patches from two stores, uniform over the positions in the source.

    Args:
        stores: source and target.
        window: maps HU to the [-1, 1] that patches hold.
        pairs: numbers of the slices that show one place, source and target; no slice of the source
            is in two of them.
    """

    def __init__(
        self, stores: tuple[Store, Store], window: HUWindow, pairs: Int[np.ndarray, "pairs 2"]
    ) -> None:
        self.stores, self.window, self.pairs = stores, window, pairs
        self._source = PatchSampler(stores[0], window, pairs[:, 0])
        self._partner = np.full(len(stores[0]), -1)
        self._partner[pairs[:, 0]] = pairs[:, 1]

    @classmethod
    def of(cls, source: Store, target: Store, window: HUWindow) -> PairSampler:
        """Pair the slices of two stores; those without a partner are left out.

        Raises:
            TrainingError: if none pair, if it cannot be told which do, if those that do show
                other patients or bodies, or too little soft tissue.
        """
        patients = (
            tuple(scan.patient for scan in source.facts),
            tuple(scan.patient for scan in target.facts),
        )
        try:
            volume_pairs = pair_volumes(source.entries, target.entries, patients=patients)
        except GeometryError as error:
            raise TrainingError(f"the scans do not pair: {error}; or else {REMEDY}") from error
        if not volume_pairs:
            reason = unpaired_reason(source.entries, target.entries, patients=patients)
            raise TrainingError(f"the scans are unpaired: {reason}; {REMEDY}")
        for pair in volume_pairs:
            _refuse_other_body(source, target, pair)
        pairs = [
            (source.first(pair.first) + i, target.first(pair.second) + j)
            for pair in volume_pairs
            for i, j in pair.slices
        ]
        sampler = cls((source, target), window, np.array(sorted(pairs)))
        if not len(sampler):
            raise TrainingError(
                f"no patch of {source.rule} in the {len(pairs)} slices of the source that have a "
                "partner in the target; give scans of the body, or smaller patches"
            )
        return sampler

    def __len__(self) -> int:
        """Number of positions that patches are drawn from."""
        return len(self._source)

    @property
    def n_pairs(self) -> int:
        """Number of pairs of slices."""
        return len(self.pairs)

    @property
    def unpaired(self) -> tuple[int, int]:
        """Numbers of slices without a partner, of the source and of the target."""
        source, target = (
            len(store) - len(np.unique(self.pairs[:, side]))
            for side, store in enumerate(self.stores)
        )
        return source, target

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user: slices without a partner, and what was assumed in pairing."""
        notes = [
            f"{lost} of {len(store)} slices of the {name} have no partner and are left out"
            for name, lost, store in zip(
                ("source", "target"), self.unpaired, self.stores, strict=True
            )
            if lost
        ]
        used = (
            store.entries[series].geometry.frame_of_reference
            for side, store in enumerate(self.stores)
            for series in np.unique(store.series[self.pairs[:, side]])
        )
        if not all(used):
            notes.append(
                "some series name no frame of reference: slices were paired by position alone, "
                "which holds only if both sides show the same body"
            )
        return tuple(notes)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Patches, Patches]:
        """Patches of the source and of the target in [-1, 1], both of a pair turned alike."""
        positions = self._source.draw_positions(count, rng)
        turns = random_turns(count, rng)
        source, target = self.stores
        return (
            cut_turned(source, self.window, positions, turns),
            cut_turned(target, self.window, self._partners(positions), turns),
        )

    def validation_patches(
        self, count: int, rng: np.random.Generator, size_px: int | None = None
    ) -> tuple[Patches, Patches]:
        """Pairs of patches that are not turned, the same for the same seed.

        Args:
            size_px: side of larger crops about the same centers, moved inwards at the edge.

        Raises:
            TrainingError: if a slice is smaller.
        """
        positions = self._source.draw_positions(count, rng)
        source, target = self.stores
        return (
            cut_upright(source, self.window, positions, size_px),
            cut_upright(target, self.window, self._partners(positions), size_px),
        )

    def slice_hu(
        self, which: int
    ) -> tuple[Float32[np.ndarray, "rows columns"], Float32[np.ndarray, "rows columns"]]:
        """Whole slices of the pair number `which`, of source and target, in HU."""
        source, target = (
            store.plane(int(number)).astype(np.float32)
            for store, number in zip(self.stores, self.pairs[which], strict=True)
        )
        return source, target

    def split(self, validation_fraction: float, rng: np.random.Generator) -> PairSamplerSplit:
        """Part the pairs into patients to learn from and patients held out, by the source's slices.

        Raises:
            TrainingError: if either part would be without patches.
        """
        parts = split_slices(self.stores[0], validation_fraction, rng, self.pairs[:, 0])
        training, validation = (
            PairSampler(self.stores, self.window, self.pairs[np.isin(self.pairs[:, 0], part)])
            for part in (parts.training, parts.validation)
        )
        return PairSamplerSplit(training, validation, parts.how)

    def _partners(self, positions: list[PatchPosition]) -> list[PatchPosition]:
        """Positions in the target that correspond to positions in the source."""
        return [(int(self._partner[index]), row, column) for index, row, column in positions]


@dataclass(frozen=True)
class PairSamplerSplit:
    """Samplers of the training and of the validation pairs, and how they were split."""

    training: PairSampler
    validation: PairSampler
    how: str


def _refuse_other_body(source: Store, target: Store, pair: VolumePair) -> None:
    """Refuse two series at the same position that show different bodies.

    Raises:
        TrainingError: naming the series.
    """
    where = target.entries[pair.second].geometry
    rows_mm, columns_mm = where.pixel_mm
    first, second = source.first(pair.first), target.first(pair.second)
    comparison = likeness(
        lambda i: source.plane(first + i),
        lambda j: target.plane(second + j),
        pair.slices,
        where.z_mm,
        float(np.sqrt(rows_mm * columns_mm)),
    )
    if comparison.difference:
        raise TrainingError(
            f"the scans do not pair: series {pair.first + 1} of the source and series "
            f"{pair.second + 1} of the target lie at one place but {comparison.difference}; "
            f"{REMEDY}"
        )
