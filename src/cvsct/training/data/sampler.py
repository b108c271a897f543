"""Soft-tissue patches of a domain, drawn by seed.

Flips and transposes augment: they leave texture as it is, which rotation by interpolation would
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, Int8, Num

from cvsct.core.errors import TrainingError
from cvsct.core.volume import HUWindow
from cvsct.training.data.splits import split_slices
from cvsct.training.data.store import Store

Patches = Float32[np.ndarray, "count 1 size size"]
Turns = Int8[np.ndarray, "count 3"]
PatchPosition = tuple[int, int, int]
"""Position of a patch: number of its slice, first row and first column."""


class PatchSampler:
    """Sampler of patches from a store, uniform over all possible positions.

    Args:
        store: slices of one domain.
        window: maps HU to the [-1, 1] that patches hold.
        slices: numbers of the slices to draw from; all where not given.
    """

    def __init__(
        self, store: Store, window: HUWindow, slices: Int[np.ndarray, " n"] | None = None
    ) -> None:
        self.store = store
        self.slices = np.arange(len(store)) if slices is None else slices
        self.window = window
        self._ends = np.cumsum(store.counts[self.slices])

    def __len__(self) -> int:
        """Number of positions that patches are drawn from."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def draw(self, count: int, rng: np.random.Generator) -> Patches:
        """Patches in [-1, 1], each flipped and transposed at random."""
        positions = self.draw_positions(count, rng)
        return cut_turned(self.store, self.window, positions, random_turns(count, rng))

    def validation_patches(
        self, count: int, rng: np.random.Generator, size_px: int | None = None
    ) -> Patches:
        """Patches that are not turned, the same for the same seed.

        Args:
            size_px: side of larger crops about the same centers, moved inwards at the edge.

        Raises:
            TrainingError: if a slice is smaller.
        """
        return cut_upright(self.store, self.window, self.draw_positions(count, rng), size_px)

    def slice_hu(self, which: int) -> Float32[np.ndarray, "rows columns"]:
        """Whole slice number `which` of `slices`, in HU."""
        return self.store.plane(int(self.slices[which])).astype(np.float32)

    def split(self, validation_fraction: float, rng: np.random.Generator) -> SamplerSplit:
        """Part the whole store into patients to learn from and patients held out.

        Raises:
            TrainingError: if either part would be without patches.
        """
        parts = split_slices(self.store, validation_fraction, rng)
        return SamplerSplit(
            PatchSampler(self.store, self.window, parts.training),
            PatchSampler(self.store, self.window, parts.validation),
            parts.how,
        )

    def draw_positions(self, count: int, rng: np.random.Generator) -> list[PatchPosition]:
        """Draw positions, all with the same probability."""
        ranks = rng.integers(len(self), size=count)
        which = np.searchsorted(self._ends, ranks, side="right")
        indices = self.slices[which]
        ranks -= self._ends[which] - self.store.counts[indices]
        return [
            (index, *self.store.corner(index, rank))
            for index, rank in zip(indices.tolist(), ranks.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class SamplerSplit:
    """Samplers of the training and of the validation patches, and how they were split."""

    training: PatchSampler
    validation: PatchSampler
    how: str


def random_turns(count: int, rng: np.random.Generator) -> Turns:
    """For each patch whether it is flipped down, flipped across, and transposed."""
    return rng.integers(2, size=(count, 3), dtype=np.int8)


def cut_turned(
    store: Store, window: HUWindow, positions: Sequence[PatchPosition], turns: Turns
) -> Patches:
    """Patches of a store at the given positions, each flipped and transposed as given."""
    size = store.rule.size_px
    patches = np.empty((len(positions), 1, size, size), dtype=np.float32)
    for patch, (index, row, column), turn in zip(patches, positions, turns, strict=True):
        cut = store.plane(index)[row : row + size, column : column + size]
        patch[0] = window.to_unit(_turned(cut, *turn.tolist()).astype(np.float32))
    return patches


def cut_upright(
    store: Store, window: HUWindow, positions: Sequence[PatchPosition], size_px: int | None = None
) -> Patches:
    """Patches as they lie in their slices, or crops of another size about the same centers.

    Raises:
        TrainingError: if a slice is smaller than a crop.
    """
    own = store.rule.size_px
    size = own if size_px is None else size_px
    patches = np.empty((len(positions), 1, size, size), dtype=np.float32)
    for patch, (index, *corner) in zip(patches, positions, strict=True):
        plane = store.plane(index)
        if min(plane.shape) < size:
            raise TrainingError(
                f"slices of {plane.shape[0]}x{plane.shape[1]} pixels hold no crop of {size} "
                "pixels; ask for smaller ones"
            )
        row, column = (
            min(max(0, first + own // 2 - size // 2), side - size)
            for first, side in zip(corner, plane.shape, strict=True)
        )
        cut = plane[row : row + size, column : column + size]
        patch[0] = window.to_unit(cut.astype(np.float32))
    return patches


def _turned(
    image: Num[np.ndarray, "n n"], down: int, across: int, transposed: int
) -> Num[np.ndarray, "n n"]:
    image = image[::-1] if down else image
    image = image[:, ::-1] if across else image
    return image.T if transposed else image
