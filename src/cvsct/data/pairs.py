"""Pairs of patches, of one place on both scanners, drawn by seed: what paired methods learn from.

Slices pair as in an evaluation, by geometry (`cvsct.pairing`), unless their patients are known to
differ, and images must show one body (`cvsct.same_body`). Places are the source's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int

from cvsct.data.patches import (
    Patches,
    PatchSampler,
    Place,
    cut_turned,
    cut_upright,
    random_turns,
)
from cvsct.data.splits import split_slices
from cvsct.data.store import Store
from cvsct.errors import GeometryError, TrainingError
from cvsct.pairing import VolumePair, pair_volumes, unpaired_reason
from cvsct.same_body import likeness
from cvsct.volume import HUWindow

REMEDY = (
    "give scans of the same bodies at the same positions on both scanners, or take an unpaired "
    "method such as cvsct or spectrum"
)


class PairSampler:
    """Draws the same patches from two stores, each of the source's places with the same chance.

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
        who = tuple(each.patient for each in source.facts), tuple(p.patient for p in target.facts)
        try:
            found = pair_volumes(source.entries, target.entries, patients=who)
        except GeometryError as error:
            raise TrainingError(f"the scans do not pair: {error}; or else {REMEDY}") from error
        if not found:
            reason = unpaired_reason(source.entries, target.entries, patients=who)
            raise TrainingError(f"the scans are unpaired: {reason}; {REMEDY}")
        for pair in found:
            _refuse_other_body(source, target, pair)
        pairs = [
            (source.first(each.first) + i, target.first(each.second) + j)
            for each in found
            for i, j in each.slices
        ]
        sampler = cls((source, target), window, np.array(sorted(pairs)))
        if not len(sampler):
            raise TrainingError(
                f"no patch of {source.rule} in the {len(pairs)} slices of the source that have a "
                "partner in the target; give scans of the body, or smaller patches"
            )
        return sampler

    def __len__(self) -> int:
        """How many places patches are drawn from."""
        return len(self._source)

    @property
    def n_pairs(self) -> int:
        """How many pairs of slices there are."""
        return len(self.pairs)

    @property
    def unpaired(self) -> tuple[int, int]:
        """How many slices of the source and of the target have no partner."""
        source, target = (
            len(store) - len(np.unique(self.pairs[:, side]))
            for side, store in enumerate(self.stores)
        )
        return source, target

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of the pairs: who has no partner, and what was only assumed."""
        found = [
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
            found.append(
                "some series name no frame of reference: slices were paired by position alone, "
                "which holds only if both sides show the same body"
            )
        return tuple(found)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Patches, Patches]:
        """Patches of the source and of the target in [-1, 1], both of a pair turned alike."""
        places = self._source.places(count, rng)
        turns = random_turns(count, rng)
        source, target = self.stores
        return (
            cut_turned(source, self.window, places, turns),
            cut_turned(target, self.window, self._partners(places), turns),
        )

    def validation_patches(
        self, count: int, rng: np.random.Generator, size_px: int | None = None
    ) -> tuple[Patches, Patches]:
        """Pairs of patches that are not turned, the same for the same seed.

        Args:
            size_px: side of larger crops about the same centres, moved inwards at the edge.

        Raises:
            TrainingError: if a slice is smaller.
        """
        places = self._source.places(count, rng)
        source, target = self.stores
        return (
            cut_upright(source, self.window, places, size_px),
            cut_upright(target, self.window, self._partners(places), size_px),
        )

    def slice_hu(
        self, which: int
    ) -> tuple[Float32[np.ndarray, "rows columns"], Float32[np.ndarray, "rows columns"]]:
        """Both slices of one of `pairs` as a whole, in HU."""
        source, target = (
            store.plane(int(number)).astype(np.float32)
            for store, number in zip(self.stores, self.pairs[which], strict=True)
        )
        return source, target

    def split(self, validation_fraction: float, rng: np.random.Generator) -> PairParts:
        """Part the pairs into patients to learn from and patients held out, by the source's slices.

        Raises:
            TrainingError: if either part would be without patches.
        """
        parts = split_slices(self.stores[0], validation_fraction, rng, self.pairs[:, 0])
        training, validation = (
            PairSampler(self.stores, self.window, self.pairs[np.isin(self.pairs[:, 0], part)])
            for part in (parts.training, parts.validation)
        )
        return PairParts(training, validation, parts.how)

    def _partners(self, places: list[Place]) -> list[Place]:
        """The same places in the target."""
        return [(int(self._partner[index]), row, column) for index, row, column in places]


@dataclass(frozen=True)
class PairParts:
    """Samplers of what is learned from and of what is held out, and how they were parted."""

    training: PairSampler
    validation: PairSampler
    how: str


def _refuse_other_body(source: Store, target: Store, pair: VolumePair) -> None:
    """Refuse two series that lie at one place and show different things there.

    Raises:
        TrainingError: naming the series.
    """
    where = target.entries[pair.second].geometry
    rows_mm, columns_mm = where.pixel_mm
    first, second = source.first(pair.first), target.first(pair.second)
    found = likeness(
        lambda i: source.plane(first + i),
        lambda j: target.plane(second + j),
        pair.slices,
        where.z_mm,
        float(np.sqrt(rows_mm * columns_mm)),
    )
    if found.difference:
        raise TrainingError(
            f"the scans do not pair: series {pair.first + 1} of the source and series "
            f"{pair.second + 1} of the target lie at one place but {found.difference}; {REMEDY}"
        )
