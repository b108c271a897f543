"""Edge-preserving denoiser of reconstructed images, in units of the local noise.

It models the noise reduction that scanners offer beside iterative reconstruction. Its input is the
image and the noise predicted from the readings. Differences between neighbors are smoothed where
they are small against the noise and kept where they are edges, by minimization of

    1/2 sum_j (z_j - y_j)^2 / n_j^2 + b sum_jk s_jk psi(z_j - z_k)

with the noise n, in a fixed number of sweeps. It has no model of the correlation of noise, so its
smoothing acts most on the highest frequencies.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from cvsct.simulation.physics import ray_kernels as rays
from cvsct.simulation.physics.definition import Denoised

SWEEPS = 20
"""Number of steps of the minimization."""
WEIGHT = 1.5
"""Weight of a pair of neighbors against a pixel's own value; chosen."""


def denoise(
    image_hu: Float32[np.ndarray, "rows columns"],
    noise_hu: Float32[np.ndarray, "rows columns"],
    strength: Denoised,
) -> Float32[np.ndarray, "rows columns"]:
    """Smooth differences below the threshold; edges above it stay.

    Args:
        image_hu: reconstructed image.
        noise_hu: standard deviation of each pixel's noise.
        strength: threshold, and share of the denoised image in the result.
    """
    root = np.full_like(image_hu, np.sqrt(WEIGHT))
    sharpness = np.full_like(image_hu, 1 / strength.threshold)
    measured = image_hu / noise_hu
    current, slope = measured, np.empty_like(measured)
    # Neighbors' curvature is at most 2 times the sum of their shares (Gershgorin).
    step = np.float32(1 / (1 + 2 * WEIGHT * (4 + 4 * np.sqrt(0.5))))
    for _ in range(SWEEPS):
        rays.penalty_gradient(current, root, sharpness, slope)
        current = current - step * (current - measured + slope)
    return np.asarray(image_hu + np.float32(strength.blend) * (current * noise_hu - image_hu))
