"""A `spectrum` model applied: noise and structure of a scan through the gains it learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from cvsct.core.errors import GeometryError
from cvsct.core.volume import CTVolume
from cvsct.methods.base import need_curves, settings_in, weights_of
from cvsct.methods.spectrum.block_filter import LocalGains, filter_locally
from cvsct.methods.spectrum.clipped_noise import with_clipped_noise
from cvsct.methods.spectrum.domain_position import LEAST_AXIS, scan_position, way_left
from cvsct.methods.spectrum.hu_offset import shifted
from cvsct.methods.spectrum.settings import SpectrumSettings
from cvsct.methods.spectrum.slice_filter import filter_slices
from cvsct.methods.volume_mapping import VolumeMapping
from cvsct.model.bundle import Bundle


def load_spectrum(bundle: Bundle, reverse: bool) -> VolumeMapping:
    """The filter of a model; the reverse has the inverse gains, under the same cap.

    Two gains are scaled by the share of the way that a scan has still to go
    (`methods.spectrum.domain_position`).
    """
    frequencies, log_gain = weights_of(bundle, "frequencies_per_mm", "log_gain")
    need_curves(bundle, frequencies, log_gain)
    settings = settings_in(SpectrumSettings, bundle)
    sign = -1.0 if reverse else 1.0
    if "noise_log_gain" not in bundle.weights:
        cap = np.log(settings.max_gain)
        limited = np.clip(sign * log_gain, -cap, cap)
        return VolumeMapping(lambda volume: filter_slices(volume, frequencies, limited))
    noise, radial, structure, source, target = weights_of(
        bundle,
        "noise_log_gain",
        "noise_radial_log_gain",
        "structure_log_gain",
        "source_noise_log_power",
        "target_noise_log_power",
    )
    need_curves(bundle, frequencies, noise, radial, structure, source, target)
    gains = LocalGains.one_way(
        frequencies, (noise, radial, structure), (source, target), settings.max_gain, reverse
    )
    tone_hu = sign * float(bundle.weights.get("tone_hu", np.zeros(1))[0])
    restored = settings.restore_clipped if gains.calms else 0.0

    def filtering(share: float, remark: str = "") -> VolumeMapping:
        scaled = gains.scaled(share)

        def apply(volume: CTVolume) -> Float32[np.ndarray, "slices rows columns"]:
            if share == 0:
                return volume.hu.astype(np.float32)
            whole = with_clipped_noise(volume, restored) if restored else volume
            filtered = filter_locally(whole, scaled)
            return shifted(filtered, share * tone_hu) if tone_hu else filtered

        return VolumeMapping(apply, remark=remark)

    def fit(sample: CTVolume) -> VolumeMapping:
        try:
            position = scan_position(bundle, sample)
        except GeometryError:
            return filtering(1.0, "nothing to tell its texture by: filtered in full")
        share = way_left(position, reverse)
        if position.axis < LEAST_AXIS:
            return filtering(share)
        at = 1 - position.position if reverse else position.position
        done = "left as it is" if share == 0 else f"filtered for {share:.0%} of the way"
        remark = "" if share == 1 else f"texture at {at:.2f} (source 1, target 0): {done}"
        return replace(filtering(share, remark), position=at)

    return replace(filtering(1.0), fit=fit if settings.pass_through else None)
