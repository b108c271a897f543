"""Nodules against the phantom's truth: CT number, volume and diameter.

Volume is the partial-volume-corrected sum: the excess over the local background, summed over all
that a nodule's blur can reach, divided by the contrast of its core. No threshold is involved, so a
kernel, a slice profile or a shift within the grid does not change it. The excess needs no core: for
nodules too thin for one (5 mm in slices of 5 mm) it is all that can be told, and is compared with
what the truth's HU and volume would give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.nodule_truth import NoduleTruth, nodules_of, sphere_diameter_mm

BLUR_MM = 1.0
"""How far from an edge a blurred image is still that edge's: 2 deviations of a lung kernel's point
spread (0.3 to 0.5 mm)."""

REACH_MM = 1.5
"""Beyond its surface, where a nodule's blur has died away in plane. Further out more of the lung's
vessels would be counted in than blur left out."""

RING_MM = 4.0
"""Width of the surroundings that give the background, from `REACH_MM` outwards."""

MIN_CORE_VOXELS = 5
MAX_EXCESS_ERROR = 0.25
"""Of the excess, by noise alone, one deviation; beyond, a nodule is too faint to measure."""


@dataclass(frozen=True)
class NoduleFigures:
    """What an image shows of one nodule; None where it cannot be told, and `reason` says why.

    Args:
        core_hu: mean of the voxels that lie wholly inside, clear of blur and partial volume.
        background_hu: median of the surroundings.
        noise_hu: standard deviation there, robust.
        excess_hu_mm3: sum of what exceeds the background, times a voxel's volume.
        excess_share: of what the truth's HU and volume make of this background; 1 is right.
        volume_mm3: excess over the core's contrast.
        diameter_mm: of the sphere of that volume.
    """

    truth: NoduleTruth
    core_hu: float | None = None
    background_hu: float | None = None
    noise_hu: float | None = None
    excess_hu_mm3: float | None = None
    excess_share: float | None = None
    volume_mm3: float | None = None
    diameter_mm: float | None = None
    reason: str = ""

    @property
    def seen(self) -> bool:
        """Whether the images show it wholly."""
        return self.background_hu is not None

    @property
    def hu_error(self) -> float | None:
        """Of the core, in HU."""
        return None if self.core_hu is None else self.core_hu - self.truth.hu

    @property
    def diameter_error_mm(self) -> float | None:
        """Against the sphere of the true volume."""
        if self.diameter_mm is None:
            return None
        return self.diameter_mm - self.truth.sphere_mm

    @property
    def volume_error(self) -> float | None:
        """As a share of the true volume."""
        return None if self.volume_mm3 is None else self.volume_mm3 / self.truth.volume_mm3 - 1

    def to_json(self) -> dict[str, Any]:
        """As plain values, with the errors."""
        errors = {
            "hu_error": self.hu_error,
            "diameter_error_mm": self.diameter_error_mm,
            "volume_error": self.volume_error,
        }
        return asdict(self) | errors


def measure_nodule(volume: CTVolume, truth: NoduleTruth) -> NoduleFigures:
    """CT number, volume and diameter of one nodule at its known place."""
    near = _around(volume, truth)
    if near is None:
        return NoduleFigures(truth, reason="lies outside the images, wholly or in part")
    hu, voxel_mm3 = near.hu, near.voxel_mm3
    half_mm = _thickness_mm(volume) / 2
    place_mm = np.hypot(near.in_plane_mm, np.maximum(np.abs(near.away_mm) - half_mm, 0))
    touched = place_mm <= truth.radius_mm + REACH_MM
    ring = ~touched & (place_mm <= truth.radius_mm + REACH_MM + RING_MM)
    background = float(np.median(hu[ring]))
    noise = float(1.4826 * np.median(np.abs(hu[ring] - background)))
    excess = float((hu[touched] - background).sum()) * voxel_mm3
    expected = (truth.hu - background) * truth.volume_mm3
    error = noise * voxel_mm3 * float(np.sqrt(touched.sum())) / max(abs(expected), 1e-9)
    if error > MAX_EXCESS_ERROR:
        return NoduleFigures(
            truth,
            background_hu=background,
            noise_hu=noise,
            reason=f"too faint: noise of {noise:.0f} HU leaves {error:.0%} of its excess uncertain",
        )
    found = NoduleFigures(
        truth=truth,
        background_hu=background,
        noise_hu=noise,
        excess_hu_mm3=excess,
        excess_share=excess / expected,
    )
    clear_mm2 = (truth.diameter_mm / 2) ** 2 - (np.abs(near.away_mm) + half_mm) ** 2
    core = near.in_plane_mm <= np.sqrt(np.maximum(clear_mm2, 0)) - BLUR_MM
    if core.sum() < MIN_CORE_VOXELS:
        inside = f"{int(core.sum())} voxels of {2 * half_mm:g} mm slices"
        return replace(
            found, reason=f"too thin: {inside} lie wholly inside its {truth.diameter_mm:g} mm"
        )
    core_hu = float(hu[core].mean())
    if (core_hu - background) * excess <= 0:
        return replace(found, reason="core and surroundings do not differ as their sum does")
    volume_mm3 = excess / (core_hu - background)
    return replace(
        found,
        core_hu=core_hu,
        volume_mm3=volume_mm3,
        diameter_mm=sphere_diameter_mm(volume_mm3),
    )


def measure_nodules(volume: CTVolume, truths: Sequence[NoduleTruth]) -> tuple[NoduleFigures, ...]:
    """Every nodule of the body that a volume shows, in the order given."""
    return tuple(measure_nodule(volume, truth) for truth in truths)


@dataclass(frozen=True)
class NoduleSummary:
    """Errors over the nodules of one side: medians of absolute values; None where none is told.

    Args:
        seen: nodules within the images.
        measured: of these, with CT number and volume.
        excess_share: median, 1 is right.
    """

    seen: int
    measured: int
    hu_error: float | None
    diameter_error_mm: float | None
    volume_error: float | None
    excess_share: float | None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def summarize_nodules(figures: Sequence[NoduleFigures]) -> NoduleSummary:
    """Errors over nodules. Compare sides only over the same nodules."""

    def middle(values: Sequence[float | None], size: bool = True) -> float | None:
        told = [abs(value) if size else value for value in values if value is not None]
        return float(np.median(told)) if told else None

    return NoduleSummary(
        seen=sum(one.seen for one in figures),
        measured=sum(one.volume_mm3 is not None for one in figures),
        hu_error=middle([one.hu_error for one in figures]),
        diameter_error_mm=middle([one.diameter_error_mm for one in figures]),
        volume_error=middle([one.volume_error for one in figures]),
        excess_share=middle([one.excess_share for one in figures], size=False),
    )


@dataclass(frozen=True)
class NoduleComparison:
    """Nodules of every side against the truth.

    Args:
        figures: by side, one a nodule and volume, in one order for all sides.
        summary: by side, over the nodules that are told on every side, so that they compare.
    """

    figures: Mapping[str, tuple[NoduleFigures, ...]]
    summary: Mapping[str, NoduleSummary]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "summary": {side: one.to_json() for side, one in self.summary.items()},
            "nodules": {
                side: [one.to_json() for one in some] for side, some in self.figures.items()
            },
        }


def compare_nodules(
    sides: Mapping[str, Sequence[CTVolume]], truths: Sequence[NoduleTruth]
) -> NoduleComparison:
    """Measure each body's nodules on every side.

    Args:
        sides: volumes by side; volume i of every side shows the same slices of one body.
        truths: of any number of bodies; each volume's own are found by `nodules_of`.
    """
    found: dict[str, list[NoduleFigures]] = {side: [] for side in sides}
    for same in zip(*sides.values(), strict=True):
        named = (nodules_of(truths, volume) for volume in same)
        shown = next((one for one in named if one), ())
        for side, volume in zip(sides, same, strict=True):
            found[side] += [one for one in measure_nodules(volume, shown) if one.seen]
    together = list(zip(*found.values(), strict=True))
    excess = [all(one.excess_share is not None for one in all_sides) for all_sides in together]
    volume_told = [all(one.volume_mm3 is not None for one in all_sides) for all_sides in together]
    summary = {}
    for side, figures in found.items():
        common = [
            replace(
                one,
                excess_share=one.excess_share if has_excess else None,
                core_hu=one.core_hu if has_volume else None,
                volume_mm3=one.volume_mm3 if has_volume else None,
                diameter_mm=one.diameter_mm if has_volume else None,
            )
            for one, has_excess, has_volume in zip(figures, excess, volume_told, strict=True)
        ]
        summary[side] = summarize_nodules(common)
    return NoduleComparison({side: tuple(some) for side, some in found.items()}, summary)


def _thickness_mm(volume: CTVolume) -> float:
    return volume.geometry.thickness_mm or volume.geometry.spacing_mm


@dataclass(frozen=True)
class _Near:
    """The voxels around a nodule, how far their middles lie from its own, and a voxel's volume."""

    hu: Float[np.ndarray, "slices rows columns"]
    in_plane_mm: Float[np.ndarray, "1 rows columns"]
    away_mm: Float[np.ndarray, "slices 1 1"]
    voxel_mm3: float


