"""Shift between two images to a fraction of a pixel.

It is the peak of the cross-correlation of band-passed, windowed images, found on a finer grid by a
matrix Fourier transform (Guizar-Sicairos, Thurman and Fienup, Opt Lett 33, 2008). The band-pass
removes the body's bulk, whose correlation has too broad a peak, and the frequencies at which
kernels and noise differ. There is no phase normalization, which would give frequencies of pure
noise the weight of those of edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.fft
from jaxtyping import Complex, Float

from cvsct.core.errors import EvaluationError
from cvsct.core.fourier import (
    fast_shape,
    gaussian_radius,
    gaussian_transfer,
    image_of,
    spectrum_of,
    tukey,
)
from cvsct.core.masks import AIR_TO_VESSELS
from cvsct.core.volume import CTVolume

BAND_SIGMAS_PX = (1.5, 6.0)
"""Standard deviations of the two Gaussians whose difference is the band-pass. It passes 0.02 to
0.12 cycles/px, where edges are and noise is low."""

TAPER = 0.2
"""Share of a slice's side over which its borders are faded out, half of it at each end."""

SEARCHES_PX = ((0.1, 0.7), (0.01, 0.1))
"""Steps of the searches for the peak, each with its reach to either side of the one before. The
band-pass leaves a peak several pixels wide, so that a coarse grid cannot miss it."""

MIN_CONTRAST_HU = 1.0
"""Smallest root mean square of a band-passed slice that can be aligned."""


