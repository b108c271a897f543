"""The phantom's compiled compositing: tissues laid over one another, pixel by pixel.

All functions here are compiled by numba and single-threaded; arrays are float32 unless noted.
Distances are signed, in mm, negative inside. A tissue covers a pixel by the share
`0.5 - distance / width`, clipped to [0, 1]: an edge is a ramp one pixel wide, as if the pixel's
area had been averaged.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BUNDLE_MM = 5.0
"""Distance of the layers of fat between bundles of muscle; chosen."""
LOBULE_MM, COARSE_MM = 3.4, 6.4
"""Inverse of the mean gradient of the noises with cells of 7 and 13 mm: 2.04 over the cell, from
the squared derivative of the cubic B-spline."""


@njit(cache=True)
def _covered(distance, width):
    return min(max(np.float32(0.5) - distance / width, np.float32(0.0)), np.float32(1.0))


@njit(cache=True)
def _ridge(value, breadth):
    """Height of a thin sheet: 1 where a noise crosses zero, falling to 0 at `breadth`."""
    return max(np.float32(0.0), np.float32(1.0) - abs(value) / breadth)


@njit(cache=True)
def _grain(noise, r, c, texture):
    """Relative deviation of a tissue at a pixel.

    `texture` holds the strengths of the fine, middle, coarse and fibrous noise, of the sheets of
    the coarse noise and of those of the fibrous noise.
    """
    fine, middle, coarse, fibre = noise[0, r, c], noise[1, r, c], noise[2, r, c], noise[3, r, c]
    return (
        texture[0] * fine
        + texture[1] * middle
        + texture[2] * coarse
        + texture[3] * fibre
        + texture[4] * _ridge(coarse, np.float32(0.12))
        + texture[5] * _ridge(fibre, np.float32(0.3))
    )


@njit(cache=True)
def blend(soft, bone, distance, offset, width, amounts, noise, texture):
    """Lay a tissue of uneven density over what is there, within `distance + offset < 0`.

    Args:
        amounts: [2], amounts of the two basis materials.
        noise: [4, rows, columns] of unit variance; read only where `texture` is not zero.
        texture: [6], strengths, see `_grain`.
    """
    uneven = np.any(texture != 0.0)
    for r in range(soft.shape[0]):
        for c in range(soft.shape[1]):
            share = _covered(distance[r, c] + offset, width)
            if share > 0.0:
                scale = np.float32(1.0)
                if uneven:
                    scale += _grain(noise, r, c, texture)
                soft[r, c] += share * (scale * amounts[0] - soft[r, c])
                bone[r, c] += share * (scale * amounts[1] - bone[r, c])


@njit(cache=True)
def _sheet(distance, half, width):
    """Share of a pixel that a thin sheet covers, by the distance of their middles."""
    low = max(distance - half, -width / 2)
    high = min(distance + half, width / 2)
    return max(high - low, np.float32(0.0)) / width


@njit(cache=True)
def _lay_mixed(soft, bone, r, c, share, scale, amounts, part, sheet):
    """Lay a tissue at density `scale` over a share of a pixel, `part` of it replaced by a sheet."""
    for_soft = scale * amounts[0] + part * (sheet[0] - scale * amounts[0])
    for_bone = scale * amounts[1] + part * (sheet[1] - scale * amounts[1])
    soft[r, c] += share * (for_soft - soft[r, c])
    bone[r, c] += share * (for_bone - bone[r, c])


@njit(cache=True)
def blend_fat(soft, bone, distance, offset, width, fascia, amounts, wall, septa, noise, texture):
    """Lay fat over what is there, divided into lobules by sheets of connective tissue.

    Septa lie where the noise of the lobules or the coarse noise crosses zero; the inverse of a
    noise's mean gradient makes of its value a distance. Under the skin a membrane, the superficial
    fascia, runs midway between the skin and the fascia of the muscles.

    Args:
        fascia: distance from the muscles' fascia, or an empty array where there is no membrane.
        amounts, wall: [2], amounts of the two basis materials in fat and in septa.
        septa: mean thickness of the septa in mm.
        noise: [5, rows, columns] of unit variance.
        texture: [6], strengths, see `_grain`.
    """
    under_skin = fascia.shape[0] > 0
    for r in range(soft.shape[0]):
        for c in range(soft.shape[1]):
            share = _covered(distance[r, c] + offset, width)
            if share <= 0.0:
                continue
            lobule, coarse = noise[4, r, c], noise[2, r, c]
            thick = max(np.float32(0.5) + np.float32(0.6) * noise[1, r, c], np.float32(0.0))
            half = np.float32(0.5) * septa * thick
            tissue = _sheet(abs(lobule) * np.float32(LOBULE_MM), half, width)
            tissue = max(tissue, _sheet(abs(coarse) * np.float32(COARSE_MM), half, width))
            if under_skin and fascia[r, c] > 0.0:
                depth = -(distance[r, c] + offset)
                whole = depth + fascia[r, c]
                if whole > 6.0:
                    middle = whole * (np.float32(0.5) + np.float32(0.10) * coarse)
                    half = (
                        np.float32(1.2)
                        * septa
                        * max(np.float32(1.0) + np.float32(0.7) * lobule, np.float32(0.2))
                    )
                    tissue = max(tissue, _sheet(abs(depth - middle), half, width))
            scale = np.float32(1.0) + _grain(noise, r, c, texture)
            _lay_mixed(soft, bone, r, c, share, scale, amounts, tissue, wall)


@njit(cache=True)
def blend_muscle(soft, bone, distance, width, fascia, amounts, fat, streaks, noise, texture):
    """Lay muscle over what is there, in bundles with fat between them.

    The layers of fat follow the fascia, wave with the coarse noise and break where the noise of
    the lobules is low.

    Args:
        fascia: distance from the muscles' fascia.
        amounts, fat: [2], amounts of the two basis materials in muscle and in fat.
        streaks: thickness of the fat in mm where the noise of the lobules is 1.
        noise: [5, rows, columns] of unit variance.
        texture: [6], strengths, see `_grain`.
    """
    for r in range(soft.shape[0]):
        for c in range(soft.shape[1]):
            share = _covered(distance[r, c], width)
            if share <= 0.0:
                continue
            phase = fascia[r, c] / np.float32(BUNDLE_MM) + np.float32(0.9) * noise[2, r, c]
            gap = abs(phase - np.rint(phase)) * np.float32(BUNDLE_MM)
            half = np.float32(0.5) * streaks * max(noise[4, r, c], np.float32(0.0))
            between = _sheet(gap, half, width)
            scale = np.float32(1.0) + _grain(noise, r, c, texture)
            _lay_mixed(soft, bone, r, c, share, scale, amounts, between, fat)


@njit(cache=True)
def blend_bone(soft, bone, distance, width, cortex_mm, cortex, marrow, noise, texture):
    """Lay a bone over what is there: a dense rind around uneven marrow.

    Args:
        cortex_mm: [rows], thickness of the rind in each row.
    """
    uneven = np.any(texture != 0.0)
    for r in range(soft.shape[0]):
        for c in range(soft.shape[1]):
            share = _covered(distance[r, c], width)
            if share > 0.0:
                inner = _covered(distance[r, c] + cortex_mm[r], width)
                scale = np.float32(1.0)
                if uneven and inner > 0.0:
                    scale += _grain(noise, r, c, texture)
                rind = share - inner
                soft[r, c] += rind * cortex[0] + inner * scale * marrow[0] - share * soft[r, c]
                bone[r, c] += rind * cortex[1] + inner * scale * marrow[1] - share * bone[r, c]


@njit(cache=True)
def carve(distance, other, offset):
    """Take the neighborhood `other < offset` out of a shape, in place."""
    for r in range(distance.shape[0]):
        for c in range(distance.shape[1]):
            distance[r, c] = max(distance[r, c], offset - other[r, c])


@njit(cache=True)
def blend_lung(
    soft, bone, distance, fissure, width, y0, step, amounts, gradient, behind, noise, texture, share
):
    """Lay parenchyma over what is there and store each pixel's share of lung in `share`.

    Args:
        fissure: distance from the fissures; its sign does not matter.
        amounts: [2], amounts of soft tissue at density 1.
        gradient: [8]: density at y = 0, its rise per mm of y, density added at the pleura behind
            and the depth in mm over which that fades, density of a fissure, noise level above
            which emphysema thins the lung, by which share at most, and how steeply.
        behind: y in mm from which on the pleura counts as lying behind.
    """
    for r in range(soft.shape[0]):
        y = np.float32(y0 + r * step)
        low = gradient[0] + gradient[1] * y
        for c in range(soft.shape[1]):
            d = distance[r, c]
            s = _covered(d, width)
            share[r, c] = s
            if s <= 0.0:
                continue
            density = low
            if gradient[0] > 0.0:
                density *= np.float32(1.0) + _grain(noise, r, c, texture)
                if y > behind:
                    rise = min((y - behind) / np.float32(40.0), np.float32(1.0))
                    density += gradient[2] * rise * np.exp(min(d, 0.0) / gradient[3])
                if gradient[6] > 0.0:
                    hole = noise[1, r, c] + np.float32(0.8) * noise[2, r, c] - gradient[5]
                    lost = min(max(gradient[7] * hole, 0.0), 1.0)
                    density *= np.float32(1.0) - gradient[6] * lost
                density += gradient[4] * max(0.0, np.float32(1.0) - abs(fissure[r, c]))
                density = max(density, np.float32(0.02))
            soft[r, c] += s * (density * amounts[0] - soft[r, c])
            bone[r, c] += s * (density * amounts[1] - bone[r, c])


@njit(cache=True)
def blend_within(soft, bone, distance, share, width, amounts):
    """Lay a tissue over what is there, but only on the part of a pixel that is lung."""
    for r in range(soft.shape[0]):
        for c in range(soft.shape[1]):
            s = _covered(distance[r, c], width) * share[r, c]
            if s > 0.0:
                soft[r, c] += s * (amounts[0] - soft[r, c])
                bone[r, c] += s * (amounts[1] - bone[r, c])
