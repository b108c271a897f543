"""Whether two series that lie at the same place also show the same body there.

Equal positions prove little: anonymisers remove frames of reference, and fixed fields of view and
table steps give the scans of two patients one grid. Equal Patient IDs prove little too (ANONYMOUS).
So the images are compared: borders of soft tissue, blurred until kernels and noise hardly count,
correlate by .95 to 1 between reconstructions, doses and scanners, and by .5 at most between
patients (docs/evaluation.md; tests/core/test_same_body.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage

from cvsct.core.masks import AIR_TO_BONE, SOFT_TISSUE_BORDERS

LEAST_CORRELATION = 0.87
"""Median over slices. One body: above .999 for two kernels of a real scan, .95 with 400 HU of noise
added to one, .95 on two makers' virtual scanners, .9 at 80 and 120 kVp. Real patients against
others: .28 at most, virtual ones .53; the same patient 8 mm further up: .67."""

FARTHEST_MM = 2.0
"""In plane, of the median slice; a pixel at least."""

BAND_MM = (3.0, 12.0)
"""A Gaussian less a wider one: borders of organs, neither noise nor the bulk of the body."""

LEAST_CONTRAST_HU = 15.0
"""Band-passed slices of which neither has more (root mean square) show too little to tell bodies
by; those of a chest have 35."""

MAX_SLICES = 12
STEPS = 3
"""Slices up and down in which a better match is looked for."""

COARSE_MM = 1.4
"""Slices of finer pixels are averaged to about this first."""

LEAST_BLUR_PX = 0.8

MARGIN, FEW_SLICES, FEW_SLICES_MARGIN = 0.02, 3, 0.05
"""By how much another height must correlate better; more where few slices are compared. Heights
2 mm apart and less are not told apart."""

Planes = Callable[[int], Shaped[np.ndarray, "rows columns"]]
"""HU of a slice by its number."""


_CLEARLY_BETTER = 2 / 3
"""Of what a correlation lacks to 1, the share that may be left where another height fits better."""


@dataclass(frozen=True)
class Likeness:
    """How alike two series are where they should show the same.

    Args:
        correlation: of band-passed slices in place, median; None where none shows enough to tell.
        moved_correlation: the highest that a shift in plane reaches, median.
        shift_mm: that shift.
        steps: slices by which the second series must go up to match best; 0 where it is in place.
        pixel_mm: what a shift is counted in.
    """

    correlation: float | None
    moved_correlation: float = 0.0
    shift_mm: float = 0.0
    steps: int = 0
    pixel_mm: float = 1.0

    @property
    def difference(self) -> str:
        """Why they do not show the same, as the end of a sentence; empty where they do or may."""
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
    """Compare slices that lie at one place.

    Args:
        slices: numbers of those of both series.
        second_z_mm: heights of all slices of the second series, paired or not.
        pixel_mm: of both.
    """
    most = np.linspace(0, len(slices) - 1, min(len(slices), MAX_SLICES))
    chosen = [slices[i] for i in np.unique(np.rint(most).astype(int))] if slices else []
    order = np.argsort(second_z_mm)
    rank = np.argsort(order)
    factor = max(1, int(COARSE_MM // pixel_mm))
    edges: dict[int, Float[np.ndarray, "rows columns"]] = {}

    def other(place: int) -> Float[np.ndarray, "rows columns"]:
        if place not in edges:
            edges[place] = _edges(second(int(order[place])), pixel_mm, factor)
        return edges[place]

    steps, moved, shifts_mm = [], [], []
    for i, j in chosen:
        mine, at = _edges(first(i), pixel_mm, factor), int(rank[j])
        if max(np.std(mine), np.std(other(at))) < LEAST_CONTRAST_HU:
            continue
        steps.append(
            [
                _correlation(mine, other(at + step)) if 0 <= at + step < len(order) else np.nan
                for step in range(-STEPS, STEPS + 1)
            ]
        )
        peak, length_px = _best_shift(mine, other(at))
        moved.append(peak)
        shifts_mm.append(length_px * pixel_mm * factor)
    if not steps:
        return Likeness(None)
    by_step = np.array(steps)
    return Likeness(
        correlation=float(np.median(by_step[:, STEPS])),
        moved_correlation=float(np.median(moved)),
        shift_mm=float(np.median(shifts_mm)),
        steps=_best_step(by_step),
        pixel_mm=pixel_mm * factor,
    )


def _edges(
    hu: Shaped[np.ndarray, "rows columns"], pixel_mm: float, factor: int
) -> Float[np.ndarray, "_ _"]:
    """Borders of organs, on a grid coarser by a whole factor, with mean 0."""
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
    """The highest correlation that a shift in plane reaches, and the shift's length in pixels."""
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
    """Steps to a height that matches clearly better than the slices' own; 0 where none does."""
    best, lack = 0, 1.0
    for column, step in enumerate(range(-STEPS, STEPS + 1)):
        both = by_step[np.isfinite(by_step[:, column])]
        if step == 0 or not len(both):
            continue
        here, there = (1 - float(np.median(both[:, at])) for at in (STEPS, column))
        margin = FEW_SLICES_MARGIN if len(both) < FEW_SLICES else MARGIN
        if there < min(lack, _CLEARLY_BETTER * here, here - margin):
            best, lack = step, there
    return best
