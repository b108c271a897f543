"""Training of `spectrum-network`: the filter is fitted, then what the network is told is measured.

Nothing of the network is trained here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import UsageError
from cvsct.core.volume import CTVolume, Scans, facts_of
from cvsct.methods.base import TrainingRequest
from cvsct.methods.sampling import measure_slices
from cvsct.methods.settings import read_settings
from cvsct.methods.spectrum.apply import AfterFilter, Slices, load_spectrum
from cvsct.methods.spectrum.settings import SpectrumSettings
from cvsct.methods.spectrum.train import train_spectrum
from cvsct.methods.spectrum_network.apply import (
    CONDITION,
    KEPT,
    LARGEST_PIXEL_MM,
    LEAST_PIXEL_MM,
    NETWORK,
    LocalGains,
    fits_network,
)
from cvsct.methods.spectrum_network.gain_network import GainNetwork, packaged_weights
from cvsct.methods.spectrum_network.texture_condition import (
    BANDS,
    TextureCondition,
    homogeneous,
    in_bands,
    texture_by_tissue,
)
from cvsct.model.bundle import Bundle

MAX_SLICES = 16
"""Most slices of each side that are measured, spread evenly."""

TOLERANCE = 0.02
"""Error of the log amplitude of a band up to which all of a change is kept."""

LEAST_VOXELS = 1000
"""Fewest voxels of homogeneous soft tissue that a side must show: fewer tell no texture."""


@dataclass(frozen=True)
class FilteredSlices:
    """Slices of a scan as `spectrum` filters them, before it adds noise and after."""

    volume: CTVolume
    before: Slices
    after: Slices

    @classmethod
    def of(cls, bundle: Bundle, volume: CTVolume, reverse: bool) -> FilteredSlices:
        """Filter some slices of a scan by a model."""
        hu = volume.hu.astype(np.float32)
        found = [hu, hu]

        def keep(_: CTVolume, before: Slices, after: Slices, __: float) -> Slices:
            found[:] = before, after
            return after

        load_spectrum(bundle, reverse, AfterFilter(keep))(volume)
        return cls(volume, *found)


def train_spectrum_network(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Train `spectrum`, and measure for the network of the package what it is told of both sides.

    Where one linear kernel explains both sides, or pixels are of a size that the network has not
    learned from, the model is the filter alone and its card says so.

    Raises:
        UsageError: for settings that do not exist, or with gains=one.
        TrainingError: if a side shows too little of a patient, or the sides share no
            similar tissue.
    """
    if read_settings(SpectrumSettings, request.settings).gains == "one":
        raise UsageError(
            f"gains=one: {request.method} needs the two gains; train spectrum-plain for one"
        )
    bundle = train_spectrum(source, target, request)
    why_not = _why_not(bundle, source, target)
    if why_not:
        return _filter_alone(bundle, why_not, request)
    scans = [
        measure_slices(
            side, MAX_SLICES, lambda volume, _: volume, f"tissues of the {name}", request.progress
        )
        for name, side in (("source", source), ("target", target))
    ]
    if any(_homogeneous_voxels(side) < LEAST_VOXELS for side in scans):
        why_not = "a side shows too little homogeneous soft tissue to tell its texture"
        return _filter_alone(bundle, why_not, request)
    network = packaged_weights()
    in_full = replace(bundle, settings={**bundle.settings, "pass_through": False})
    textures = [texture_by_tissue(side) for side in scans]
    conditions, kept = [], []
    for reverse in (False, True):
        filtered = [FilteredSlices.of(in_full, volume, reverse) for volume in scans[reverse]]
        condition = TextureCondition(
            texture_by_tissue(each.volume.with_hu(each.after) for each in filtered),
            target=textures[not reverse],
            source=textures[reverse],
        )
        conditions.append(condition.to_array())
        kept.append(kept_shares(GainNetwork(network, condition), filtered, condition))
    weights = {
        **{NETWORK + name: array for name, array in network.items()},
        CONDITION: np.stack(conditions),
        KEPT: np.stack(kept),
    }
    figures = {
        "network": "of the package, trained on simulated scanners alone; a share of what it "
        "changes in each band from .15 cycles/mm is kept",
        **{
            f"network_kept_{name}": " ".join(f"{share:.2f}" for share in shares[1:])
            for name, shares in zip(("a2b", "b2a"), kept, strict=True)
        },
    }
    return _with_figures(replace(bundle, weights=bundle.weights | weights), figures)


def kept_shares(
    network: GainNetwork, filtered: list[FilteredSlices], condition: TextureCondition
) -> Float[np.ndarray, " bands"]:
    """Largest share of the network's change that may be kept, by band.

    With it the energy of each band, in homogeneous soft tissue of the training scans, comes as near
    to the target's as the filter alone brings it, or within `TOLERANCE`. No pairs are needed. The
    energy is that of noise and of what anatomy there is, so that few bodies decide by chance.
    """
    gains = LocalGains(network, np.ones(BANDS.count))
    sums, voxels = np.zeros((3, BANDS.count)), 0
    for each in filtered:
        changed = gains.change(each.volume, each.before, each.after, 1.0)
        first, last = (in_bands(each.volume.with_hu(hu)) for hu in (each.after, changed))
        mask = homogeneous(first[:, 0])
        voxels += int(mask.sum())
        for band in range(BANDS.count):
            old = first[:, band][mask].astype(np.float64)
            new = last[:, band][mask] - old
            sums[:, band] += old @ old, 2 * (old @ new), new @ new
    kept, shares = np.ones(BANDS.count), np.linspace(0, 1, 21)
    wanted = np.exp(2 * condition.target[0])
    for band in range(1, BANDS.count):
        constant, linear, square = sums[:, band] / max(voxels, 1)
        energies = np.maximum(constant + linear * shares + square * shares**2, 1e-6)
        errors = np.abs(0.5 * np.log(energies / wanted[band - 1]))
        kept[band] = shares[errors <= max(errors[0], TOLERANCE)].max()
    return kept


def _why_not(bundle: Bundle, source: Scans, target: Scans) -> str:
    """Why the network is not used between two sides; nothing where it is."""
    if bundle.weights["one_kernel"].any():
        return "one linear kernel explains both scanners, and the filter is all there is to do"
    if not all(
        fits_network(facts.pixel_mm) for side in (source, target) for facts in facts_of(side)
    ):
        return f"it is made for pixels of {LEAST_PIXEL_MM:g} to {LARGEST_PIXEL_MM:g} mm"
    return ""


def _homogeneous_voxels(volumes: list[CTVolume]) -> int:
    return sum(int(homogeneous(in_bands(volume)[:, 0]).sum()) for volume in volumes)


def _filter_alone(bundle: Bundle, why_not: str, request: TrainingRequest) -> Bundle:
    """The model without the network, whose card says why, as does a note."""
    request.note(f"the network is not used: {why_not}")
    return _with_figures(bundle, {"network": f"not used: {why_not}"})


def _with_figures(bundle: Bundle, figures: dict[str, Any]) -> Bundle:
    return replace(bundle, training={**bundle.training, **figures})
