"""Texture power spectra: the share of an image's variance at each spatial frequency.

Reconstruction kernels are defined per millimeter, so every spectrum here is a function of
cycles/mm and scans of different pixel spacing share one frequency axis. Values are noise power
spectra in HU² mm² (ICRU Report 87, section 4): white noise of variance v on pixels of area a
reads v a at every frequency.

Three rules matter (notebook/log.md has the figures): nothing is clipped before the transform, each
patch is windowed (the body crosses patch edges, and leakage from there swamps the high
frequencies), and patches are chosen on a blurred image (on raw HU the noise does the choosing).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float, Int

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import body, covered_fraction, soft_tissue
from cvsct.core.volume import CTVolume

Tissue = Literal["soft", "body"]

EULER_GAMMA = float(np.euler_gamma)
POWER_FLOOR_HU2_MM2 = 1e-6
"""Least power, which keeps logarithms finite; far below the rounding of CT numbers to 1 HU (about
0.03 HU² mm²)."""

DB_PER_NEPER = 10 / np.log(10)
"""Decibels of power for a difference of 1 in its natural logarithm."""

DISTANCE_BAND_PER_PX = (0.05, 0.45)
"""Band of frequencies in which spectra are compared, in cycles per pixel: below it lies anatomy,
above it the corner of the pixel grid."""


AT_TARGET_BELOW = 0.2
"""Position up to which a scan is taken to have the texture of the target already.

