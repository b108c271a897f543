"""Application of a `spectrum` model: filter noise and structure of a scan by its gains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from cvsct.core.errors import GeometryError
from cvsct.core.volume import CTVolume
from cvsct.methods.base import (
    bundle_settings,
    bundle_weights,
    require_consistent,
    require_curves,
)
from cvsct.methods.spectrum.block_filter import AddedVariance, filter_blocks
from cvsct.methods.spectrum.block_gains import BlockGains
from cvsct.methods.spectrum.clipped_noise import restore_clipped_noise
from cvsct.methods.spectrum.domain_position import LEAST_AXIS, remaining_share, scan_position
from cvsct.methods.spectrum.hu_offset import shift_soft_tissue
from cvsct.methods.spectrum.noise_field import NoiseField, series_key
from cvsct.methods.spectrum.noise_law import NoiseLaw, SideLaws
from cvsct.methods.spectrum.settings import SpectrumSettings
from cvsct.methods.spectrum.slice_filter import filter_slices
from cvsct.methods.volume_mapping import NoiseSynthesis, VolumeMapping
from cvsct.model.bundle import Bundle


def load_spectrum(bundle: Bundle, reverse: bool) -> VolumeMapping:
    """Load a `spectrum` model; the reverse direction has the inverse gains, equally limited.

    Two gains are scaled by the share of the way that a scan has still to go
    (`methods.spectrum.domain_position`).
    """
    frequencies, log_gain = bundle_weights(bundle, "frequencies_per_mm", "log_gain")
    require_curves(bundle, frequencies, log_gain)
    settings = bundle_settings(SpectrumSettings, bundle)
    sign = -1.0 if reverse else 1.0
    if "noise_log_gain" not in bundle.weights:
        cap = np.log(settings.max_gain)
        limited = np.clip(sign * log_gain, -cap, cap)
        return VolumeMapping(lambda volume: filter_slices(volume, frequencies, limited))
    noise, radial, structure, source, target = bundle_weights(
        bundle,
        "noise_log_gain",
        "noise_radial_log_gain",
        "structure_log_gain",
        "source_noise_log_power",
        "target_noise_log_power",
    )
    require_curves(bundle, frequencies, noise, radial, structure, source, target)
    all_noise = bundle.weights.get("all_noise_log_gain", np.stack([noise, -noise]))
    require_consistent(bundle, all_noise.shape == (2, len(noise)))
    gains = BlockGains.in_direction(
        frequencies, (noise, radial, structure), (source, target), (all_noise[0], all_noise[1]),
        settings.max_gain, reverse,
        _laws(bundle), synthesis=_synthesizes(bundle, settings),
    )  # fmt: skip
    tone_hu = sign * float(bundle.weights.get("tone_hu", np.zeros(1))[0])
    restored_share = settings.restore_clipped if gains.reduces_noise else 0.0

    def filtering(key: str, share: float = 1.0, remark: str = "") -> VolumeMapping:
        scaled = gains.scaled(share)
        variance = AddedVariance()

        def apply(volume: CTVolume) -> Float32[np.ndarray, "slices rows columns"]:
            if share == 0:
                return volume.hu.astype(np.float32)
            restored = restore_clipped_noise(volume, restored_share) if restored_share else volume
            field = NoiseField(key, volume.geometry.thickness_mm) if scaled.added else None
            filtered = filter_blocks(restored, scaled, field, variance)
            return shift_soft_tissue(filtered, share * tone_hu) if tone_hu else filtered

        synthesis = None
        if scaled.added and share > 0:
            synthesis = NoiseSynthesis(round(scaled.added_share, 4), lambda: variance.share)
        return VolumeMapping(apply, remark=remark, synthesis=synthesis)

    def fit(sample: CTVolume, seed: int | None = None) -> VolumeMapping:
        key = f"{series_key(sample) if seed is None else seed}/{bundle.sha256}"
        if not settings.pass_through:
            return filtering(key)
        try:
            position = scan_position(bundle, sample)
        except GeometryError:
            return filtering(key, remark="nothing to tell its texture by: filtered in full")
        share = remaining_share(position, reverse)
        if position.axis < LEAST_AXIS:
            return filtering(key, share)
        position_from = 1 - position.position if reverse else position.position
        action = "left as it is" if share == 0 else f"filtered for {share:.0%} of the way"
        remark = (
            "" if share == 1 else f"texture at {position_from:.2f} (source 1, target 0): {action}"
        )
        return replace(filtering(key, share, remark), position=position_from)

    unfitted = filtering(bundle.sha256)
    adapts = settings.pass_through or unfitted.synthesis is not None
    return replace(unfitted, fit=fit if adapts else None)


def _laws(bundle: Bundle) -> SideLaws:
    """Laws of noise of both sides; none in models of 0.2 and before, whose gains are constant."""
    if "noise_laws" not in bundle.weights:
        return SideLaws()
    laws, levels = bundle_weights(bundle, "noise_laws", "expected_log_noise")
    require_consistent(bundle, laws.shape == (2, 2) and levels.shape == (3,))
    source, target = (NoiseLaw(*map(float, law)) for law in laws)
    return SideLaws(source, target, *map(float, levels))


def _synthesizes(bundle: Bundle, settings: SpectrumSettings) -> bool:
    """Whether the model adds noise: two scanners whose gains one kernel does not explain."""
    one_kernel = bundle.weights.get("one_kernel")
    return settings.synthesis == "auto" and one_kernel is not None and not one_kernel.any()
