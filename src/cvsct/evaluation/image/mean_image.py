"""Mean image of all sides, on which regions and edges are chosen that favor no side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from cvsct.core.masks import blurred, body_of
from cvsct.core.volume import CTVolume


@dataclass(frozen=True)
class MeanImage:
    """Blurred mean of volumes that show the same slices, with the body it shows.

    Args:
        smooth: the blurred mean.
        body: inside of the patient.
        padding: voxels that are padding in any of the volumes.
    """

    smooth: Float[np.ndarray, "slices rows columns"]
    body: Bool[np.ndarray, "slices rows columns"]
    padding: Bool[np.ndarray, "slices rows columns"]

    @classmethod
    def of(cls, volumes: Sequence[CTVolume]) -> MeanImage:
        """Average and blur volumes of one shape, one slice in memory at a time."""
        shape = volumes[0].hu.shape
        smooth = np.empty(shape, dtype=np.float64)
        inside, padding = (np.zeros(shape, dtype=bool) for _ in range(2))
        for index in range(len(smooth)):
            here = slice(index, index + 1)
            images = [volume.hu[here] for volume in volumes]
            smooth[here] = blurred(np.asarray(np.mean(images, axis=0, dtype=np.float64)))
            inside[here] = body_of(smooth[here])
        for volume in volumes:
            if volume.padding is not None:
                padding |= volume.padding
        return cls(smooth, inside, padding)
