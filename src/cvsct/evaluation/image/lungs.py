"""Mask of the lungs in CT slices, for densitometry.

Each slice is treated by itself, so that any part of a chest, thick slices and slices sampled from a
scan give the same masks as the whole. Nothing is random. In a slice:

1. Within the body (`core.masks.body`), pixels below -500 HU on the image smoothed by `SMOOTH_MM`
   are air or lung. Vessels wider than the smoothing are no lung: the holes that they leave are not
   filled.
2. Of the connected pieces, those smaller than `MIN_PIECE_MM2` are left out, and so is free gas
   (`_is_lung`): airways, stomach, bowel, and the lungs of a phantom that hold air.
3. Bronchi within the lungs are left out where their wall shows: dark spots up to `MAX_LUMEN_MM2`
   with a bright ring. Bullae and emphysema have no such wall and stay in.
4. A margin of `MARGIN_MM` inside the border is left out, where voxels are partly chest wall.

All thresholds but -500 HU are chosen. Both lungs are one mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from cvsct.core.masks import LUNG, HURange, body
from cvsct.core.volume import CTVolume

SMOOTH_MM = 1.5
"""Standard deviation of the Gaussian within slices that removes noise before thresholds."""

MARGIN_MM = 2.0
"""Width of the border that is left out."""

MIN_PIECE_MM2 = 300.0
"""Smallest area of a piece of lung in a slice."""

FREE_GAS_HU = -970.0
"""Median of a piece below which it is gas without tissue; a slice of emphysema is brighter."""

DARK_HU = -920.0
"""Median below which a piece without structure is gas, which reads too high in large bodies."""

STRUCTURE_HU = HURange(
    30.0, 150.0,
    "interquartile range of smoothed lung: 39 to 97 HU in real pieces, 7 to 25 in gas of stomach "
    "and bowel; above, gas and bowel wall mix",
)  # fmt: skip

AIRWAY_HU = -900.0
"""Median below which a piece that is no larger than a trachea is an airway."""

MAX_AIRWAY_MM2 = 700.0
"""Largest area of a trachea or a main bronchus in a slice."""

AIR_LUNGS_MM2 = 3000.0
"""Area of free gas in a slice, on average, from which it is lungs of air and not a stomach's."""

LUMEN_HU = -930.0
"""CT number of the smoothed image below which a spot may be the lumen of a bronchus."""

LUMEN_MM2 = (4.0, 250.0)
"""Smallest and largest area of the lumen of a bronchus within the lung."""

WALL_CONTRAST_HU = 120.0
"""How far the brightest ring around a lumen is above the lung's median."""

WALL_MM = 4.0
"""Distance from the dark spot of a lumen within which the middle of its wall lies."""

MIN_LUNG_MM2 = 2000.0
"""Smallest area of lung, over all slices, that is measured."""


@dataclass(frozen=True)
class LungMask:
    """Lungs of a volume.

    Args:
        mask: true where a voxel is lung, with airways and the border left out.
        why_none: why there is no lung to measure; empty where there is some.
    """

    mask: Bool[np.ndarray, "slices rows columns"]
    why_none: str = ""


def lung_mask(volume: CTVolume) -> LungMask:
    """Find the lungs of a volume, slice by slice; see this module's text.

    Args:
        volume: a whole scan, a part of one, or slices sampled from one.
    """
    mask = np.zeros(volume.hu.shape, dtype=bool)
    gas_mm2 = 0.0
    for index, hu in enumerate(volume.hu):
        padding = None if volume.padding is None else volume.padding[index]
        mask[index], gas = lungs_of_slice(hu, volume.geometry.pixel_mm, padding)
        gas_mm2 += gas
    lung_mm2 = float(mask.sum()) * float(np.prod(volume.geometry.pixel_mm))
    if lung_mm2 >= MIN_LUNG_MM2:
        return LungMask(mask)
    reason = (
        "only gas without parenchyma, as in a phantom's lungs or in bowel"
        if gas_mm2 >= AIR_LUNGS_MM2 * len(mask)
        else f"{lung_mm2 / 100:.0f} cm² of lung in {len(mask)} slices, too little to measure"
    )
    return LungMask(np.zeros_like(mask), reason)