@dataclass(frozen=True)
class Alignment:
    """Shift of images against their reference in pixels, down rows and across columns.

    Args:
        median_px: median over slices, in each direction.
        length_px: length of that median shift.
        worst_px: largest shift of a single slice.
        n_slices: number of slices measured.
        slices_px: shift of each slice; NaN where it has no contrast to align.
    """

    median_px: tuple[float, float]
    length_px: float
    worst_px: float
    n_slices: int
    slices_px: Float[np.ndarray, "slices 2"] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values, without those of single slices."""
        down, across = self.median_px
        return {
            "down_px": down,
            "across_px": across,
            "length_px": self.length_px,
            "worst_px": self.worst_px,
            "n_slices": self.n_slices,
        }


def slice_shift_px(
    image_hu: Float[np.ndarray, "rows columns"], reference_hu: Float[np.ndarray, "rows columns"]
) -> tuple[float, float] | None:
    """Shift of an image against a reference, down rows and across columns, in pixels.

    It is accurate to 0.02 px for images that differ by kernel and noise
    (tests/evaluation/test_alignment.py).

    Returns:
        None where an image has no contrast to align.
    """
    return _shift_px(_Band.of(image_hu), _Band.of(reference_hu))


def alignment(pairs: Sequence[tuple[CTVolume, CTVolume]]) -> Alignment | None:
    """Measure the shift of every slice and its median; None where no slice has contrast to align.

    Args:
        pairs: volume and its reference (its source, or the target), slice by slice.

    Raises:
        EvaluationError: if a pair's slices differ in number or size.
    """
    stacks = [{"image": image, "reference": reference} for image, reference in pairs]
    return alignments(stacks, {"shift": ("image", "reference")})["shift"]


def alignments(
    stacks: Sequence[Mapping[str, CTVolume]], wanted: Mapping[str, tuple[str, str]]
) -> dict[str, Alignment | None]:
    """`alignment` of several pairs of sides; each slice is band-passed and transformed once.

    Args:
        stacks: volumes by side, which show the same slices.
        wanted: image and reference by the name of the result.

    Raises:
        EvaluationError: if a pair's slices differ in number or size.
    """
    shifts: dict[str, list[tuple[float, float]]] = {name: [] for name in wanted}
    for stack in stacks:
        for image, reference in wanted.values():
            shapes = stack[image].hu.shape, stack[reference].hu.shape
            if shapes[0] != shapes[1]:
                raise EvaluationError(
                    f"a stack of {shapes[0]} voxels cannot be aligned with one of {shapes[1]}; "
                    "cut both to the slices they share"
                )
        sides = dict.fromkeys(side for pair in wanted.values() for side in pair)
        for index in range(len(stack[next(iter(sides))].hu) if sides else 0):
            bands = {side: _Band.of(stack[side].hu[index]) for side in sides}
            for name, (image, reference) in wanted.items():
                shift = _shift_px(bands[image], bands[reference])
                shifts[name].append(shift or (np.nan, np.nan))
    return {name: _summary(shifts_of_pair) for name, shifts_of_pair in shifts.items()}


def _summary(shifts: Sequence[tuple[float, float]]) -> Alignment | None:
    """Alignment from the shift of each slice; None where none was measured."""
    slices = np.array(shifts, dtype=np.float64).reshape(-1, 2)
    measured = slices[np.isfinite(slices).all(axis=1)]
    if not len(measured):
        return None
    down, across = (float(value) for value in np.median(measured, axis=0))
    return Alignment(
        median_px=(down, across),
        length_px=float(np.hypot(down, across)),
        worst_px=float(np.hypot(*measured.T).max()),
        n_slices=len(measured),
        slices_px=slices,
    )


@dataclass(frozen=True)
class _Band:
    """A slice band-passed to edges of moderate sharpness and faded out at its borders.

    Args:
        shape: rows and columns of the slice.
        spectrum: its transform, without the redundant half.
        sd_hu: its standard deviation.
    """

    shape: tuple[int, int]
    spectrum: Complex[np.ndarray, "rows half_columns"]
    sd_hu: float

    @classmethod
    def of(cls, hu: Float[np.ndarray, "rows columns"]) -> _Band:
        clipped = np.clip(hu.astype(np.float64), *AIR_TO_VESSELS.limits_hu)
        rows, columns = hu.shape
        reach = gaussian_radius(BAND_SIGMAS_PX[1])
        shape = fast_shape(hu.shape, 2 * reach)
        fill = [(reach, size - reach - n) for size, n in zip(shape, hu.shape, strict=True)]
        fine, coarse = (gaussian_transfer(shape, sigma_px) for sigma_px in BAND_SIGMAS_PX)
        padded = spectrum_of(np.pad(clipped, fill, mode="edge"), shape)
        band = image_of(padded * (fine - coarse), shape)[
            reach : reach + rows, reach : reach + columns
        ]
        band = band * (tukey(rows, TAPER)[:, None] * tukey(columns, TAPER))
        return cls((rows, columns), spectrum_of(band, (rows, columns)), float(np.std(band)))


def _shift_px(image: _Band, reference: _Band) -> tuple[float, float] | None:
    """Shift of an image against a reference; None where one has no contrast to align."""
    if min(image.sd_hu, reference.sd_hu) < MIN_CONTRAST_HU:
        return None
    product = image.spectrum * reference.spectrum.conj()
    correlation = np.abs(image_of(product, image.shape))
    peak = np.unravel_index(int(np.argmax(correlation)), image.shape)
    whole = [
        float(position) - (size if position > size // 2 else 0)
        for position, size in zip(peak, image.shape, strict=True)
    ]
    columns = image.shape[1]
    weight = np.full(product.shape[1], 2.0)  # each coefficient also stands for its conjugate
    weight[0] = 1.0
    if columns % 2 == 0:
        weight[-1] = 1.0
    f_down, f_across = scipy.fft.fftfreq(image.shape[0]), scipy.fft.rfftfreq(columns)
    down_px, across_px = whole
    for step_px, reach_px in SEARCHES_PX:
        count = round(reach_px / step_px)
        steps = np.arange(-count, count + 1) * step_px
        down = _waves(down_px + steps, f_down)
        across = _waves(across_px + steps, f_across) * weight
        finer = np.abs(((down @ product) @ across.T).real)
        row, column = np.unravel_index(int(np.argmax(finer)), finer.shape)
        down_px, across_px = down_px + steps[row], across_px + steps[column]
    return round(float(down_px), 2), round(float(across_px), 2)


def _waves(
    positions_px: Float[np.ndarray, " positions"], f_per_px: Float[np.ndarray, " frequencies"]
) -> Complex[np.ndarray, "positions frequencies"]:
    """Waves of each frequency at positions between pixels."""
    return np.asarray(np.exp(2j * np.pi * np.outer(positions_px, f_per_px)))
