"""Application of a mapping to a volume, or to some slices of one."""

from __future__ import annotations

import numpy as np

from cvsct.core.errors import ModelError
from cvsct.core.volume import CTVolume
from cvsct.methods.volume_mapping import VolumeMapping


def harmonize_volume(volume: CTVolume, mapping: VolumeMapping) -> CTVolume:
    """Map a volume and keep its padding.

    Args:
        volume: HU of shape (slices, rows, columns).
        mapping: maps the volume to HU of the same shape.

    Returns:
        The mapped volume, float32 HU, with the geometry and padding of the source.

    Raises:
        ModelError: if the mapping gives values that are not finite.
    """
    hu = mapping(volume)
    if not np.isfinite(hu).all():
        raise ModelError(
            "the model gave values that are not finite; the model is damaged or does not fit "
            "these images, nothing was written"
        )
    if volume.padding is not None:
        hu = np.where(volume.padding, volume.hu, hu)
    return volume.with_hu(hu.astype(np.float32, copy=False))
