"""The gain of noise corrected by what is left when scans have gone through it.

The most even tissue tells the gain of noise (`methods.spectrum.noise_structure`), but how far
noise follows the thickness of a body is known only so well, and where even tissue lies differs
between bodies. The local energy of bands at like tissue (`methods.band_energy`) tells it once
more, from all soft tissue: source scans are filtered and compared with the target's, target scans
are filtered back and compared with the source's, and half of the difference of the two corrections
is taken, so that swapping the domains still inverts the gains.

Both estimates err. The correction of the level weighs by how uncertain the first one was.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from cvsct.core.progress import Note, Progress, log_note
from cvsct.core.volume import CTVolume, Scans
from cvsct.methods.band_energy import fit_band_gains
from cvsct.methods.band_statistics import (
    UNSCALED,
    Bands,
    Filter,
    Places,
    as_it_is,
    finest_pixel_mm,
    places_of_each,
)
from cvsct.methods.spectrum.block_filter import LocalGains, filter_locally
from cvsct.methods.spectrum.noise_structure import TwoGains

BAND_PER_MM, LOCAL_MM = 0.15, 5.6
MAX_SLICES = 40
"""Slices a side, spread evenly."""

CORRECTION_SD = 0.05
"""Standard error of a correction's log gain: what tissue alike still differs by."""

MOST = float(np.log(1.6))


def refined(
    source: Scans,
    target: Scans,
    two: TwoGains,
    frequencies_per_mm: Float[np.ndarray, " n"],
    max_gain: float,
    progress: Progress,
    note: Note = log_note,
) -> TwoGains:
    """The gains with that of noise corrected once; as they are where pixels are too coarse.

    Args:
        note: told that the pixels reach no band above the two that only tell tissue.
    """
    f = frequencies_per_mm
    pixel_mm = finest_pixel_mm(source, target)
    bands = Bands.of(pixel_mm, BAND_PER_MM)
    if bands.count <= UNSCALED:
        note(
            f"pixels of {pixel_mm:.3g} mm show too little of the texture to correct the gain of "
            "noise by what filtering leaves: that correction is left out"
        )
        return two

    def measured(scans: Scans, name: str, reverse: bool) -> list[Places]:
        """As they are, and filtered."""
        gains = LocalGains.one_way(
            f,
            (two.noise, two.noise_radial, two.structure),
            (two.source_noise, two.target_noise),
            max_gain,
            reverse,
        )

        def filtered(volume: CTVolume) -> CTVolume:
            return volume.with_hu(filter_locally(volume, gains))

        flat = Filter(f, np.zeros_like(f))
        return places_of_each(
            scans, flat, bands, LOCAL_MM, MAX_SLICES, name, progress, [as_it_is, filtered]
        )

    a, a_filtered = measured(source, "source", False)
    b, b_filtered = measured(target, "target", True)
    forth, back = fit_band_gains(a_filtered, b), fit_band_gains(b_filtered, a)
    level, slope = 0.5 * (forth.log_gain - back.log_gain).T
    trust = two.noise_sd**2 / (two.noise_sd**2 + CORRECTION_SD**2)
    middle = 0.5 * (forth.radius_sq[0] + back.radius_sq[0])
    level = trust * level + slope * (1 - middle)  # from the mean squared radius to 100 mm
    shape = np.stack([bands.share(band, f) for band in range(UNSCALED, bands.count)])
    return replace(
        two,
        noise=two.noise + np.clip(level, -MOST, MOST) @ shape,
        noise_radial=two.noise_radial + np.clip(slope, -MOST, MOST) @ shape,
    )