Scans of a source read .9 and more, those of a target .15 and less (notebook/decisions/012).
"""


@dataclass(frozen=True)
class Position:
    """Position of a scan's texture between the source and the target of a model.

    Args:
        position: 1 for the texture of the source, 0 for the target; kernel and noise level count.
        off_axis: rms difference in log power from the line between the two; large for a scan of
            another kind.
        axis: rms difference in log power between source and target.
    """

    position: float
    off_axis: float
    axis: float


def position_between(
    log_power: Float[np.ndarray, " n"],
    middle: Float[np.ndarray, " n"],
    axis: Float[np.ndarray, " n"],
) -> Position:
    """Project a spectrum on the line from the target's spectrum (0) to the source's (1).

    Args:
        log_power: log power of the scan, finite; all three share one logarithmic unit.
        middle: log power half-way between the means of source and target.
        axis: log power of the source less that of the target.
    """
    offset = log_power - middle
    along = float(offset @ axis) / max(float(axis @ axis), 1e-12)
    return Position(
        0.5 + along,
        float(np.sqrt(np.mean((offset - along * axis) ** 2))),
        float(np.sqrt(np.mean(axis**2))),
    )


@dataclass(frozen=True)
class PatchSpectra:
    """Power spectra of the patches of a volume, with their mean HU and positions.

    Args:
        log_power: natural log of power in HU² mm², averaged around circles; NaN where the pixel
            grid has no such frequency, and at zero.
        mean_hu: mean of each patch under its window.
        corners: slice, first row and first column of each patch.
        size_px: side of the patches.
    """

    log_power: Float[np.ndarray, "patches n"]
    mean_hu: Float[np.ndarray, " patches"]
    corners: Int[np.ndarray, "patches 3"]
    size_px: int


def patch_spectra(
    volume: CTVolume,
    frequencies_per_mm: Float[np.ndarray, " n"],
    size_px: int = 64,
    tissue: Tissue = "soft",
    min_fraction: float = 0.95,
    mask: Bool[np.ndarray, "slices rows columns"] | None = None,
) -> PatchSpectra:
    """Measure the power spectrum of each patch of tissue in a volume.

    The log of each 2-D coefficient is averaged, so that means over patches are geometric and a
    vessel or rib in one of them weighs little. For Gaussian noise that mean lies Euler's gamma
    below the log of the power (the coefficients are exponentially distributed); it is added back.

    Args:
        volume: HU of shape (slices, rows, columns).
        frequencies_per_mm: frequencies at which to measure, in cycles/mm.
        size_px: side of the patches, which overlap by half.
        tissue: `soft` for patches of soft tissue, `body` for all within the patient.
        min_fraction: the share of a patch that must be that tissue.
        mask: voxels of that tissue, where they are known; None finds them.

    Returns:
        Patches in slice order; none where there is no such tissue.
    """
    rows_mm, columns_mm = volume.geometry.pixel_mm
    average, reached = _circles(tuple(frequencies_per_mm), size_px, rows_mm, columns_mm)
    window = np.hanning(size_px + 2)[1:-1].astype(np.float32)
    taper = window[:, None] * window
    scale = rows_mm * columns_mm / float(np.sum(taper.astype(np.float64) ** 2))
    if mask is None:
        mask = soft_tissue(volume.hu) if tissue == "soft" else body(volume.hu)
    if volume.padding is not None:
        mask = mask & ~volume.padding
    step = max(size_px // 2, 1)
    allowed = covered_fraction(mask, size_px, step) >= min_fraction
    log_powers = [np.empty((0, len(frequencies_per_mm)))]
    means = [np.empty(0)]
    for plane, starts in zip(volume.hu, allowed, strict=True):
        if not starts.any():
            continue
        views = np.lib.stride_tricks.sliding_window_view(plane, (size_px, size_px))
        patches = views[::step, ::step][starts].astype(np.float32)
        mean_hu = np.average(patches.reshape(len(patches), -1), axis=1, weights=taper.ravel())
        patches -= patches.mean(axis=(1, 2), keepdims=True)
        spectrum = scipy.fft.rfft2(patches * taper, workers=1)
        power = (spectrum.real**2 + spectrum.imag**2) * scale
        log_power = np.log(np.maximum(power, POWER_FLOOR_HU2_MM2)) + EULER_GAMMA
        patch_log_power = log_power.reshape(len(patches), -1) @ average
        log_powers.append(np.where(reached, patch_log_power, np.nan))
        means.append(mean_hu)
    corners = np.argwhere(allowed) * (1, step, step)
    return PatchSpectra(np.concatenate(log_powers), np.concatenate(means), corners, size_px)


def texture_spectrum(
    volumes: Sequence[CTVolume],
    frequencies_per_mm: Float[np.ndarray, " n"],
    size_px: int = 64,
    masks: Sequence[Bool[np.ndarray, "_ _ _"]] | None = None,
) -> Float[np.ndarray, " n"]:
    """Log power spectrum of the soft-tissue texture of volumes: the geometric mean over patches.

    Args:
        volumes: volumes of one scanner.
        frequencies_per_mm: frequencies at which to measure, in cycles/mm.
        size_px: side of the patches.
        masks: soft tissue of each volume, where it is known; None finds it.

    Returns:
        Natural log of power in HU² mm²; NaN at zero and at frequencies beyond all pixel grids.

    Raises:
        EvaluationError: if no volume holds a patch of soft tissue.
    """
    patches = np.concatenate(
        [
            patch_spectra(volume, frequencies_per_mm, size_px, mask=mask).log_power
            for volume, mask in itertools.zip_longest(volumes, masks or ())
        ]
    )
    if len(patches) == 0:
        raise EvaluationError(
            f"no {size_px}x{size_px} px region of soft tissue in {len(volumes)} volumes; "
            "give scans of the trunk"
        )
    return mean_over_patches(patches)


def mean_over_patches(log_power: Float[np.ndarray, "patches n"]) -> Float[np.ndarray, " n"]:
    """Mean log power at each frequency over the patches that reach it; NaN where none does."""
    reached = np.isfinite(log_power)
    total = np.where(reached, log_power, 0.0).sum(axis=0)
    count = reached.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def texture_frequencies(size_px: int, pixels_mm: Sequence[float]) -> Float[np.ndarray, " n"]:
    """Frequencies at which spectra of these pixel grids are compared, in cycles/mm.

    Steps of the coarsest grid's patch, up to the finest grid's highest frequency.
    """
    step = 1 / (size_px * max(pixels_mm))
    return np.arange(step, 0.5 / min(pixels_mm) + step / 2, step)


def distance_band_per_mm(pixels_mm: Sequence[float]) -> tuple[float, float]:
    """`DISTANCE_BAND_PER_PX` of the coarsest grid, in cycles/mm."""
    low, high = DISTANCE_BAND_PER_PX
    return low / max(pixels_mm), high / max(pixels_mm)


def distance_db(
    frequencies_per_mm: Float[np.ndarray, " n"],
    log_power: Float[np.ndarray, " n"],
    other_log_power: Float[np.ndarray, " n"],
    band_per_mm: tuple[float, float],
) -> float:
    """Distance of two log power spectra: rms difference over the band, in dB."""
    low, high = band_per_mm
    band = (frequencies_per_mm >= low) & (frequencies_per_mm <= high)
    return float(DB_PER_NEPER * np.sqrt(np.mean((log_power - other_log_power)[band] ** 2)))


@lru_cache(maxsize=16)
def _circles(
    frequencies_per_mm: tuple[float, ...], size_px: int, rows_mm: float, columns_mm: float
) -> tuple[Float[np.ndarray, "coefficients n"], Bool[np.ndarray, " n"]]:
    """Weights that average 2-D coefficients around each frequency, and which frequencies have any.

    Each weight falls linearly from the circle to the next frequency asked for, over no less than
    one and no more than two steps of the patch's own grid. The mean of a patch is left out.
    """
    rows = scipy.fft.fftfreq(size_px, rows_mm)[:, None]
    columns = scipy.fft.rfftfreq(size_px, columns_mm)[None, :]
    radius = np.hypot(rows, columns).ravel()
    twice = np.full(size_px // 2 + 1, 2.0)  # rfft keeps one of each conjugate pair
    twice[0] = 1.0
    if size_px % 2 == 0:
        twice[-1] = 1.0
    counted = np.broadcast_to(twice, (size_px, len(twice))).ravel() * (radius > 0)
    wanted = np.array(frequencies_per_mm)
    grid = 1.0 / (size_px * min(rows_mm, columns_mm))
    last = wanted[-1] - wanted[-2] if len(wanted) > 1 else grid
    gaps = np.diff(wanted, prepend=wanted[0] - grid, append=wanted[-1] + last)
    width = np.clip(np.minimum(gaps[:-1], gaps[1:]), grid, 2 * grid)
    weight = np.maximum(1 - np.abs(radius[:, None] - wanted) / width, 0) * counted[:, None]
    total = weight.sum(axis=0)
    reached = (total > 0) & (wanted > 0) & (wanted <= radius.max())
    return weight / np.where(total > 0, total, 1.0), reached
