"""Comparison of images at the same place: whether two series show the same body.

Equal positions prove little: anonymizers remove frames of reference, and fixed fields of view and
table steps give the scans of two patients one grid. Equal Patient IDs prove little too (ANONYMOUS).
So the images are compared: borders of soft tissue, blurred until kernels and noise hardly count,
correlate by .95 to 1 between reconstructions, doses and scanners, and by .5 at most between
patients (docs/reference/evaluation.md; tests/core/test_same_body.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage

from cvsct.core.masks import AIR_TO_BONE, SOFT_TISSUE_BORDERS

LEAST_CORRELATION = 0.87
"""Least correlation, median over slices, of two series of one body. Measured for one body: above
.999 for two kernels of a real scan, .95 with 400 HU of noise added to one, .95 on two makers'
virtual scanners, .9 at 80 and 120 kVp. Real patients against others: .28 at most, virtual ones .53;
the same patient 8 mm further up: .67."""

FARTHEST_MM = 2.0
"""Largest shift in plane of one body, in the median slice; a pixel at least."""

BAND_MM = (3.0, 12.0)
"""Widths of the two Gaussians of the band-pass filter, which leaves borders of organs, and neither
noise nor the bulk of the body."""

LEAST_CONTRAST_HU = 15.0
"""Band-passed slices of which neither has more (root mean square) show too little to tell bodies
by; those of a chest have 35."""

MAX_SLICES = 12
"""Largest number of slices that are compared."""
STEPS = 3
"""Number of slices up and down in which a better match is looked for."""

COARSE_MM = 1.4
"""Pixel size to which slices of finer pixels are averaged first."""

LEAST_BLUR_PX = 0.8
"""Least width of the narrower Gaussian."""

MARGIN, FEW_SLICES, FEW_SLICES_MARGIN = 0.02, 3, 0.05
"""Amount by which another height must correlate better; larger where few slices are compared.
Heights at most 2 mm apart cannot be distinguished."""

Planes = Callable[[int], Shaped[np.ndarray, "rows columns"]]
"""Function that returns the HU of a slice, by its index."""


_CLEARLY_BETTER = 2 / 3
"""Another height fits better if what its correlation lacks to 1 is at most this share of before."""


@dataclass(frozen=True)
class Likeness:
    """Similarity of two series at the same positions.

    Args:
        correlation: correlation of band-passed slices at the same position, median over slices;
            None where no slice has enough contrast.
        moved_correlation: highest correlation that a shift in plane reaches, median over slices.
        shift_mm: that shift, in mm.
        steps: number of slices by which the second series must move up to match best; 0 where it
            is in place.
        pixel_mm: pixel size of the comparison, which limits the precision of the shift.
    """

    correlation: float | None
    moved_correlation: float = 0.0
    shift_mm: float = 0.0
    steps: int = 0
    pixel_mm: float = 1.0

    @property
    def difference(self) -> str:
        """How the series differ, as the end of a sentence; empty if they may show the same body."""
        if self.correlation is None:
            return ""
        figure = f"their edges correlate by {self.correlation:.2f}"
        if self.steps:
            return f"show other heights of a body ({figure}, better {abs(self.steps)} slices away)"
        far = self.shift_mm > max(FARTHEST_MM, self.pixel_mm)
        if far and self.moved_correlation >= LEAST_CORRELATION:
            return f"lie {self.shift_mm:.1f} mm apart in plane ({figure})"
        if self.correlation < LEAST_CORRELATION:
            return f"show different bodies ({figure}, those of one body by {LEAST_CORRELATION:g})"
        return ""


def likeness(
    first: Planes,
    second: Planes,
    slices: Sequence[tuple[int, int]],
    second_z_mm: Float[np.ndarray, " slices"],
    pixel_mm: float,
) -> Likeness:
    """Compare the images of two series at the same positions.

    Args:
        first: returns a slice of the first series.
        second: returns a slice of the second series.
        slices: pairs of slice indices at the same position.
        second_z_mm: positions of all slices of the second series, paired or not.
        pixel_mm: pixel size of both series.
    """
    spread_indices = np.linspace(0, len(slices) - 1, min(len(slices), MAX_SLICES))
    chosen = [slices[i] for i in np.unique(np.rint(spread_indices).astype(int))] if slices else []
    order = np.argsort(second_z_mm)
    rank = np.argsort(order)
    factor = max(1, int(COARSE_MM // pixel_mm))
    edges: dict[int, Float[np.ndarray, "rows columns"]] = {}

    def second_edges(index: int) -> Float[np.ndarray, "rows columns"]:
        if index not in edges:
            edges[index] = _edges(second(int(order[index])), pixel_mm, factor)
        return edges[index]

    correlations_by_step, shifted_correlations, shifts_mm = [], [], []
    for i, j in chosen:
        first_edges, position = _edges(first(i), pixel_mm, factor), int(rank[j])
        if max(np.std(first_edges), np.std(second_edges(position))) < LEAST_CONTRAST_HU:
            continue
        correlations_by_step.append(
            [
                _correlation(first_edges, second_edges(position + step))
                if 0 <= position + step < len(order)
                else np.nan
                for step in range(-STEPS, STEPS + 1)
            ]
        )
        peak, length_px = _best_shift(first_edges, second_edges(position))
        shifted_correlations.append(peak)
        shifts_mm.append(length_px * pixel_mm * factor)
    if not correlations_by_step:
        return Likeness(None)
    by_step = np.array(correlations_by_step)
    return Likeness(
        correlation=float(np.median(by_step[:, STEPS])),
        moved_correlation=float(np.median(shifted_correlations)),
        shift_mm=float(np.median(shifts_mm)),
        steps=_best_step(by_step),
        pixel_mm=pixel_mm * factor,
    )


def _edges(
    hu: Shaped[np.ndarray, "rows columns"], pixel_mm: float, factor: int
) -> Float[np.ndarray, "_ _"]:
    """Band-passed slice with the borders of organs, on a grid coarser by `factor`, with mean 0."""
    rows, columns = (n // factor * factor for n in hu.shape)
    limited = np.clip(hu[:rows, :columns].astype(np.float64), *AIR_TO_BONE.limits_hu)
    blocks = limited.reshape(rows // factor, factor, columns // factor, factor)
    fine_px, wide_px = (mm / (pixel_mm * factor) for mm in BAND_MM)
    fine_px = max(fine_px, LEAST_BLUR_PX)
    blurred = ndimage.gaussian_filter(blocks.mean(axis=(1, 3)), fine_px, mode="nearest")
    soft = np.clip(blurred, *SOFT_TISSUE_BORDERS.limits_hu)
    band = soft - ndimage.gaussian_filter(soft, max(wide_px, 3 * fine_px), mode="nearest")
    return np.asarray(band - band.mean())


def _correlation(
    a: Float[np.ndarray, "rows columns"], b: Float[np.ndarray, "rows columns"]
) -> float:
    length = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / length) if length else 0.0


def _best_shift(
    a: Float[np.ndarray, "rows columns"], b: Float[np.ndarray, "rows columns"]
) -> tuple[float, float]:
    """Highest correlation that a shift in plane reaches, and the length of the shift in pixels."""
    product = np.fft.rfft2(a) * np.conj(np.fft.rfft2(b))
    correlation = np.fft.irfft2(product, s=a.shape)
    peak = np.unravel_index(int(np.argmax(correlation)), a.shape)
    down, across = (
        int(shift) - (size if shift > size // 2 else 0)
        for shift, size in zip(peak, a.shape, strict=True)
    )
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    peak_value = float(correlation.max()) / length if length else 0.0
    return peak_value, float(np.hypot(down, across))


def _best_step(by_step: Float[np.ndarray, "chosen steps"]) -> int:
    """Number of slices to a height that matches clearly better; 0 where none does."""
    best, lack = 0, 1.0
    for column, step in enumerate(range(-STEPS, STEPS + 1)):
        compared = by_step[np.isfinite(by_step[:, column])]
        if step == 0 or not len(compared):
            continue
        lack_in_place, lack_at_step = (
            1 - float(np.median(compared[:, index])) for index in (STEPS, column)
        )
        margin = FEW_SLICES_MARGIN if len(compared) < FEW_SLICES else MARGIN
        if lack_at_step < min(lack, _CLEARLY_BETTER * lack_in_place, lack_in_place - margin):
            best, lack = step, lack_at_step
    return best
