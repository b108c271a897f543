"""Displacement of edges that both images show, by least squares on gradients.

After Lucas and Kanade (1981), IJCAI 674-679.

A blur changes an edge alike on both sides (odd about it), a displacement changes it by its
gradient (even about it), so the two do not mix; the second derivative is fitted beside the
displacement all the same, for curved edges.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from cvsct.guard.pyramid import Level, gaussian

DERIVATIVE = np.array([1, -8, 0, 8, -1], dtype=np.float32) / 12
"""Derivative filter of fourth order: a central difference reads an edge of two pixels 8 % too
flat."""

BLOCK_PX = 8
"""Side of the blocks over which products are summed; a window is three blocks a side."""

WEAK_STEP_HU, EDGE_PX = 100.0, 3.0
"""Step and width of an edge across a window that counts half; weaker edges count less."""

HIGH_PASS_PX = 3.0
"""Sigma of the high-pass filter: wider differences are shifts of CT numbers, not edges."""


def measure_displacements(level: Level) -> tuple[float, float]:
    """Displacement in mm between two images: of the whole slice, and the largest of any window."""
    terms = _products(level)
    whole = _distances(terms.sum(axis=(2, 3))[..., None])
    local = _distances(_windows(terms))
    return float(whole[0]) * level.pixel_mm, float(local.max(initial=0.0)) * level.pixel_mm


def _products(level: Level) -> Float[np.ndarray, "4 4 down across"]:
    """Sums over blocks of the products of gradients, second derivative and change."""
    fine_b, fine_a = (
        gaussian(image, 1.0) - gaussian(image, HIGH_PASS_PX)
        for image in (level.before, level.after)
    )
    middle, change = 0.5 * (fine_a + fine_b), fine_a - fine_b
    down, across = (
        ndimage.correlate1d(middle, DERIVATIVE, axis=axis, mode="mirror") for axis in (0, 1)
    )
    second = ndimage.laplace(middle, mode="mirror")
    rows, columns = (n // BLOCK_PX * BLOCK_PX for n in change.shape)
    inside = level.inside[:rows, :columns]
    parts = [part[:rows, :columns] * inside for part in (down, across, second, change)]
    sums = np.zeros((4, 4, rows // BLOCK_PX, columns // BLOCK_PX))
    for i in range(4):
        for k in range(i, 4):
            product = (parts[i] * parts[k]).reshape(
                rows // BLOCK_PX, BLOCK_PX, columns // BLOCK_PX, BLOCK_PX
            )
            sums[i, k] = sums[k, i] = product.sum(axis=(1, 3))
    return sums


def _windows(sums: Float[np.ndarray, "4 4 down across"]) -> Float[np.ndarray, "4 4 windows"]:
    """Sums over three by three blocks."""
    tall = sums[:, :, :-2] + sums[:, :, 1:-1] + sums[:, :, 2:]
    wide = tall[..., :-2] + tall[..., 1:-1] + tall[..., 2:]
    windows: Float[np.ndarray, "4 4 windows"] = wide.reshape(4, 4, -1)
    return windows


def _distances(sums: Float[np.ndarray, "4 4 windows"]) -> Float[np.ndarray, " windows"]:
    """Lengths of the displacements in pixels; towards 0 where edges are too weak."""
    systems = np.moveaxis(sums, -1, 0)
    ridge = 3 * BLOCK_PX * EDGE_PX * (WEAK_STEP_HU / EDGE_PX) ** 2 * np.eye(3)
    solutions = np.linalg.solve(systems[:, :3, :3] + ridge, -systems[:, :3, 3:])[..., 0]
    lengths: Float[np.ndarray, " windows"] = np.hypot(solutions[:, 0], solutions[:, 1])
    return lengths
