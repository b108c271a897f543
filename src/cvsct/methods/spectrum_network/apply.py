"""Application of a `spectrum-network` model: the filter, then the network's local gains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvsct.core.masks import blurred
from cvsct.core.volume import AIR_FLOOR_HU, CTVolume
from cvsct.methods.base import bundle_weights, require_consistent
from cvsct.methods.spectrum.apply import AfterFilter, Slices, load_spectrum
from cvsct.methods.spectrum.fit_ensemble import repeated_mappings
from cvsct.methods.spectrum_network.gain_network import GainNetwork, is_complete
from cvsct.methods.spectrum_network.texture_condition import (
    BANDS,
    SCALED,
    TISSUES,
    TextureCondition,
)
from cvsct.methods.volume_mapping import RepeatedMapping, VolumeMapping
from cvsct.model.bundle import Bundle

NETWORK = "network."
"""Prefix of the network's arrays in a model."""

CONDITION, KEPT = "texture_condition", "kept_by_band"
"""Names of arrays in a model: texture of the training scans (`TextureCondition`), and the share of
each band of the network's change that is kept; for each direction."""

AIR_HU = -950.0
"""Blurred CT numbers below which nothing is changed."""

LEAST_PIXEL_MM, LARGEST_PIXEL_MM = 0.55, 0.83
"""Pixels for which the network is used: it learned from .68 mm, and its highest band needs
frequencies above .6 cycles/mm."""


def fits_network(pixel_mm: tuple[float, float]) -> bool:
    """Whether pixels are of a size for which the network is used."""
    return min(pixel_mm) >= LEAST_PIXEL_MM and max(pixel_mm) <= LARGEST_PIXEL_MM


@dataclass(frozen=True)
class LocalGains:
    """What the network does with filtered slices in one direction.

    Args:
        kept: share of each band of its change that is kept.
    """

    network: GainNetwork
    kept: Float[np.ndarray, " bands"]

    def after_filter(self) -> AfterFilter:
        """As what `spectrum` calls after its filter."""
        return AfterFilter(self.change, self.network.engine, self.remark)

    def remark(self, sample: CTVolume) -> str:
        """That the network is left out, where it is."""
        if fits_network(sample.geometry.pixel_mm):
            return ""
        spacing = " x ".join(f"{mm:.3g}" for mm in sample.geometry.pixel_mm)
        return (
            f"pixels of {spacing} mm: the network is left out, "
            f"which is made for {LEAST_PIXEL_MM:g} to {LARGEST_PIXEL_MM:g} mm"
        )

    def change(
        self,
        source: CTVolume,
        before_noise: Slices,
        filtered: Slices,
        share: float,
    ) -> Slices:
        """Change filtered slices; air and scans of other pixels stay as the filter leaves them."""
        pixel_mm = source.geometry.pixel_mm
        if not fits_network(pixel_mm):
            return filtered
        result = np.array(filtered)
        for given, before, output in zip(source.hu, before_noise, result, strict=True):
            plane = given.astype(np.float32, copy=False)
            change = self.network.change(before, plane, pixel_mm, self.kept)
            tissue = blurred(plane[None])[0] >= AIR_HU
            output[tissue] += np.float32(share) * change[tissue]
        np.maximum(result, np.float32(AIR_FLOOR_HU), out=result)
        return result


def load_spectrum_network(bundle: Bundle, reverse: bool) -> VolumeMapping:
    """Load a `spectrum-network` model in one direction.

    Raises:
        ModelError: if arrays are missing or do not fit each other.
    """
    return load_spectrum(bundle, reverse, _after_filter(bundle, reverse))


def load_repeated(bundle: Bundle, reverse: bool) -> tuple[RepeatedMapping, ...]:
    """Mappings of the filter's repeated fits, each followed by the one network.

    Raises:
        ModelError: if arrays are missing or do not fit each other.
    """
    after = _after_filter(bundle, reverse)
    return repeated_mappings(bundle, lambda repeated: load_spectrum(repeated, reverse, after))


def network_of(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The network's arrays among those of a model, by its own names."""
    return {
        name.removeprefix(NETWORK): array
        for name, array in weights.items()
        if name.startswith(NETWORK)
    }


def _after_filter(bundle: Bundle, reverse: bool) -> AfterFilter | None:
    """What the model's network does; None where the model is the filter alone."""
    network = network_of(bundle.weights)
    if not network:
        return None
    conditions, kept = bundle_weights(bundle, CONDITION, KEPT)
    require_consistent(
        bundle,
        conditions.shape == (2, 3, len(TISSUES), SCALED) and kept.shape == (2, BANDS.count),
    )
    condition = TextureCondition(*conditions[int(reverse)])
    require_consistent(bundle, is_complete(network, len(condition.vector)))
    return LocalGains(GainNetwork(network, condition), kept[int(reverse)]).after_filter()
