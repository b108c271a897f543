"""Correction of the noise gain by the difference that remains after filtering.

The first estimate of the noise gain comes from homogeneous tissue
(`methods.spectrum.separate_gains`). It is uncertain, because the dose law is, and because
homogeneous tissue lies elsewhere in another body. The local energy of bands at matched tissue
(`methods.spectrum.tissue_samples`) gives a second estimate from all soft tissue: source scans are
filtered and compared with the target's, target scans are filtered back and compared with the
source's, and half of the difference of the two corrections is taken, so that swapping the domains
still inverts the gains.

Both estimates err. The correction of the level weighs by how uncertain the first one was. It needs
the images of both sides: a side that is a profile leaves the first estimate as it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from cvsct.core.progress import Note, Progress, log_note
from cvsct.core.volume import CTVolume, Scans, facts_of
from cvsct.methods.bands import UNSCALED, Bands
from cvsct.methods.spectrum.block_filter import filter_blocks
from cvsct.methods.spectrum.separate_gains import SeparateGains
from cvsct.methods.spectrum.tissue_samples import (
    TissueSamples,
    fit_energy_gains,
    measure_prepared_samples,
    unchanged,
)

BAND_PER_MM, LOCAL_MM = 0.15, 5.6
MAX_SLICES = 16
"""Most slices of each side, spread evenly."""

CORRECTION_SD = 0.05
"""Standard error of a correction's log gain: the difference that matched tissue still has."""

MAX_CORRECTION = float(np.log(1.6))


def refine_noise_gain(
    source: Scans,
    target: Scans,
    gains: SeparateGains,
    frequencies_per_mm: Float[np.ndarray, " n"],
    max_gain: float,
    progress: Progress,
    note: Note = log_note,
) -> SeparateGains:
    """Correct the noise gain once; coarse pixels leave the gains unchanged.

    Args:
        note: told that the pixels reach no band above the two that only tell tissue.
    """
    f = frequencies_per_mm
    pixel_mm = max(min(min(scan.pixel_mm) for scan in facts_of(side)) for side in (source, target))
    bands = Bands.of(pixel_mm, BAND_PER_MM)
    if bands.count <= UNSCALED:
        note(
            f"pixels of {pixel_mm:.3g} mm show too little of the texture to correct the gain of "
            "noise by what filtering leaves: that correction is left out"
        )
        return gains

    def measure_side(scans: Scans, name: str, reverse: bool) -> list[TissueSamples]:
        """Tissue samples of the scans as they are, and filtered."""
        block_gains = gains.in_direction(f, max_gain, reverse)

        def filtered(volume: CTVolume) -> CTVolume:
            return volume.with_hu(filter_blocks(volume, block_gains))

        return measure_prepared_samples(
            scans, bands, LOCAL_MM, MAX_SLICES, name, progress, [unchanged, filtered]
        )

    a, a_filtered = measure_side(source, "source", False)
    b, b_filtered = measure_side(target, "target", True)
    forth, middle_forth = fit_energy_gains(a_filtered, b)
    back, middle_back = fit_energy_gains(b_filtered, a)
    level, slope = 0.5 * (forth - back).T
    trust = gains.noise_sd**2 / (gains.noise_sd**2 + CORRECTION_SD**2)
    middle = 0.5 * (middle_forth + middle_back)
    level = trust * level + slope * (1 - middle)  # from the mean squared radius to 100 mm
    shape = np.stack([bands.share(band, f) for band in range(UNSCALED, bands.count)])
    return replace(
        gains,
        noise=gains.noise + np.clip(level, -MAX_CORRECTION, MAX_CORRECTION) @ shape,
        noise_radial=gains.noise_radial + np.clip(slope, -MAX_CORRECTION, MAX_CORRECTION) @ shape,
    )