def lungs_of_slice(
    hu: Float[np.ndarray, "rows columns"],
    pixel_mm: tuple[float, float],
    padding: Bool[np.ndarray, "rows columns"] | None = None,
) -> tuple[Bool[np.ndarray, "rows columns"], float]:
    """Find the lungs in one slice.

    Args:
        hu: the slice.
        pixel_mm: size of a pixel along rows and columns.
        padding: pixels that the scanner did not measure.

    Returns:
        Mask of the lungs, and the area in mm² of free gas in pieces larger than an airway.
    """
    inside = body(hu[None])[0]
    if padding is not None:
        inside &= ~padding
    smooth = ndimage.gaussian_filter(
        hu.astype(np.float32), [SMOOTH_MM / mm for mm in pixel_mm], mode="nearest"
    )
    pixel_mm2 = pixel_mm[0] * pixel_mm[1]
    pieces, count = ndimage.label(inside & (smooth < LUNG.high_hu))
    lungs = np.zeros(hu.shape, dtype=bool)
    gas_mm2 = 0.0
    areas_mm2 = np.bincount(pieces.ravel(), minlength=count + 1) * pixel_mm2
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        if areas_mm2[number] < MIN_PIECE_MM2:
            continue
        piece = pieces[box] == number
        if _is_lung(hu[box], smooth[box], piece, pixel_mm):
            lungs[box] |= piece
        elif areas_mm2[number] > MAX_AIRWAY_MM2:
            gas_mm2 += float(areas_mm2[number])
    if not lungs.any():
        return lungs, gas_mm2
    (box,) = ndimage.find_objects(lungs.astype(np.int8))
    within = lungs[box] & ~_bronchi(smooth[box], lungs[box], pixel_mm)
    lungs[box] = _eroded(within, pixel_mm)
    return lungs, gas_mm2


def _is_lung(
    hu: Float[np.ndarray, "rows columns"],
    smooth: Float[np.ndarray, "rows columns"],
    piece: Bool[np.ndarray, "rows columns"],
    pixel_mm: tuple[float, float],
) -> bool:
    """Whether a piece of a slice is lung and not gas."""
    # of the raw image: clipping at -1024 HU lifts the mean of noisy air, not its median
    median_hu = float(np.median(hu[piece]))
    area_mm2 = float(piece.sum()) * pixel_mm[0] * pixel_mm[1]
    if median_hu < FREE_GAS_HU or (median_hu < AIRWAY_HU and area_mm2 <= MAX_AIRWAY_MM2):
        return False
    inner = _eroded(_eroded(piece, pixel_mm), pixel_mm)
    quartiles = np.percentile(smooth[inner if inner.any() else piece], (25, 75))
    structure_hu = float(quartiles[1] - quartiles[0])
    is_smooth_gas = median_hu < DARK_HU and structure_hu < STRUCTURE_HU.low_hu
    return not is_smooth_gas and structure_hu <= STRUCTURE_HU.high_hu


def _bronchi(
    smooth: Float[np.ndarray, "rows columns"],
    lungs: Bool[np.ndarray, "rows columns"],
    pixel_mm: tuple[float, float],
) -> Bool[np.ndarray, "rows columns"]:
    """Lumina of bronchi within the lungs, with their walls: dark spots with a bright ring."""
    pixel_mm2 = pixel_mm[0] * pixel_mm[1]
    spots, count = ndimage.label(lungs & (smooth < LUMEN_HU))
    bronchi = np.zeros(lungs.shape, dtype=bool)
    if count == 0:
        return bronchi
    area_mm2 = np.bincount(spots.ravel(), minlength=count + 1) * pixel_mm2
    wall_hu = float(np.median(smooth[lungs])) + WALL_CONTRAST_HU
    pad = int(np.ceil(WALL_MM / min(pixel_mm))) + 1
    for number, box in enumerate(ndimage.find_objects(spots), start=1):
        if not LUMEN_MM2[0] <= area_mm2[number] <= LUMEN_MM2[1]:
            continue
        around = tuple(slice(max(part.start - pad, 0), part.stop + pad) for part in box)
        lumen = spots[around] == number
        distance_mm = ndimage.distance_transform_edt(~lumen, sampling=pixel_mm)
        rings = np.ceil(distance_mm / max(pixel_mm)).astype(int)
        n_rings = int(WALL_MM / max(pixel_mm)) + 1
        brightest_hu = max(
            float(np.median(smooth[around][rings == ring])) for ring in range(1, n_rings + 1)
        )
        if brightest_hu > wall_hu:
            bronchi[around] |= distance_mm <= WALL_MM
    return bronchi


def _eroded(
    mask: Bool[np.ndarray, "rows columns"], pixel_mm: tuple[float, float]
) -> Bool[np.ndarray, "rows columns"]:
    """The mask without a border of `MARGIN_MM`."""
    reach = [int(MARGIN_MM / mm) for mm in pixel_mm]
    down, across = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    disc = np.hypot(down * pixel_mm[0], across * pixel_mm[1]) <= MARGIN_MM
    # as a count of the mask within the disc: quicker than a distance transform
    inside = ndimage.convolve(mask.astype(np.float32), disc.astype(np.float32), mode="constant")
    return np.asarray(inside > disc.sum() - 0.5)
