"""Modulation transfer of a disc's edge in CT images.

Definitions follow ICRU Report 87 (2012) and AAPM Report 233 (task group 233, 2019). Images are
in HU; frequencies in cycles per mm (lp/mm).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.signal.windows import tukey

from cvsct.core.errors import EvaluationError

STEPS_PER_PX = 10
"""Bins of the edge spread function a pixel."""
REACH = 0.8
"""How far the edge profile reaches to both sides, as a share of the disc's radius."""
MIN_CONTRAST_TO_NOISE = 10.0
"""There white noise moves the frequency at half by 7 % (one deviation; a disc of 15 mm in pixels of
0.35 mm); at twice as much by 1.5 %."""
FREQUENCIES = 201
CENTRING_ROUNDS = 5


@dataclass(frozen=True)
class ModulationTransfer:
    """Modulation transfer of an edge: what AAPM Report 233 calls the task transfer function.

    Args:
        f_per_mm: from 0 to the inverse of the pixel, twice what its own sampling could show.
        mtf: 1 at frequency 0.
        contrast_hu: the disc less what is around it.
    """

    f_per_mm: Float[np.ndarray, " frequencies"]
    mtf: Float[np.ndarray, " frequencies"]
    contrast_hu: float

    @property
    def mtf50_per_mm(self) -> float:
        """Where the curve first falls to a half; NaN if it does not."""
        return first_below(self.f_per_mm, self.mtf, 0.5)

    @property
    def mtf10_per_mm(self) -> float:
        """Where the curve first falls to a tenth; NaN if it does not."""
        return first_below(self.f_per_mm, self.mtf, 0.1)


def first_below(
    f_per_mm: Float[np.ndarray, " frequencies"],
    curve: Float[np.ndarray, " frequencies"],
    level: float,
) -> float:
    """Frequency at which a curve first falls below a level; NaN if it does not."""
    low = np.flatnonzero(curve < level)
    if not low.size or low[0] == 0:
        return float("nan")
    pair = [low[0], low[0] - 1]
    return float(np.interp(level, curve[pair], f_per_mm[pair]))