def _around(volume: CTVolume, truth: NoduleTruth) -> _Near | None:
    """What lies around a nodule; None where the images end before it does."""
    geometry = volume.geometry
    centre = np.array(truth.centre_mm)
    rows_mm, columns_mm = geometry.pixel_mm
    z_mm = geometry.z_mm - float(centre @ geometry.normal)
    half_mm = _thickness_mm(volume) / 2
    reach_mm = truth.radius_mm + REACH_MM + RING_MM
    if z_mm.min() - half_mm > -truth.radius_mm or z_mm.max() + half_mm < truth.radius_mm:
        return None
    slices = np.flatnonzero(np.abs(z_mm) <= truth.radius_mm + half_mm)
    offset = centre - geometry.positions_mm[slices[0]]
    down = float(offset @ np.array(geometry.column_direction)) / rows_mm
    across = float(offset @ np.array(geometry.row_direction)) / columns_mm
    windows = []
    for middle, step_mm, size in zip(
        (down, across), (rows_mm, columns_mm), volume.hu.shape[1:], strict=True
    ):
        first, last = int(middle - reach_mm / step_mm), int(middle + reach_mm / step_mm) + 2
        if first < 0 or last > size:
            return None
        windows.append(np.arange(first, last))
    rows, columns = windows
    in_plane_mm = np.hypot(((rows - down) * rows_mm)[:, None], (columns - across) * columns_mm)
    hu = volume.hu[np.ix_(slices, rows, columns)].astype(np.float64)
    voxel_mm3 = rows_mm * columns_mm * geometry.spacing_mm
    return _Near(hu, in_plane_mm[None], z_mm[slices][:, None, None], voxel_mm3)
