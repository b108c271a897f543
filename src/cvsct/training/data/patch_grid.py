"""Grid of candidate patches in a slice, with one bit for each that is soft tissue.

A patch is kept when at most a fifth of it is air or bone (the paper's authors' earlier patch
maker), told on a blurred image so that noise has no say in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from cvsct.core.masks import covered_fraction, soft_tissue

GRID_PX = 4
"""Candidate patches start on a grid this fine: 11,881 places for 80 px in a 512x512 slice."""


_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)
"""How many bits of each byte are set."""


@dataclass(frozen=True)
class PatchRule:
    """Which patches are kept.

    Args:
        size_px: side of a patch.
        min_tissue: the share of a patch that must be soft tissue.
    """

    size_px: int
    min_tissue: float = 0.8

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """How many places there are down and across a slice of that size."""
        return (rows - self.size_px) // GRID_PX + 1, (columns - self.size_px) // GRID_PX + 1

    def __str__(self) -> str:
        return f"{self.size_px} px with {self.min_tissue:.0%} soft tissue"


def find_patch_starts(
    plane: Float[np.ndarray, "rows columns"], rule: PatchRule
) -> Bool[np.ndarray, "down across"]:
    """Mask of the grid points of a slice at which a patch may start.

    Raises:
        GeometryError: if the slice is smaller than a patch.
    """
    share = covered_fraction(soft_tissue(plane[None]), rule.size_px)[0, ::GRID_PX, ::GRID_PX]
    kept: Bool[np.ndarray, "down across"] = share >= rule.min_tissue
    return kept


def corner(bits: UInt8[np.ndarray, " bytes"], grid: tuple[int, int], rank: int) -> tuple[int, int]:
    """First row and column of one of a slice's places, by its rank in reading order.

    Args:
        bits: the slice's places as `np.packbits` packs them.
    """
    ends = np.cumsum(_ONES[bits])
    byte = int(np.searchsorted(ends, rank, side="right"))
    before = int(ends[byte - 1]) if byte else 0
    bit = int(np.flatnonzero(np.unpackbits(bits[byte : byte + 1]))[rank - before])
    row, column = divmod(8 * byte + bit, grid[1])
    return row * GRID_PX, column * GRID_PX
