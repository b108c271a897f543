"""Tube-current modulation by attenuation: the current of every view of a rotation.

A scanner knows the attenuation from its localizer or from the views before; here it is that of
the view itself. What is modulated is the tube's load, so that the noise changes and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from cvsct.simulation.physics.definition import TubeCurrent

CENTRAL_MM = 20.0
"""Rays that pass the isocentre within this distance make the attenuation of a view."""


@dataclass(frozen=True)
class Exposure:
    """The load of a tube in one rotation.

    Args:
        mas: tube current times rotation time, the mean over the views.
        shares: load of each view over that mean; None where all views are alike.
    """

    mas: float
    shares: Float64[np.ndarray, " views"] | None = None


@dataclass(frozen=True)
class CentralNoise:
    """Variance of each view's central readings in mm^2 of water: `photons / m + dark / m^2`.

    Args:
        photons: for a view of 1 mAs of the rotation.
        dark: the share of the electronics.
        gain: HU^2 in the middle of the image for each mm^2, summed over the views.
    """

    photons: Float64[np.ndarray, " views"]
    dark: Float64[np.ndarray, " views"]
    gain: float

    def mas_for(self, sd_hu: float, shares: Float64[np.ndarray, " views"]) -> float:
        """Mean load with which the middle of the image has this standard deviation."""
        photons = self.gain * float((self.photons / shares).sum())
        dark = self.gain * float((self.dark / shares**2).sum())
        root = float(np.sqrt(photons**2 + 4 * dark * sd_hu**2))
        return (photons + root) / (2 * sd_hu**2)


def modulated(
    law: TubeCurrent,
    logs: Float64[np.ndarray, " views"],
    reference_log: float,
    mas: float,
    rotation_s: float,
    noise: CentralNoise,
) -> Exposure:
    """The load of a rotation under a law of modulation.

    Args:
        logs: logarithm of each view's attenuation on its central rays.
        reference_log: that of the reference water path.
        mas: load that the reference would get; a noise index takes no notice of it.
        noise: of the central readings.

    Returns:
        What the tube gives within the limits of its current.
    """
    shares = np.exp(law.angular_exponent * (logs - logs.mean()))
    shares /= shares.mean()
    if law.noise_index is not None:
        mean_mas = noise.mas_for(law.noise_index, shares)
    else:
        mean_mas = mas * float(np.exp((law.z_exponent or 0.0) * (logs.mean() - reference_log)))
    by_view = np.clip(mean_mas * shares, law.minimum_ma * rotation_s, law.maximum_ma * rotation_s)
    mean = float(by_view.mean())
    return Exposure(mean, by_view / mean)
