"""Tube-current modulation by attenuation: the current of every view of a rotation.

A scanner knows the attenuation from its localizer or from the views before; here it is that of
the view itself. The modulation changes the tube load of the views, and thereby the noise alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from cvsct.simulation.physics.definition import TubeCurrent

CENTRAL_MM = 20.0
"""Distance from the isocentre of the rays whose mean is the attenuation of a view."""


@dataclass(frozen=True)
class Exposure:
    """Tube load of one rotation.

    Args:
        mas: tube current times rotation time, the mean over the views.
        shares: load of each view over that mean; None for a constant current.
    """

    mas: float
    shares: Float64[np.ndarray, " views"] | None = None


@dataclass(frozen=True)
class CentralNoise:
    """Variance of each view's central readings in mm^2 of water: `photons / m + dark / m^2`.

    Here `m` is the load of the rotation in mAs.

    Args:
        photons: variance by photon noise at 1 mAs.
        dark: variance by electronic noise at 1 mAs.
        gain: HU^2 at the centre of the image for each mm^2, summed over the views.
    """

    photons: Float64[np.ndarray, " views"]
    dark: Float64[np.ndarray, " views"]
    gain: float

    def mas_for(self, sd_hu: float, shares: Float64[np.ndarray, " views"]) -> float:
        """Mean load in mAs at which the centre of the image has this standard deviation."""
        photons = self.gain * float((self.photons / shares).sum())
        dark = self.gain * float((self.dark / shares**2).sum())
        root = float(np.sqrt(photons**2 + 4 * dark * sd_hu**2))
        return (photons + root) / (2 * sd_hu**2)


def modulate_exposure(
    law: TubeCurrent,
    logs: Float64[np.ndarray, " views"],
    reference_log: float,
    mas: float,
    rotation_s: float,
    noise: CentralNoise,
) -> Exposure:
    """Tube load of a rotation under a law of modulation.

    Args:
        law: section `tube_current` of the scanner's definition.
        logs: logarithm of each view's attenuation on its central rays.
        reference_log: logarithmic attenuation of the reference water path.
        mas: load that the reference would get; a law with a noise index ignores it.
        rotation_s: time of one rotation.
        noise: noise of the central readings.

    Returns:
        Load of the views, within the limits of the tube current.
    """
    shares = np.exp(law.angular_exponent * (logs - logs.mean()))
    shares /= shares.mean()
    if law.noise_index is not None:
        mean_mas = noise.mas_for(law.noise_index, shares)
    else:
        mean_mas = mas * float(np.exp((law.z_exponent or 0.0) * (logs.mean() - reference_log)))
    view_mas = np.clip(mean_mas * shares, law.minimum_ma * rotation_s, law.maximum_ma * rotation_s)
    mean = float(view_mas.mean())
    return Exposure(mean, view_mas / mean)
