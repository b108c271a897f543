"""An edge-preserving denoiser of finished images, in units of the local noise.

The cheap variant of noise reduction that scanners offer beside iterative reconstruction: it sees
the image alone, and the noise that its readings foretell. Differences between neighbours are
smoothed where they are small against the noise and kept where they are edges: minimisation of

    1/2 sum_j (z_j - y_j)^2 / n_j^2 + b sum_jk s_jk psi(z_j - z_k)

with the noise n, in a fixed number of sweeps. Without a model of how noise is correlated it smooths
every frequency of the noise by the same amount of curvature, fine grain most.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from cvsct.simulation.physics import ray_kernels as rays
from cvsct.simulation.physics.definition import Denoised

SWEEPS = 20
WEIGHT = 1.5
"""Of a pair of neighbours against a pixel's own value. Chosen."""


def denoised(
    image_hu: Float32[np.ndarray, "rows columns"],
    noise_hu: Float32[np.ndarray, "rows columns"],
    strength: Denoised,
) -> Float32[np.ndarray, "rows columns"]:
    """The image without most of its noise; edges above the threshold stay.

    Args:
        image_hu: a reconstructed image.
        noise_hu: standard deviation of each pixel's noise.
    """
    root = np.full_like(image_hu, np.sqrt(WEIGHT))
    sharpness = np.full_like(image_hu, 1 / strength.threshold)
    measured = image_hu / noise_hu
    current, slope = measured, np.empty_like(measured)
    # Neighbours' curvature is at most 2 times the sum of their shares (Gershgorin).
    step = np.float32(1 / (1 + 2 * WEIGHT * (4 + 4 * np.sqrt(0.5))))
    for _ in range(SWEEPS):
        rays.penalty_gradient(current, root, sharpness, slope)
        current = current - step * (current - measured + slope)
    return np.asarray(image_hu + np.float32(strength.blend) * (current * noise_hu - image_hu))
