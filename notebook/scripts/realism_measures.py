"""Figures of one axial chest slice that tell a simulated slice from a real one.

Every measure takes a `Slice` and returns numbers by name, or an empty dictionary where the slice
has too little of the tissue. Lengths are in mm, so that slices of different pixel sizes compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from skimage.feature import graycomatrix, graycoprops
from skimage.morphology import convex_hull_image, disk

from cvsct.core.masks import body
from cvsct.evaluation.image.noise_power import noise_power_spectrum
from cvsct.evaluation.image.tissues import tissue_masks

Image = Float[np.ndarray, "rows columns"]
Mask = Bool[np.ndarray, "rows columns"]
Figures = dict[str, float]

PERCENTILES = (5, 25, 50, 75, 95)
SCALES_MM = (0.7, 1.4, 2.8, 5.6)
"""Gaussian widths; the difference of neighboring ones holds detail of one scale."""
PLEURA_BANDS_MM = (4.0, 8.0, 12.0, 18.0, 25.0, 35.0, 60.0)
VESSEL_RISES_HU = (80.0, 200.0)
"""Above the median of the lung, on an image smoothed by 0.8 mm: small vessels, and larger ones."""
LUNG_BINS_HU = (-1000.0, -400.0, 25.0)
LEAST_MM2 = 1500.0
SPECTRUM_MM = 22.0
"""Side of the squares whose spectrum gives a slope; it is fitted at `SLOPE_PER_MM`."""
SLOPE_PER_MM = (0.09, 0.35)


@dataclass(frozen=True)
class Slice:
    """One axial slice and what is asked of it.

    Args:
        hu: CT numbers.
        sides: which lungs count: "both", "left" or "right" (the patient's), or "none".
        tissue: whether soft tissue, fat and bone count; not where contrast medium fills vessels.
    """

    hu: Image
    pixel_mm: float
    sides: str = "both"
    tissue: bool = True

    def smooth(self, sigma_mm: float) -> Image:
        """The image blurred by a Gaussian."""
        return np.asarray(ndimage.gaussian_filter(self.hu, sigma_mm / self.pixel_mm))

    def ball(self, radius_mm: float) -> Mask:
        """A disc as a structuring element."""
        return np.asarray(disk(max(round(radius_mm / self.pixel_mm), 1)), dtype=bool)

    @cached_property
    def masks(self) -> dict[str, Mask]:
        """Lung, fat, soft tissue and bone of the blurred image, without their edges."""
        return {name: mask[0] for name, mask in tissue_masks(self.hu[None]).items()}

    @cached_property
    def body(self) -> Mask:
        """The patient, lungs included, without a table or arms that lie apart."""
        inside = ndimage.binary_opening(body(self.hu[None])[0], self.ball(3.0))
        parts, count = ndimage.label(inside)
        if count == 0:
            return inside
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        return np.asarray(ndimage.binary_fill_holes(parts == int(sizes.argmax())))

    @cached_property
    def lungs(self) -> Mask:
        """Both lungs with their vessels."""
        dark = (self.smooth(1.3) < -500) & self.body
        parts, count = ndimage.label(ndimage.binary_opening(dark, self.ball(1.5)))
        sizes = np.bincount(parts.ravel()) * self.pixel_mm**2
        sizes[0] = 0
        kept = np.isin(parts, np.flatnonzero(sizes > LEAST_MM2)) if count else dark & False
        return np.asarray(ndimage.binary_fill_holes(ndimage.binary_closing(kept, self.ball(3.5))))

    @cached_property
    def chest(self) -> Mask:
        """Convex hull of the lungs: its border is the chest wall."""
        hull: Mask = convex_hull_image(self.lungs) if self.lungs.any() else self.lungs
        return hull

    @cached_property
    def lung(self) -> Mask:
        """The lungs that count, 3 mm off every border."""
        inside = np.asarray(ndimage.binary_erosion(self.lungs, self.ball(3.0)))
        middle = int(np.flatnonzero(self.body.any(axis=0)).mean()) if self.body.any() else 0
        columns = np.arange(inside.shape[1])
        kept = {
            "both": columns >= 0, "left": columns > middle, "right": columns < middle,
            "none": columns < 0,
        }[self.sides]  # fmt: skip
        return inside & kept[None]


def histograms(s: Slice) -> Figures:
    """Share of the body, mode, width and percentiles of each tissue."""
    shown: Figures = {}
    area = max(int(s.body.sum()), 1)
    for name, tissue in s.masks.items():
        if name != "lung" and not s.tissue:
            continue
        mask = tissue & s.lung if name == "lung" else tissue
        values = s.hu[mask]
        if len(values) < 500:
            continue
        edges = np.arange(values.min() - 5, values.max() + 10, 5.0)
        counts = ndimage.gaussian_filter1d(np.histogram(values, edges)[0].astype(float), 2)
        wide = np.flatnonzero(counts > counts.max() / 2)
        shown[f"{name} share"] = float(mask.sum() / area)
        shown[f"{name} mode"] = float(edges[counts.argmax()] + 2.5)
        shown[f"{name} width"] = float(5.0 * (wide[-1] - wide[0] + 1))
        for q, value in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True):
            shown[f"{name} p{q}"] = float(value)
    return shown


def lung_texture(s: Slice) -> Figures:
    """Vessels by distance from the chest wall, detail by scale, spectrum slope, GLCM."""
    if s.lung.sum() * s.pixel_mm**2 < LEAST_MM2:
        return {}
    lung, middle = s.lung, float(np.median(s.hu[s.lung]))
    shown: Figures = {"lung median": middle}
    smooth = s.smooth(0.8)
    depth = ndimage.distance_transform_edt(s.chest) * s.pixel_mm
    for low, high in pairwise(PLEURA_BANDS_MM):
        band = lung & (depth >= low) & (depth < high)
        if band.sum() * s.pixel_mm**2 > 150:
            for rise in VESSEL_RISES_HU:
                share = float((smooth[band] > middle + rise).mean())
                shown[f"vessels +{rise:g} at {low:g}-{high:g} mm"] = share
    parenchyma = lung & ~ndimage.binary_dilation(smooth > middle + 100, s.ball(1.5))
    parenchyma &= ~ndimage.binary_dilation(smooth < middle - 120, s.ball(2.0))
    for name, mask in (("lung", lung), ("parenchyma", parenchyma)):
        blurs = [_blurred_within(s, mask, sigma) for sigma in SCALES_MM]
        for i, sigma in enumerate(SCALES_MM[:-1]):
            detail = blurs[i] - blurs[i + 1]
            shown[f"{name} detail {sigma:g} mm"] = float(detail[mask].std())
    rows, columns = np.nonzero(parenchyma)
    terms = np.stack([np.ones(len(rows)), rows * s.pixel_mm, columns * s.pixel_mm], axis=1)
    tilt = np.linalg.lstsq(terms, s.hu[parenchyma], rcond=None)[0]
    shown["parenchyma front to back, HU/mm"] = float(tilt[1])
    values = s.hu[lung]
    z = (values - values.mean()) / values.std()
    shown |= {"lung SD": float(values.std()), "lung skewness": float((z**3).mean())}
    shown["lung kurtosis"] = float((z**4).mean() - 3)
    return shown | _slope(s) | _cooccurrence(s)


def _blurred_within(s: Slice, mask: Mask, sigma_mm: float) -> Image:
    """The image blurred by a Gaussian, from pixels of a mask alone."""
    sigma = sigma_mm / s.pixel_mm
    weight = ndimage.gaussian_filter(mask.astype(np.float64), sigma)
    mean: Image = ndimage.gaussian_filter(np.where(mask, s.hu, 0.0), sigma)
    return mean / np.maximum(weight, 0.05)


def _squares(mask: Mask, size_px: int) -> list[tuple[slice, slice]]:
    """Squares of a regular grid that lie within a mask."""
    places = []
    for row in range(0, mask.shape[0] - size_px, size_px // 2):
        for column in range(0, mask.shape[1] - size_px, size_px // 2):
            place = np.s_[row : row + size_px, column : column + size_px]
            if mask[place].mean() > 0.98:
                places.append(place)
    return places


def _slope(s: Slice) -> Figures:
    """Exponent of the lung's power spectrum at low frequencies, where noise is weak."""
    size = 2 * round(SPECTRUM_MM / s.pixel_mm / 2)
    places = _squares(s.lung, size)
    if len(places) < 3:
        return {}
    patches = np.stack([s.hu[place] for place in places])
    power = noise_power_spectrum(patches, s.pixel_mm, size // 2, taper="hann")
    f = power.f_per_mm
    used = (f > SLOPE_PER_MM[0]) & (f < SLOPE_PER_MM[1])
    fit = np.polyfit(np.log(f[used]), np.log(power.power_hu2_mm2[used]), 1)
    return {
        "lung spectrum slope": float(fit[0]),
        "lung power at 0.2/mm": float(np.exp(np.polyval(fit, np.log(0.2)))),
    }


def _cooccurrence(s: Slice) -> Figures:
    """GLCM of neighboring pixels, four directions, fixed bins."""
    low, high, width = LUNG_BINS_HU
    levels = int((high - low) / width)
    coded = np.clip((s.hu - low) / width, 0, levels - 1).astype(np.uint8)
    total = np.zeros((levels, levels, 1, 4))
    for place in _squares(s.lung, round(14.0 / s.pixel_mm)):
        total += graycomatrix(
            coded[place], [1], [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4], levels, symmetric=True
        )
    if not total.any():
        return {}
    total /= total.sum(axis=(0, 1), keepdims=True)
    shown = {
        f"lung GLCM {name}": float(graycoprops(total, name).mean())
        for name in ("contrast", "correlation", "homogeneity")
    }
    some = total[total > 0]
    return shown | {"lung GLCM entropy": float(-(some * np.log2(some)).sum() / 4)}


def fat_texture(s: Slice) -> Figures:
    """Strands and mottle of the fat under the skin and of that within the chest."""
    if not s.tissue:
        return {}
    shown: Figures = {}
    smooth, broad = s.smooth(1.0), s.smooth(3.0)
    fat = (smooth > -160) & (smooth < -40) & s.body
    filled = ndimage.binary_closing(fat, s.ball(3.0))
    core = ndimage.binary_erosion(filled, s.ball(3.5))
    wall = ndimage.binary_erosion(s.body, s.ball(5.0)) & ~ndimage.binary_dilation(
        s.chest, s.ball(6.0)
    )
    for name, where in (("skin fat", core & wall), ("chest fat", core & s.chest)):
        if where.sum() * s.pixel_mm**2 < 300:
            continue
        median = float(np.median(smooth[where]))
        shown[f"{name} median"] = median
        shown[f"{name} strands"] = float((smooth[where] > median + 30).mean())
        shown[f"{name} SD, 1 mm blur"] = float(smooth[where].std())
        shown[f"{name} SD, 3 mm blur"] = float(broad[where].std())
    return shown


def muscle_texture(s: Slice) -> Figures:
    """Muscles of the chest wall: streaks of fat and unevenness."""
    if not s.tissue or not s.lungs.any():
        return {}
    smooth = s.smooth(1.0)
    muscle = (smooth > -10) & (smooth < 130) & s.body
    filled = ndimage.binary_closing(ndimage.binary_opening(muscle, s.ball(1.5)), s.ball(2.5))
    core = ndimage.binary_erosion(filled, s.ball(2.5)) & (smooth < 130)
    wall = ndimage.binary_erosion(s.body, s.ball(6.0)) & ~ndimage.binary_dilation(
        s.chest, s.ball(6.0)
    )
    where = core & wall
    if where.sum() * s.pixel_mm**2 < 600:
        return {}
    return {
        "muscle median": float(np.median(smooth[where])),
        "muscle SD, 1 mm blur": float(smooth[where].std()),
        "muscle SD, 3 mm blur": float(s.smooth(3.0)[where].std()),
        "muscle fatty share": float((smooth[where] < 10).mean()),
    }


def marrow_texture(s: Slice) -> Figures:
    """The vertebra's inside, 4 mm from its border."""
    if not s.tissue or not s.body.any():
        return {}
    rows = np.flatnonzero(s.body.any(axis=1))
    middle = int(np.flatnonzero(s.body.any(axis=0)).mean())
    reach = round(28.0 / s.pixel_mm)
    bone = (s.smooth(1.3) > 110) & s.body
    bone[: int(rows.mean())] = False
    bone[:, : middle - reach] = bone[:, middle + reach :] = False
    bone = ndimage.binary_fill_holes(ndimage.binary_closing(bone, s.ball(2.0)))
    inside = ndimage.binary_erosion(bone, s.ball(4.0))
    parts, count = ndimage.label(inside)
    if count == 0:
        return {}
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    inside = parts == int(sizes.argmax())
    if inside.sum() * s.pixel_mm**2 < 80:
        return {}
    smooth, broad = s.smooth(0.8), s.smooth(2.5)
    return {
        "marrow median": float(np.median(s.hu[inside])),
        "marrow SD, 0.8 mm blur": float(smooth[inside].std()),
        "marrow SD, 2.5 mm blur": float(broad[inside].std()),
        "marrow p95 - p5, 0.8 mm blur": float(np.ptp(np.percentile(smooth[inside], (5, 95)))),
    }


MEASURES = (histograms, lung_texture, fat_texture, muscle_texture, marrow_texture)


def figures_of(s: Slice) -> Figures:
    """All figures of one slice but the noise's, which needs many."""
    shown: Figures = {}
    for measure in MEASURES:
        shown |= measure(s)
    return shown
