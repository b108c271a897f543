"""Gaussian filters by Fourier transform, and the windows that fade a slice's borders out.

A filter of several pixels costs a fraction of `scipy.ndimage.gaussian_filter`'s time, and several
filters of one image share its transform. The kernel is that of `gaussian_filter`, cut off at the
same distance, so results agree to rounding. (`scipy.signal` has the windows too, but importing it
takes longer than a small evaluation.)
"""

from __future__ import annotations

import functools

import numpy as np
import scipy.fft
from jaxtyping import Complex, Float

TRUNCATE = 4.0
"""Distance at which a kernel is cut off, in standard deviations, as in `gaussian_filter`."""


def gaussian_radius(sigma_px: float, truncate: float = TRUNCATE) -> int:
    """Distance in pixels to which a Gaussian kernel reaches."""
    return int(truncate * sigma_px + 0.5)


@functools.lru_cache(maxsize=16)
def gaussian_transfer(
    shape: tuple[int, int], sigma_px: float, truncate: float = TRUNCATE
) -> Float[np.ndarray, "_ _"]:
    """Transfer function of a Gaussian kernel at the frequencies of `scipy.fft.rfft2`.

    Args:
        shape: rows and columns of the image that is transformed.
        sigma_px: standard deviation of the kernel.
        truncate: distance at which the kernel is cut off, in standard deviations.

    Returns:
        The same read-only array for the same arguments.
    """
    reach = np.arange(1, gaussian_radius(sigma_px, truncate) + 1)
    side = np.exp(-0.5 * (reach / sigma_px) ** 2)
    total = 1 + 2 * side.sum()
    down, across = (
        (1 + 2 * np.cos(2 * np.pi * np.outer(f, reach)) @ side) / total
        for f in (scipy.fft.fftfreq(shape[0]), scipy.fft.rfftfreq(shape[1]))
    )
    transfer = np.outer(down, across)
    transfer.flags.writeable = False
    return transfer


def frequency_radius(
    shape: tuple[int, int], pixel_mm: tuple[float, float]
) -> Float[np.ndarray, "rows half"]:
    """Distance from zero frequency of each coefficient of `scipy.fft.rfft2`, in cycles/mm."""
    down = scipy.fft.fftfreq(shape[0], pixel_mm[0])[:, None]
    return np.asarray(np.hypot(down, scipy.fft.rfftfreq(shape[1], pixel_mm[1])))


def fast_shape(shape: tuple[int, ...], more: int = 0) -> tuple[int, int]:
    """Rows and columns, at least those of an image and `more`, whose transform is fast."""
    rows, columns = (scipy.fft.next_fast_len(size + more, real=True) for size in shape[-2:])
    return int(rows), int(columns)


def spectrum_of(
    image: Float[np.ndarray, "rows columns"], shape: tuple[int, int]
) -> Complex[np.ndarray, "_ _"]:
    """Transform of a real image, filled up with zeros to a shape."""
    return np.asarray(scipy.fft.rfft2(image, s=shape, workers=1))


def image_of(
    spectrum: Complex[np.ndarray, "_ _"], shape: tuple[int, int]
) -> Float[np.ndarray, "rows columns"]:
    """The real image of a transform."""
    return np.asarray(scipy.fft.irfft2(spectrum, s=shape, workers=1))


def tukey(size: int, share: float) -> Float[np.ndarray, " size"]:
    """Tukey's window: 1 in the middle, a cosine over `share` of its length, half at each end."""
    position = np.arange(size) / (size - 1)
    from_end = np.minimum(position, 1 - position)
    return np.where(from_end < share / 2, 0.5 - 0.5 * np.cos(2 * np.pi * from_end / share), 1.0)
