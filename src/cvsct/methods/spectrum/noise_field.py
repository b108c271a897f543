"""White noise that depends on nothing but a key and a position along z.

Noise that is added to images must come out the same whatever the order, the number of slices at a
time and the machine. It is therefore not drawn from a running generator: the noise of each
position is computed from a key of its own. The position axis is cut into steps, each with a field
of white noise; the noise of a slice is the sum over the steps that the slice covers, so that
overlapping slices share noise as they share photons.

The field of a step: Philox 4x64-10 (Salmon et al. 2011, doi 10.1145/2063384.2063405) with the
first 16 bytes of SHA-256 of "key/z" as its key and a counter from zero gives 64 bits for each
pixel in row order; the four 16-bit integers of these are added, less their mean, and divided by
their standard deviation. That is a normal distribution but for its tails (kurtosis -0.3), computed
in integers. Sum over steps and filtering make it normal.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from cvsct.core.volume import CTVolume

STEPS_PER_SLICE = 4
"""Steps of a slice thickness; their number bounds how finely overlap is told."""

UNIT_MM = 0.01
"""Unit in which positions are told apart."""

WORDS = 4
WORD_SD = ((2.0**16) ** 2 - 1) ** 0.5 / 12**0.5
"""16-bit integers that are added for each pixel, and the standard deviation of one of them."""


@dataclass
class NoiseField:
    """Noise of one series: unit variance, white in the plane, shared between overlapping slices.

    Args:
        key: of the series and of all else that distinguishes this noise from other noise.
        thickness_mm: of the slices; 0 where it is not known: then slices share no noise.
    """

    key: str
    thickness_mm: float
    _steps: dict[int, Float32[np.ndarray, "rows columns"]] = field(default_factory=dict, repr=False)

    def slice_noise(
        self, z_mm: float, shape: tuple[int, int]
    ) -> Float32[np.ndarray, "rows columns"]:
        """Noise of the slice at a position, of unit variance."""
        middle = round(z_mm / UNIT_MM)
        step = round(self.thickness_mm / UNIT_MM / STEPS_PER_SLICE)
        if step == 0:
            return self._step(middle, shape)
        first, last = middle - step * STEPS_PER_SLICE / 2, middle + step * STEPS_PER_SLICE / 2
        numbers = range(int(first // step), int(-(-last // step)))
        covered = [
            (min(last, (number + 1) * step) - max(first, number * step)) / step
            for number in numbers
        ]
        self._steps = {n: kept for n, kept in self._steps.items() if n in numbers}
        total = np.zeros(shape, dtype=np.float32)
        for number, share in zip(numbers, covered, strict=True):
            if number not in self._steps:
                self._steps[number] = self._step(number * step, shape)
            total += np.float32(share / np.hypot.reduce(covered)) * self._steps[number]
        return total

    def _step(self, position: int, shape: tuple[int, int]) -> Float32[np.ndarray, "rows columns"]:
        """White noise of one step, by its position in units of `UNIT_MM`."""
        digest = hashlib.sha256(f"{self.key}/{position}".encode()).digest()
        philox = np.random.Philox(key=int.from_bytes(digest[:16], "little"), counter=0)
        words = philox.random_raw(shape[0] * shape[1]).astype("<u8", copy=False).view("<u2")
        total = np.zeros(shape, dtype=np.int32)
        for first in range(WORDS):
            total += words[first::WORDS].reshape(shape)
        mean = WORDS * (2**16 - 1) // 2
        return (total - mean).astype(np.float32) * np.float32(1 / (WORD_SD * WORDS**0.5))


def series_key(volume: CTVolume) -> str:
    """Key of a series: its Series Instance UID, or a hash of its CT numbers.

    Args:
        volume: the series, or the sample of its slices that represents it.
    """
    if volume.series_uid:
        return volume.series_uid
    return hashlib.sha256(np.ascontiguousarray(volume.hu, dtype="<f4").tobytes()).hexdigest()
