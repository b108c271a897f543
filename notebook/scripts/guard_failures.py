"""Failures planted in good output, for the study of the slice guard (guard_study.py).

Each function takes a slice before and after a mapping and gives both back with something wrong
between them, or `None` where the slice has no place for it. A structure that the mapping invents
is added to `after`; one that it erases is added to `before` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import ndimage

from cvsct.core.masks import SOFT_TISSUE, body

PSF_MM = 0.4
"""Sigma of a scanner's blur: 50 % modulation at 0.47/mm."""

Pair = tuple[np.ndarray, np.ndarray]
Where = Literal["lung", "tissue"]


@dataclass(frozen=True)
class Good:
    """One slice, what a model made of it, and where things can be planted.

    Args:
        target: what the other scanner shows there, where it scanned the body too.
    """

    before: np.ndarray
    after: np.ndarray
    target: np.ndarray | None
    pixel_mm: float
    thickness_mm: float

    @cached_property
    def smooth(self) -> np.ndarray:
        """The slice that the mapping was given, without its noise."""
        return ndimage.gaussian_filter(self.before, 1.5 / self.pixel_mm)

    @cached_property
    def inside(self) -> np.ndarray:
        """The patient, away from the skin."""
        outline = body(self.before[None])[0]
        return ndimage.binary_erosion(outline, iterations=round(6 / self.pixel_mm))

    @cached_property
    def lung(self) -> np.ndarray:
        """Lung, its larger vessels left out."""
        return ndimage.binary_opening((self.smooth < -650) & self.inside, iterations=2)

    @cached_property
    def tissue(self) -> np.ndarray:
        """Soft tissue."""
        low, high = SOFT_TISSUE.limits_hu
        return (self.smooth > low) & (self.smooth < high) & self.inside

    @cached_property
    def depth_mm(self) -> dict[str, np.ndarray]:
        """How far inside lung and soft tissue each pixel lies."""
        parts = {"lung": self.lung, "tissue": self.tissue}
        return {
            name: ndimage.distance_transform_edt(part).astype(np.float32) * self.pixel_mm
            for name, part in parts.items()
        }

    def place(self, where: Where, margin_mm: float, rng: np.random.Generator) -> np.ndarray | None:
        """A random pixel at least so far inside lung or soft tissue."""
        places = np.argwhere(self.depth_mm[where] > margin_mm)
        return places[rng.integers(len(places))] if len(places) else None

    def distance_mm(self, centre: np.ndarray) -> np.ndarray:
        """Of each pixel from a place."""
        rows, columns = np.indices(self.before.shape, sparse=True)
        return np.hypot(rows - centre[0], columns - centre[1]) * self.pixel_mm


def sphere(good: Good, centre: np.ndarray, diameter_mm: float, contrast_hu: float) -> np.ndarray:
    """A sphere in the middle of the slice, averaged over its thickness, blurred as by a scanner."""
    reach = round((diameter_mm / 2 + 4 * PSF_MM) / good.pixel_mm) + 2
    offsets = np.arange(-reach, reach + 1) * good.pixel_mm
    away = np.hypot(offsets[:, None], offsets)
    chord = 2 * np.sqrt(np.maximum((diameter_mm / 2) ** 2 - away**2, 0))
    share = np.minimum(chord, good.thickness_mm) / good.thickness_mm
    image = np.zeros(np.array(good.before.shape) + 2 * reach)
    row, column = centre
    image[row : row + 2 * reach + 1, column : column + 2 * reach + 1] = ndimage.gaussian_filter(
        share, PSF_MM / good.pixel_mm
    )
    return contrast_hu * image[reach:-reach, reach:-reach]


def nodule(
    good: Good,
    rng: np.random.Generator,
    diameter_mm: float,
    contrast_hu: float,
    where: Where = "lung",
    erased: bool = False,
) -> Pair | None:
    """A nodule that only one of the images shows."""
    centre = good.place(where, diameter_mm / 2 + 1, rng)
    if centre is None:
        return None
    added = sphere(good, centre, diameter_mm, contrast_hu)
    if erased:
        return good.before + added, good.after
    return good.before, good.after + added


def shift(good: Good, rng: np.random.Generator, hu: float, where: str = "whole") -> Pair | None:
    """All CT numbers, those of one tissue, or those of a disc of 40 mm in soft tissue, shifted."""
    if where == "whole":
        return good.before, good.after + hu
    if where == "organ":
        centre = good.place("tissue", 8, rng)
        if centre is None:
            return None
        disc = (good.distance_mm(centre) < 20) & good.tissue
        return good.before, good.after + hu * ndimage.gaussian_filter(disc.astype(float), 2.0)
    part = getattr(good, where)
    if part.sum() < 2000:
        return None
    return good.before, good.after + hu * ndimage.gaussian_filter(part.astype(float), 2.0)


