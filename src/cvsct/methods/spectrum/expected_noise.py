"""Noise expected from the attenuation of a patient, before any kernel.

A thick body is noisier than a thin one on the same scanner. Spectra of different bodies can be
compared only after this has been told apart from the kernel.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from cvsct.core.masks import body
from cvsct.core.spectra import PatchSpectra
from cvsct.core.volume import CTVolume

WATER_PER_MM = 0.0193
"""Linear attenuation of water at 70 keV, about the mean of a 120 kVp beam (NIST XCOM)."""

GRID_MM = 8.0
RAY_ANGLES = 24


def expected_log_noise(
    volume: CTVolume,
) -> Float[np.ndarray, "slices coarse_rows coarse_columns"]:
    """Log of the expected noise power, up to a constant, on a grid of about 8 mm.

    The variance of a reconstructed pixel is the mean, over all rays through it, of the variance
    of their line integrals, which is the inverse of the photons that arrived: exp(line integral)
    (Kak and Slaney 1988, section 5.2). Attenuation is read off the image; what lies outside the
    field of view is not seen.
    """
    relative = np.clip(1 + volume.hu / 1000, 0, 3) * body(volume.hu)
    zoom = np.array(volume.geometry.pixel_mm) / GRID_MM
    width = np.maximum(np.rint(1 / zoom), 1).astype(int)
    mean = ndimage.uniform_filter(relative, size=(1, *width), mode="nearest")
    coarse = ndimage.zoom(mean, (1.0, *zoom), order=1, grid_mode=True, mode="nearest")
    side = int(np.ceil(np.hypot(*coarse.shape[1:])))
    top, left = ((side - n) // 2 for n in coarse.shape[1:])
    inner = (
        slice(None),
        slice(top, top + coarse.shape[1]),
        slice(left, left + coarse.shape[2]),
    )
    square = np.zeros((len(coarse), side, side), dtype=np.float32)
    square[inner] = coarse
    total = np.zeros_like(square)
    for angle in np.arange(RAY_ANGLES) * 180.0 / RAY_ANGLES:
        turned = ndimage.rotate(square, angle, axes=(1, 2), reshape=False, order=1)
        integral = turned.sum(axis=1, keepdims=True) * (GRID_MM * WATER_PER_MM)
        rays = np.broadcast_to(np.exp(np.minimum(integral, 20.0)), square.shape)
        total += ndimage.rotate(rays, -angle, axes=(1, 2), reshape=False, order=1, mode="nearest")
    return np.log(total[inner] / RAY_ANGLES)


def patch_log_noise(
    expected: Float[np.ndarray, "slices coarse_rows coarse_columns"],
    volume: CTVolume,
    spectra: PatchSpectra,
) -> Float[np.ndarray, " patches"]:
    """Expected log noise power of each patch: the mean over about the patch's width.

    Args:
        expected: `expected_log_noise` of the volume.
    """
    across = max(round(spectra.size_px * volume.pixel_mm / GRID_MM), 1)
    smooth = ndimage.uniform_filter(expected, size=(1, across, across), mode="nearest")
    pixels = np.array(volume.hu.shape[1:]) / expected.shape[1:]
    centres = (spectra.corners[:, 1:] + spectra.size_px / 2) / pixels - 0.5
    where = np.column_stack([spectra.corners[:, 0], centres]).T
    sampled: Float[np.ndarray, " patches"] = ndimage.map_coordinates(
        smooth.astype(np.float64), where, order=1, mode="nearest"
    )
    return sampled
