"""Soft-tissue patches of a set of scans, drawn by seed.

A patch is kept when at most a fifth of it is air or bone (the paper's authors' earlier patch
maker), told on a blurred image so that noise has no say in it. Flips and transposes augment:
they leave texture as it is, which rotation by interpolation would not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from cvsct.errors import GeometryError, TrainingError
from cvsct.regions import covered_fraction, soft_tissue
from cvsct.volume import CTVolume, HUWindow

GRID_PX = 4
"""Candidate patches start on a grid this fine: 16,384 places in a 512x512 slice."""


class PatchSampler:
    """Draws patches from many volumes, each possible place with the same chance.

    Args:
        volumes: scans of one domain.
        size_px: side of a patch.
        window: maps HU to the [-1, 1] that patches hold.
        min_tissue: the share of a patch that must be soft tissue.
    """

    def __init__(
        self,
        volumes: Sequence[CTVolume],
        size_px: int,
        window: HUWindow,
        min_tissue: float = 0.8,
    ) -> None:
        self._volumes = volumes
        self._size_px = size_px
        self._window = window
        self._places = _places(volumes, size_px, min_tissue)

    def __len__(self) -> int:
        """How many places patches are drawn from."""
        return len(self._places)

    def draw(self, count: int, rng: np.random.Generator) -> Float[np.ndarray, "count 1 size size"]:
        """Patches in [-1, 1], float32, each flipped and transposed at random."""
        size = self._size_px
        batch = np.empty((count, 1, size, size), dtype=np.float32)
        chosen = self._places[rng.integers(len(self._places), size=count)]
        turns = rng.integers(2, size=(count, 3), dtype=np.int8)
        for patch, (volume, plane, row, column), turn in zip(batch, chosen, turns, strict=True):
            cut = self._volumes[volume].hu[plane, row : row + size, column : column + size]
            patch[0] = self._window.to_unit(_turned(cut, *turn.tolist()))
        return batch


def _turned(
    image: Float[np.ndarray, "n n"], down: int, across: int, transposed: int
) -> Float[np.ndarray, "n n"]:
    image = image[::-1] if down else image
    image = image[:, ::-1] if across else image
    return image.T if transposed else image


def _places(volumes: Sequence[CTVolume], size_px: int, min_tissue: float) -> Int[np.ndarray, "n 4"]:
    found = []
    for index, volume in enumerate(volumes):
        try:
            share = covered_fraction(soft_tissue(volume.hu), size_px)[:, ::GRID_PX, ::GRID_PX]
        except GeometryError as error:
            raise TrainingError(f"series {index + 1}: {error}; set smaller patches") from error
        starts = np.argwhere(share >= min_tissue) * (1, GRID_PX, GRID_PX)
        found.append(np.insert(starts, 0, index, axis=1))
    places: Int[np.ndarray, "n 4"] = np.concatenate(found) if found else np.empty((0, 4), np.int64)
    if len(places) == 0:
        raise TrainingError(
            f"no patch of {size_px} px with {min_tissue:.0%} soft tissue in {len(volumes)} series; "
            "give scans of the body, or smaller patches"
        )
    return places
