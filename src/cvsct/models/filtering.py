"""A zero-phase filter whose gain is known per millimetre, applied to slices."""

from __future__ import annotations

import numpy as np
import scipy.fft
from jaxtyping import Float, Float32

from cvsct.volume import AIR_FLOOR_HU, CTVolume

REFLECT_PX = 64


def filter_slices(
    volume: CTVolume,
    frequencies_per_mm: Float[np.ndarray, " n"],
    log_gain: Float[np.ndarray, " n"],
) -> Float32[np.ndarray, "slices rows columns"]:
    """Each slice through a zero-phase filter of that gain, floored at -1024 HU.

    The gain is read at cycles/mm of this volume's own pixels; beyond the last frequency it stays
    as it is there. Edges are reflected over 64 px, so that the table or an arm cut off by one
    side of the image does not appear at the other.
    """
    rows, columns = volume.hu.shape[1:]
    rows_mm, columns_mm = volume.geometry.pixel_mm
    shape = tuple(scipy.fft.next_fast_len(n + 2 * REFLECT_PX, real=True) for n in (rows, columns))
    radius = np.hypot(
        scipy.fft.fftfreq(shape[0], rows_mm)[:, None], scipy.fft.rfftfreq(shape[1], columns_mm)
    )
    gain = np.exp(np.interp(radius, frequencies_per_mm, log_gain)).astype(np.float32)
    margins = [
        (REFLECT_PX, full - n - REFLECT_PX) for full, n in zip(shape, (rows, columns), strict=True)
    ]
    inner = (slice(REFLECT_PX, REFLECT_PX + rows), slice(REFLECT_PX, REFLECT_PX + columns))
    result = np.empty(volume.hu.shape, dtype=np.float32)
    for index, plane in enumerate(volume.hu):
        wide = np.pad(plane.astype(np.float32, copy=False), margins, mode="reflect")
        spectrum = scipy.fft.rfft2(wide, workers=1)
        spectrum *= gain
        filtered = scipy.fft.irfft2(spectrum, s=shape, workers=1, overwrite_x=True)
        np.maximum(filtered[inner], np.float32(AIR_FLOOR_HU), out=result[index])
    return result
