"""Application of a `spectrum` model: filter noise and structure of a scan by its gains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32

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
from cvsct.methods.spectrum.fit_ensemble import repeated_mappings
from cvsct.methods.spectrum.hu_offset import shift_soft_tissue
from cvsct.methods.spectrum.noise_field import NoiseField, series_key
from cvsct.methods.spectrum.noise_law import NoiseLaw, SideLaws
from cvsct.methods.spectrum.scan_noise import noise_offset
from cvsct.methods.spectrum.separate_gains import ALL_MISSING_PER_MM
from cvsct.methods.spectrum.settings import SpectrumSettings
from cvsct.methods.spectrum.slice_filter import filter_slices
from cvsct.methods.spectrum.tone import apply_tone, reversed_tone
from cvsct.methods.volume_mapping import Engine, NoiseSynthesis, RepeatedMapping, VolumeMapping
from cvsct.model.bundle import Bundle

Slices = Float32[np.ndarray, "slices rows columns"]


def _no_remark(_: CTVolume) -> str:
    return ""


@dataclass(frozen=True)
class AfterFilter:
    """What changes filtered slices further, each by itself.

    Args:
        change: makes changed slices of the source, its slices filtered before noise is added and
            with that noise, and the share of the way that the filter went, above 0 and up to 1.
        engine: of its network, where it has one.
        remark: what is to be said of its part in one scan; nothing where it does what it always
            does.
    """

    change: Callable[[CTVolume, Slices, Slices, float], Slices]
    engine: Engine | None = None
    remark: Callable[[CTVolume], str] = _no_remark


def load_spectrum(bundle: Bundle, reverse: bool, after: AfterFilter | None = None) -> VolumeMapping:
    """Load a `spectrum` model; the reverse direction has the inverse gains, equally limited.

    Two gains are scaled by the share of the way that a scan has still to go
    (`methods.spectrum.domain_position`).

    Args:
        after: changes what two gains have filtered.
    """
    frequencies, log_gain = bundle_weights(bundle, "frequencies_per_mm", "log_gain")
    require_curves(bundle, frequencies, log_gain)
    if "noise_log_gain" in bundle.weights:
        return _SeparateFilter.of(bundle, frequencies, reverse, after).mapping()
    cap = np.log(bundle_settings(SpectrumSettings, bundle).max_gain)
    limited = np.clip(-log_gain if reverse else log_gain, -cap, cap)
    return VolumeMapping(lambda volume: filter_slices(volume, frequencies, limited))


def load_repeated(bundle: Bundle, reverse: bool) -> tuple[RepeatedMapping, ...]:
    """Mappings of a model's repeated fits, each without some of its patients; see `fit_ensemble`.

    All add the same noise as the model itself.

    Raises:
        ModelError: if arrays are missing or do not fit each other.
    """
    return repeated_mappings(bundle, lambda repeated: load_spectrum(repeated, reverse))


@dataclass(frozen=True)
class _SeparateFilter:
    """Filter with separate gains for noise and structure, in one direction.

    Args:
        tone_hu: shift of soft tissue at 0 HU, of CT numbers in proportion to HU + 1000.
        tone_curve: CT numbers and what is added to each.
        after: changes what is filtered.
    """

    bundle: Bundle
    settings: SpectrumSettings
    reverse: bool
    gains: BlockGains
    tone_hu: float
    tone_curve: Float[np.ndarray, "points 2"] | None
    after: AfterFilter | None = None

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        frequencies: Float[np.ndarray, " n"],
        reverse: bool,
        after: AfterFilter | None,
    ) -> _SeparateFilter:
        """Read a model's gains.

        Raises:
            ModelError: if arrays are missing or do not fit each other.
        """
        settings = bundle_settings(SpectrumSettings, bundle)
        noise, radial, structure, source, target = bundle_weights(
            bundle,
            "noise_log_gain",
            "noise_radial_log_gain",
            "structure_log_gain",
            "source_noise_log_power",
            "target_noise_log_power",
        )
        require_curves(bundle, frequencies, noise, radial, structure, source, target)
        held_back = np.minimum(frequencies / ALL_MISSING_PER_MM, 1.0)  # in models without the gains
        all_noise = np.asarray(
            bundle.weights.get("all_noise_log_gain", np.stack([noise, -noise]) * held_back),
            dtype=np.float64,
        )
        require_consistent(bundle, all_noise.shape == (2, len(noise)))
        gains = BlockGains.in_direction(
            frequencies, (noise, radial, structure), (source, target), (all_noise[0], all_noise[1]),
            settings.max_gain, reverse, _laws(bundle), synthesis=_synthesizes(bundle, settings),
        )  # fmt: skip
        tone_hu = float(bundle.weights.get("tone_hu", np.zeros(1))[0])
        curve = bundle.weights.get("tone_curve")
        if curve is not None:
            require_consistent(bundle, curve.ndim == 2 and curve.shape[1] == 2 and len(curve) > 1)
            curve = curve.astype(np.float64)
            for way in (curve, reversed_tone(curve)):
                require_consistent(bundle, bool(np.all(np.diff(way[:, 0]) > 0)))
            curve = reversed_tone(curve) if reverse else curve
        tone_hu = -tone_hu if reverse else tone_hu
        return cls(bundle, settings, reverse, gains, tone_hu, curve, after)

    def mapping(self) -> VolumeMapping:
        """Mapping of any scan, which adapts to each as far as the settings say."""
        unfitted = self._mapping(self.bundle.sha256, self.gains)
        adapts = (
            self.settings.pass_through
            or self.settings.dose_level != "fixed"
            or unfitted.synthesis is not None
        )
        return replace(unfitted, fit=self._fit if adapts else None)

    def _fit(self, sample: CTVolume, seed: int | None = None) -> VolumeMapping:
        """Mapping of one scan."""
        key = f"{series_key(sample) if seed is None else seed}/{self.bundle.sha256}"
        share, remark, position_from = 1.0, "", None
        if self.settings.pass_through:
            try:
                position = scan_position(self.bundle, sample)
            except GeometryError:
                remark = "nothing to tell its texture by: filtered in full"
            else:
                share = remaining_share(position, self.reverse)
                if position.axis >= LEAST_AXIS:
                    position_from = 1 - position.position if self.reverse else position.position
        gains = self.gains
        if (
            share == 1
        ):  # else its noise counts in the position: what is left of the way is left of it
            gains, noise_remark = self._for_noise_of(sample)
            remark = "; ".join(filter(None, (remark, noise_remark)))
        else:
            action = "left as it is" if share == 0 else f"filtered for {share:.0%} of the way"
            remark = f"texture at {position_from:.2f} (source 1, target 0): {action}"
        if self.after is not None and share > 0:
            remark = "; ".join(filter(None, (remark, self.after.remark(sample))))
        return replace(self._mapping(key, gains, share, remark), position=position_from)

    def _for_noise_of(self, sample: CTVolume) -> tuple[BlockGains, str]:
        """Gains for the dose of a scan, and what to say of it."""
        if self.settings.dose_level == "fixed":
            return self.gains, ""
        laws = self.gains.laws
        law = laws.target if self.reverse else laws.source
        offset = noise_offset(
            sample, self.gains.frequencies_per_mm, self.gains.noise_log_power, law, laws
        )
        if offset is None:
            remark = "too little soft tissue to measure its noise: filtered for its side's dose"
            return self.gains, remark
        remark = f"noise {np.exp(0.5 * offset):.2f} times that of its side"
        return self.gains.for_noise(offset), remark

    def _mapping(
        self, key: str, gains: BlockGains, share: float = 1.0, remark: str = ""
    ) -> VolumeMapping:
        """Mapping by a share of some gains, with noise by a key."""
        scaled = gains.scaled(share)
        restored_share = self.settings.restore_clipped if gains.reduces_noise else 0.0
        variance = AddedVariance()

        def apply(volume: CTVolume) -> Float32[np.ndarray, "slices rows columns"]:
            if share == 0:
                return volume.hu.astype(np.float32)
            restored = restore_clipped_noise(volume, restored_share) if restored_share else volume
            field = NoiseField(key, volume.geometry.thickness_mm) if scaled.added else None
            if self.after is None:
                return self._toned(filter_blocks(restored, scaled, field, variance), share)
            before = np.empty(volume.hu.shape, dtype=np.float32)
            filtered = filter_blocks(restored, scaled, field, variance, before)
            return self.after.change(
                volume, self._toned(before, share), self._toned(filtered, share), share
            )

        synthesis = None
        if scaled.added and share > 0:
            synthesis = NoiseSynthesis(round(scaled.added_share, 4), lambda: variance.share)
        engine = None if self.after is None else self.after.engine
        return VolumeMapping(apply, engine=engine, remark=remark, synthesis=synthesis)

    def _toned(
        self, filtered: Float32[np.ndarray, "slices rows columns"], share: float
    ) -> Float32[np.ndarray, "slices rows columns"]:
        """Filtered slices with a share of the shifts of CT numbers."""
        if self.tone_curve is not None:
            filtered = apply_tone(filtered, self.tone_curve, share)
        tone_hu = share * self.tone_hu
        return shift_soft_tissue(filtered, tone_hu) if tone_hu else filtered


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
