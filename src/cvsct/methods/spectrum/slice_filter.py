"""Zero-phase filters of slices, with gains by frequency in cycles/mm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.fft
from jaxtyping import Float, Float32

from cvsct.core.fourier import fast_shape, frequency_radius
from cvsct.core.volume import AIR_FLOOR_HU, CTVolume

REFLECT_PX = 64

Gain = Callable[[Float[np.ndarray, "rows columns"]], Float[np.ndarray, "rows columns"]]
"""Function that gives the amplitude gain at frequencies in cycles/mm."""


def filtered_slices(
    volume: CTVolume, gains: Sequence[Gain]
) -> Iterator[list[Float32[np.ndarray, "rows columns"]]]:
    """Apply several zero-phase filters to each slice, with one Fourier transform of it.

    Gains are read at cycles/mm of this volume's own pixels. Edges are reflected over 64 px, so
    that the table or an arm cut off by one side of the image does not appear at the other.
    """
    rows, columns = volume.hu.shape[1:]
    shape = fast_shape((rows, columns), 2 * REFLECT_PX)
    radius = frequency_radius(shape, volume.geometry.pixel_mm)
    tables = [gain(radius).astype(np.float32) for gain in gains]
    margins = [
        (REFLECT_PX, full - n - REFLECT_PX) for full, n in zip(shape, (rows, columns), strict=True)
    ]
    inner = (slice(REFLECT_PX, REFLECT_PX + rows), slice(REFLECT_PX, REFLECT_PX + columns))
    for plane in volume.hu:
        wide = np.pad(plane.astype(np.float32, copy=False), margins, mode="reflect")
        spectrum = scipy.fft.rfft2(wide, workers=1)
        yield [
            scipy.fft.irfft2(spectrum * table, s=shape, workers=1, overwrite_x=True)[inner]
            for table in tables
        ]


def filter_slices(
    volume: CTVolume,
    frequencies_per_mm: Float[np.ndarray, " n"],
    log_gain: Float[np.ndarray, " n"],
) -> Float32[np.ndarray, "slices rows columns"]:
    """Apply one zero-phase filter to each slice; the result is floored at -1024 HU.

    Beyond the last frequency the gain stays as it is there.
    """

    def gain(radius: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
        return np.asarray(np.exp(np.interp(radius, frequencies_per_mm, log_gain)))

    result = np.empty(volume.hu.shape, dtype=np.float32)
    for index, (filtered,) in enumerate(filtered_slices(volume, [gain])):
        np.maximum(filtered, np.float32(AIR_FLOOR_HU), out=result[index])
    return result