def moved(good: Good, rng: np.random.Generator, pixels: float) -> Pair:
    """The whole image displaced in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    offset = pixels * np.array([np.sin(angle), np.cos(angle)])
    return good.before, ndimage.shift(good.after, offset, order=3, mode="nearest")


def warped(good: Good, rng: np.random.Generator, pixels: float) -> Pair | None:
    """A bump of displacement of 30 mm across (sigma 15 mm), at a wall of the lung."""
    wall = ndimage.binary_dilation(good.lung, iterations=4) & ~good.lung & good.inside
    places = np.argwhere(wall)
    if len(places) == 0:
        return None
    centre = places[rng.integers(len(places))]
    angle = rng.uniform(0, 2 * np.pi)
    bump = pixels * np.exp(-0.5 * (good.distance_mm(centre) / 15) ** 2)
    rows, columns = np.indices(good.after.shape).astype(float)
    where = [rows + np.sin(angle) * bump, columns + np.cos(angle) * bump]
    return good.before, ndimage.map_coordinates(good.after, where, order=3, mode="nearest")


def grid(good: Good, rng: np.random.Generator, hu: float, period_px: int) -> Pair:
    """A checkerboard of fields of half a period, within the patient."""
    rows, columns = np.indices(good.after.shape) // (period_px // 2)
    return good.before, good.after + np.where(good.inside, hu * (1 - 2 * ((rows + columns) % 2)), 0)


def lost_vessel(good: Good, rng: np.random.Generator, low_mm: float, high_mm: float) -> Pair | None:
    """A vessel of the lung, of that width, replaced by what surrounds it, in `after`."""
    sigma = 0.5 / good.pixel_mm
    smooth = ndimage.gaussian_filter(good.after, sigma)
    filled = ndimage.binary_closing(good.lung, iterations=round(8 / good.pixel_mm))
    filled = ndimage.binary_erosion(filled & good.inside, iterations=round(3 / good.pixel_mm))
    background = ndimage.median_filter(smooth[::2, ::2], round(20 / good.pixel_mm / 2))
    background = np.kron(background, np.ones((2, 2)))[: smooth.shape[0], : smooth.shape[1]]
    vessels, count = ndimage.label((smooth - background > 150) & filled)
    if count == 0:
        return None
    areas = ndimage.sum_labels(np.ones_like(smooth), vessels, np.arange(1, count + 1))
    widths = 2 * np.sqrt(areas / np.pi) * good.pixel_mm
    fitting = np.flatnonzero((widths >= low_mm) & (widths < high_mm)) + 1
    if len(fitting) == 0:
        return None
    chosen = vessels == rng.choice(fitting)
    weight = ndimage.gaussian_filter(
        ndimage.binary_dilation(chosen, iterations=2).astype(float), sigma
    )
    return good.before, good.after - weight * (smooth - background)


def nothing(good: Good, rng: np.random.Generator) -> Pair:
    """The output as it is."""
    return good.before, good.after


def itself(good: Good, rng: np.random.Generator) -> Pair | None:
    """What the target's scanner shows in place of the output."""
    return None if good.target is None else (good.before, good.target)


def blurred(good: Good, rng: np.random.Generator, sigma_mm: float) -> Pair:
    """The output blurred: no failure."""
    return good.before, ndimage.gaussian_filter(good.after, sigma_mm / good.pixel_mm)


def sharpened(good: Good, rng: np.random.Generator, amount: float) -> Pair:
    """The output sharpened (unsharp mask of 0.6 mm): no failure."""
    smooth = ndimage.gaussian_filter(good.after, 0.6 / good.pixel_mm)
    return good.before, good.after + amount * (good.after - smooth)


def noisier(good: Good, rng: np.random.Generator, hu: float) -> Pair:
    """Noise of a CT's kind (a ramp up to 0.5/mm) added: no failure."""
    white = rng.standard_normal(good.after.shape)
    fine = ndimage.gaussian_filter(white, 0.35 / good.pixel_mm)
    fine -= ndimage.gaussian_filter(white, 0.8 / good.pixel_mm)
    return good.before, good.after + hu * fine / fine.std()


Failure = Callable[[Good, np.random.Generator], Pair | None]
