"""Gains of noise and structure in one direction, and the noise that no gain can make.

Where one linear kernel explains both scanners, noise is amplified or damped as the kernel does it.
Where the target is noisier for another reason, such as dose or denoising of the source, amplified
noise would be what a denoiser left, blown up. Noise then gets at most the gain of structure, which
is the kernel's, and what is missing to the target's noise is added as new noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cvsct.methods.spectrum.noise_law import NO_LAW, NO_LAWS, NoiseLaw, SideLaws

Curve = Float[np.ndarray, " n"]

LEAST_ADDED = 0.05
"""Smallest share of the output's noise variance that is worth adding: less is the error of the fit,
and a direction towards less noise makes none."""


@dataclass(frozen=True)
class AddedNoise:
    """Noise of the output that amplification must not make.

    Args:
        most: log gain up to which noise is amplified; what is missing to `gain` is added.
        gain: log gain that would make all of the output's noise. `BlockGains.noise` is smooth and
            leans on structure's gain; what is added makes up for what was measured.
        log_power: log noise power of the output in HU² mm², at the reference of the laws.
        law: how that power follows expected noise.
    """

    most: Curve
    gain: Curve
    log_power: Curve
    law: NoiseLaw


def missing_share(
    gain: Float[np.ndarray, "*shape"],
    most: Float[np.ndarray, "..."],
    reached: Float[np.ndarray, "*shape"],
) -> Float[np.ndarray, "*shape"]:
    """Share of the output's noise power that amplification does not make, 0 to 1.

    Args:
        gain: log gain that would make all of it.
        most: log gain up to which noise is amplified; nothing is missing where it is enough.
        reached: log gain that noise has.
    """
    lacking = np.where(gain > most, gain - reached, 0.0)
    share: Float[np.ndarray, "*shape"] = -np.expm1(-2 * lacking)
    return share


@dataclass(frozen=True)
class BlockGains:
    """Log gains of noise and structure in one direction, and the noise power of the input.

    Args:
        noise: at 100 mm from the middle of the image, and where expected noise is the reference.
        noise_radial: added for each (100 mm)² of the distance squared less one.
        noise_log_power: in HU² mm², up to a level that each image tells by itself.
        max_gain: neither noise nor structure is amplified or damped more than this.
        law: how the log gain of noise follows expected noise.
        laws: of both sides, for the reference and the range in which they were measured.
        added: noise to be added; None where amplification makes all of it.
    """

    frequencies_per_mm: Curve
    noise: Curve
    noise_radial: Curve
    structure: Curve
    noise_log_power: Curve
    max_gain: float
    law: NoiseLaw = NO_LAW
    laws: SideLaws = NO_LAWS
    added: AddedNoise | None = None

    @classmethod
    def in_direction(
        cls,
        frequencies_per_mm: Curve,
        log_gains: tuple[Curve, Curve, Curve],
        noise_log_powers: tuple[Curve, Curve],
        all_noise_log_gains: tuple[Curve, Curve],
        max_gain: float,
        reverse: bool,
        laws: SideLaws = NO_LAWS,
        synthesis: bool = False,
    ) -> BlockGains:
        """Gains from source to target, or their inverses for the reverse direction.

        Args:
            log_gains: of noise, its change with radius, and of structure, from source to target.
            noise_log_powers: of source and target.
            all_noise_log_gains: that make all noise (`AddedNoise.gain`), to the target and back.
            laws: of source and target.
            synthesis: whether noise is added where structure's gain does not make it.
        """
        noise, noise_radial, structure = (
            -log_gain if reverse else log_gain for log_gain in log_gains
        )
        before, after = noise_log_powers[::-1] if reverse else noise_log_powers
        all_noise = all_noise_log_gains[1] if reverse else all_noise_log_gains[0]
        law_before, law_after = (
            (laws.target, laws.source) if reverse else (laws.source, laws.target)
        )
        gains = cls(
            frequencies_per_mm, noise, noise_radial, structure, before, max_gain,
            law=NoiseLaw(
                0.5 * (law_after.between - law_before.between),
                0.5 * (law_after.within - law_before.within),
            ),
            laws=laws,
            added=AddedNoise(structure, all_noise, after, law_after)
            if synthesis
            else None,
        )  # fmt: skip
        return gains if gains.added_share >= LEAST_ADDED else replace(gains, added=None)

    @property
    def reduces_noise(self) -> bool:
        """Whether the filter lowers the variance of noise."""
        f, power = self.frequencies_per_mm, np.exp(self.noise_log_power)
        return bool(np.sum(f * power * np.expm1(2 * self.noise)) < 0)

    @property
    def added_share(self) -> float:
        """Share of the output's noise variance that is added, as the fit predicts it, 0 to 1."""
        if self.added is None:
            return 0.0
        power = self.frequencies_per_mm * np.exp(self.added.log_power)
        reached = np.minimum(self.noise, self.added.most)
        missing = missing_share(self.added.gain, self.added.most, reached)
        return float(np.sum(power * missing) / np.sum(power))

    def for_noise(self, offset: float) -> BlockGains:
        """Gains for a scan whose log noise power is so much more than its side's."""
        if offset == 0:
            return self
        added = self.added and replace(self.added, gain=self.added.gain - 0.5 * offset)
        return replace(self, noise=self.noise - 0.5 * offset, added=added)

    def scaled(self, share: float) -> BlockGains:
        """Gains for part of the way to the other domain: 1 is all of it, 0 none."""
        rest = 2 * (1 - share)
        added = self.added and AddedNoise(
            most=share * self.added.most,
            gain=share * self.added.gain,
            log_power=self.added.log_power - rest * self.added.gain,
            law=NoiseLaw(
                self.added.law.between - rest * self.law.between,
                self.added.law.within - rest * self.law.within,
            ),
        )
        return replace(
            self,
            noise=share * self.noise,
            noise_radial=share * self.noise_radial,
            structure=share * self.structure,
            law=NoiseLaw(share * self.law.between, share * self.law.within),
            added=added,
        )
