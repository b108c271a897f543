"""Shift of CT numbers of air and dark lung, whose noise is clipped at -1024 HU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cvsct.core.masks import CLIPPED_NOISE
from cvsct.core.volume import AIR_FLOOR_HU
from cvsct.guard.blobs import remove_kernel_change
from cvsct.guard.pyramid import Level, gaussian

STEP_HU = 20.0
MIN_PX = 100
"""Width of a class of CT numbers, and fewest pixels from which the shift of a class is measured."""


def remove_clipping_shift(level: Level) -> Level:
    """Remove the shift that clipped noise causes in lung and air from the image after a mapping.

    A sharper kernel has more noise, of which more is cut off at -1024 HU: the darker a place, the
    more its mean rises, and that is the same wherever the image is as dark. It is read as the
    median of a class of CT number, which a nodule does not move, once what a filter does to edges
    is taken off.
    """
    smooth_b, smooth_a = (gaussian(image, 1.0) for image in (level.before, level.after))
    middle = 0.5 * (smooth_b + smooth_a)
    dark = middle < CLIPPED_NOISE.high_hu
    change = remove_kernel_change(smooth_a - smooth_b, middle, level.inside & ~dark)[
        level.inside & dark
    ]
    edges = np.arange(AIR_FLOOR_HU, CLIPPED_NOISE.high_hu + 1, STEP_HU, dtype=np.float32)
    class_index = np.digitize(middle[level.inside & dark], edges)
    shifts = [0.0]
    for k in range(1, len(edges) + 1):
        members = change[class_index == k]
        shifts.append(float(np.median(members)) if len(members) >= MIN_PX else 0.0)
    centers = np.append(edges[:1], edges + STEP_HU / 2)
    shift = np.interp(middle, centers, shifts, left=0.0, right=0.0).astype(np.float32)
    return replace(level, after=level.after - shift)
