"""Plots of what is in a profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import TrainingError, need_extra
from cvsct.core.moments import Moments, mean_value, squares_about_mean
from cvsct.guard.descriptor import TISSUE_EDGES_HU
from cvsct.methods.spectrum.soft_tissue_noise import SoftTissue
from cvsct.methods.spectrum.texture import ENERGY_EDGES
from cvsct.profile.profile import ScannerProfile


def body_spectrum(
    profile: ScannerProfile,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Mean log power of patches of the body at each frequency, and its deviation."""
    return _mean_and_sd(profile.texture.body, np.ones(len(profile.texture.body.sums)))


def noise_spectrum(profile: ScannerProfile) -> Float[np.ndarray, " n"] | None:
    """Mean log power of the most homogeneous soft tissue; None where there is too little."""
    try:
        soft = SoftTissue.of(profile.texture, "profile's")
    except TrainingError:
        return None
    return _mean_and_sd(profile.texture.by_ratio, soft.homogeneous)[0]


def _mean_and_sd(
    part: Moments, weight: Float[np.ndarray, " strata"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    sums = part.weighted(weight)
    value = part.form(value=1.0)
    count = np.maximum(sums[:, 0, 0], 1.0)
    return mean_value(sums, value), np.sqrt(squares_about_mean(sums, value) / count)


def plot_profile(profile: ScannerProfile, path: Path) -> None:
    """Draw the spectra, the strata and the tissue of a profile into a PNG file.

    Raises:
        MissingExtraError: if the extra `evaluate` is not installed.
    """
    need_extra("evaluate", "plots")
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    spectra, patches, tissue = figure.subplots(1, 3)
    f = profile.texture.frequencies_per_mm
    mean, sd = body_spectrum(profile)
    spectra.plot(f, mean, "-", color="C0", label="body, 40 mm (± standard deviation)")
    spectra.fill_between(f, mean - sd, mean + sd, color="C0", alpha=0.2, linewidth=0)
    noise = noise_spectrum(profile)
    if noise is not None:
        spectra.plot(f, noise, "--", color="C1", label="most homogeneous soft tissue, 20 mm")
    spectra.set(xlabel="cycles/mm", ylabel="ln power, HU² mm²")
    spectra.legend(fontsize=7, frameon=False)
    body = profile.texture.body_patches
    bottom, middle = np.zeros(len(body)), ENERGY_EDGES[0] - 0.5 + np.arange(len(body))
    for column, name, hatch in zip(
        body.T, ("lung", "edges of tissues", "soft tissue, bone"), ("", "//", ".."), strict=True
    ):
        patches.bar(middle, column, bottom=bottom, label=name, hatch=hatch)
        bottom += column
    patches.set(xlabel="ln low-frequency power", ylabel="patches of bodies in a stratum")
    patches.legend(fontsize=7, frameon=False)
    known = profile.reference.descriptors[0]
    low_hu = TISSUE_EDGES_HU[:-1]
    tissue.step(low_hu, known.tissue, where="post")
    tissue.set(
        xlabel=f"CT number, HU (the last: {low_hu[-1]:g} and more)", ylabel="share of tissue"
    )
    figure.suptitle(
        f"{profile.scanner} (n = {profile.n_patients} patients, {profile.n_slices} slices)",
        fontsize=9,
    )
    figure.savefig(path, dpi=120)