def modulation_transfer(
    image: Float[np.ndarray, "rows columns"],
    pixel_mm: float,
    radius_mm: float,
    centre_px: tuple[float, float] | None = None,
) -> ModulationTransfer:
    """Modulation transfer from the edge of a disc in uniform surroundings.

    Pixels are sorted by their distance from the disc's centre of mass into bins of a tenth of a
    pixel, for `edge_transform`. No other smoothing. The disc's curvature is neglected: its radius
    should be ten times the blur.

    Args:
        image: in HU, the mean of repeated scans where noise is high.
        radius_mm: of the disc. Nothing else may lie nearer than 1.8 times that to its middle.
        centre_px: row and column of its middle, to a quarter of the radius; None is the image's.

    Raises:
        EvaluationError: if the disc and its surroundings reach beyond the image, are too few
            pixels or do not stand out from the noise.
    """
    radius = radius_mm / pixel_mm
    reach = REACH * radius
    start = centre_px or ((image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2)
    if reach < 3:
        raise EvaluationError(
            f"a disc of {radius:.1f} px radius is too small for its edge; expected 4 px or more"
        )
    hu = image.astype(np.float64)
    centre = _centre_of_mass(hu, radius, reach, start)
    distance = _distance(hu.shape, centre)
    _refuse_beyond(hu.shape, centre, radius + reach)
    contrast = _contrast(hu, distance <= radius - reach / 2, _around(distance, radius, reach))
    steps = round(reach * STEPS_PER_PX)
    edges = radius + np.arange(-steps, steps + 1) / STEPS_PER_PX
    profile = _profile(hu, distance, edges)
    f, curve = edge_transform(profile, pixel_mm)
    return ModulationTransfer(f, curve, contrast)


def edge_transform(
    profile: Float[np.ndarray, " bins"], pixel_mm: float
) -> tuple[Float[np.ndarray, " frequencies"], Float[np.ndarray, " frequencies"]]:
    """Frequencies and modulation of an edge spread function of `STEPS_PER_PX` bins a pixel.

    It is differentiated, its ends are tapered, and the modulus of its Fourier transform is divided
    by its value at 0 and by what the bins and the difference take away.
    """
    line = np.diff(profile) * tukey(len(profile) - 1, 0.5)
    place_mm = np.arange(len(line)) * (pixel_mm / STEPS_PER_PX)
    f = np.linspace(0, 1 / pixel_mm, FREQUENCIES)
    curve = np.abs(np.exp(-2j * np.pi * np.outer(f, place_mm)) @ line)
    curve /= np.sinc(f * pixel_mm / STEPS_PER_PX) ** 2
    return f, curve / curve[0]


def _distance(
    shape: tuple[int, ...], centre: tuple[float, float]
) -> Float[np.ndarray, "rows columns"]:
    """Distance of each pixel from a point, in pixels."""
    return np.asarray(
        np.hypot((np.arange(shape[0]) - centre[0])[:, None], np.arange(shape[1]) - centre[1])
    )


def _around(
    distance: Float[np.ndarray, "rows columns"], radius: float, reach: float
) -> Bool[np.ndarray, "rows columns"]:
    """The ring of surroundings, clear of the edge."""
    return (distance > radius + reach / 2) & (distance <= radius + reach)


def _refuse_beyond(shape: tuple[int, ...], centre: tuple[float, float], limit: float) -> None:
    room = min(*centre, shape[0] - 1 - centre[0], shape[1] - 1 - centre[1])
    if room < limit:
        raise EvaluationError(
            f"the disc at row {centre[0]:.0f}, column {centre[1]:.0f} has {room:.0f} px to the "
            f"image's border; its edge needs {limit:.0f} px around the middle"
        )


def _centre_of_mass(
    hu: Float[np.ndarray, "rows columns"],
    radius: float,
    reach: float,
    start: tuple[float, float],
) -> tuple[float, float]:
    """The disc's middle, from its contrast as weight, found again around each new middle."""
    centre = start
    for _ in range(CENTRING_ROUNDS):
        _refuse_beyond(hu.shape, centre, radius + reach)
        distance = _distance(hu.shape, centre)
        weight = hu - hu[_around(distance, radius, reach)].mean()
        weight[distance > radius + reach / 2] = 0
        total = weight.sum()
        if total == 0:
            break
        down, across = weight.sum(axis=1), weight.sum(axis=0)
        centre = (
            float(down @ np.arange(len(down)) / total),
            float(across @ np.arange(len(across)) / total),
        )
    return centre


def _contrast(
    hu: Float[np.ndarray, "rows columns"],
    inside: Bool[np.ndarray, "rows columns"],
    around: Bool[np.ndarray, "rows columns"],
) -> float:
    """Disc less surroundings.

    Raises:
        EvaluationError: if noise is too high for an edge to be measured.
    """
    contrast = float(hu[inside].mean() - hu[around].mean())
    noise = float(hu[around].std())
    if not abs(contrast) > MIN_CONTRAST_TO_NOISE * noise:
        raise EvaluationError(
            f"the disc stands {contrast:.0f} HU out of its surroundings with noise of {noise:.0f} "
            f"HU; expected {MIN_CONTRAST_TO_NOISE:g} times the noise: average repeated scans"
        )
    return contrast


def _profile(
    hu: Float[np.ndarray, "rows columns"],
    distance: Float[np.ndarray, "rows columns"],
    edges: Float[np.ndarray, " edges"],
) -> Float[np.ndarray, " bins"]:
    """Edge spread function: mean of each bin of distances, moved to the bin's middle."""
    near = (distance >= edges[0]) & (distance < edges[-1])
    index = np.searchsorted(edges, distance[near], side="right") - 1
    count = np.bincount(index, minlength=len(edges) - 1)
    filled = count > 0
    mean_place = np.bincount(index, distance[near], len(edges) - 1)[filled] / count[filled]
    mean_hu = np.bincount(index, hu[near], len(edges) - 1)[filled] / count[filled]
    return np.asarray(np.interp((edges[1:] + edges[:-1]) / 2, mean_place, mean_hu))
