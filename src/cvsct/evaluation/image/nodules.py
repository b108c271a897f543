"""Errors of nodules against the phantom's truth: CT number, volume and diameter.

Volume is the partial-volume-corrected sum: the excess over the local background, summed over all
voxels that a nodule's blur can reach, divided by the contrast of its core. There is no threshold,
so a kernel, a slice profile or a shift within the grid does not change it. The excess needs no
core: it is the only figure of nodules too thin for one (5 mm in slices of 5 mm), and is compared
with the excess that the true HU and volume would give.
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
"""Distance from a surface to which its blur reaches: two standard deviations of a lung kernel's
point spread (0.3 to 0.5 mm)."""

REACH_MM = 1.5
"""Distance from a nodule's surface up to which voxels count towards its excess. Further out, more
of the lung's vessels would be added than blur left out."""

RING_MM = 4.0
"""Width of the ring that gives the background, from `REACH_MM` outwards."""

MIN_CORE_VOXELS = 5
"""Smallest number of voxels from which the core's CT number is measured."""

MAX_EXCESS_ERROR = 0.25
"""Largest relative error of the excess by noise (one deviation) at which a nodule is measured."""


@dataclass(frozen=True)
class NoduleFigures:
    """Measurements of one nodule in an image; None where there is none, and `reason` says why.

    Args:
        truth: true values of the nodule.
        core_hu: mean of the voxels that lie wholly inside, clear of blur and partial volume.
        background_hu: median of the surroundings.
        noise_hu: robust standard deviation of the surroundings.
        excess_hu_mm3: sum of HU above the background, times a voxel's volume.
        excess_share: excess divided by that of the true HU and volume on this background; 1 is
            right.
        volume_mm3: excess divided by the core's contrast.
        diameter_mm: diameter of the sphere of that volume.
        reason: why something was not measured; empty where everything was.
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
        """Whether the images show the whole nodule."""
        return self.background_hu is not None

    @property
    def hu_error(self) -> float | None:
        """Error of the core's CT number."""
        return None if self.core_hu is None else self.core_hu - self.truth.hu

    @property
    def diameter_error_mm(self) -> float | None:
        """Error of the diameter against that of the sphere of the true volume."""
        if self.diameter_mm is None:
            return None
        return self.diameter_mm - self.truth.sphere_mm

    @property
    def volume_error(self) -> float | None:
        """Error of the volume as a share of the true volume."""
        return None if self.volume_mm3 is None else self.volume_mm3 / self.truth.volume_mm3 - 1

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the errors."""
        errors = {
            "hu_error": self.hu_error,
            "diameter_error_mm": self.diameter_error_mm,
            "volume_error": self.volume_error,
        }
        return asdict(self) | errors


def measure_nodule(volume: CTVolume, truth: NoduleTruth) -> NoduleFigures:
    """Measure CT number, volume and diameter of one nodule at its known position."""
    nearby = _nearby_voxels(volume, truth)
    if nearby is None:
        return NoduleFigures(truth, reason="lies outside the images, wholly or in part")
    hu, voxel_mm3 = nearby.hu, nearby.voxel_mm3
    half_mm = _thickness_mm(volume) / 2
    along_z_mm = np.maximum(np.abs(nearby.through_plane_mm) - half_mm, 0)
    distance_mm = np.hypot(nearby.in_plane_mm, along_z_mm)
    reached = distance_mm <= truth.radius_mm + REACH_MM
    ring = ~reached & (distance_mm <= truth.radius_mm + REACH_MM + RING_MM)
    background = float(np.median(hu[ring]))
    noise = float(1.4826 * np.median(np.abs(hu[ring] - background)))
    excess = float((hu[reached] - background).sum()) * voxel_mm3
    expected = (truth.hu - background) * truth.volume_mm3
    error = noise * voxel_mm3 * float(np.sqrt(reached.sum())) / max(abs(expected), 1e-9)
    if error > MAX_EXCESS_ERROR:
        return NoduleFigures(
            truth,
            background_hu=background,
            noise_hu=noise,
            reason=f"too faint: noise of {noise:.0f} HU leaves {error:.0%} of its excess uncertain",
        )
    without_core = NoduleFigures(
        truth=truth,
        background_hu=background,
        noise_hu=noise,
        excess_hu_mm3=excess,
        excess_share=excess / expected,
    )
    clear_mm2 = (truth.diameter_mm / 2) ** 2 - (np.abs(nearby.through_plane_mm) + half_mm) ** 2
    core = nearby.in_plane_mm <= np.sqrt(np.maximum(clear_mm2, 0)) - BLUR_MM
    if core.sum() < MIN_CORE_VOXELS:
        inside = f"{int(core.sum())} voxels of {2 * half_mm:g} mm slices"
        return replace(
            without_core,
            reason=f"too thin: {inside} lie wholly inside its {truth.diameter_mm:g} mm",
        )
    core_hu = float(hu[core].mean())
    if (core_hu - background) * excess <= 0:
        return replace(
            without_core, reason="the core's contrast and the excess differ in their sign"
        )
    volume_mm3 = excess / (core_hu - background)
    return replace(
        without_core,
        core_hu=core_hu,
        volume_mm3=volume_mm3,
        diameter_mm=sphere_diameter_mm(volume_mm3),
    )


def measure_nodules(volume: CTVolume, truths: Sequence[NoduleTruth]) -> tuple[NoduleFigures, ...]:
    """Measure every nodule in a volume, in the order given."""
    return tuple(measure_nodule(volume, truth) for truth in truths)


@dataclass(frozen=True)
class NoduleSummary:
    """Errors over the nodules of one side: medians of absolute values; None where there are none.

    Args:
        seen: number of nodules within the images.
        measured: number of these with CT number and volume.
        hu_error: error of the CT number in HU.
        diameter_error_mm: error of the diameter.
        volume_error: error of the volume, as a share of the true volume.
        excess_share: median of the excess over the true one; 1 is right.
    """

    seen: int
    measured: int
    hu_error: float | None
    diameter_error_mm: float | None
    volume_error: float | None
    excess_share: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def summarize_nodules(figures: Sequence[NoduleFigures]) -> NoduleSummary:
    """Summarize the errors over nodules. Sides compare only over the same nodules."""

    def median(values: Sequence[float | None], absolute: bool = True) -> float | None:
        known = [abs(value) if absolute else value for value in values if value is not None]
        return float(np.median(known)) if known else None

    return NoduleSummary(
        seen=sum(nodule.seen for nodule in figures),
        measured=sum(nodule.volume_mm3 is not None for nodule in figures),
        hu_error=median([nodule.hu_error for nodule in figures]),
        diameter_error_mm=median([nodule.diameter_error_mm for nodule in figures]),
        volume_error=median([nodule.volume_error for nodule in figures]),
        excess_share=median([nodule.excess_share for nodule in figures], absolute=False),
    )


@dataclass(frozen=True)
class NoduleComparison:
    """Nodules of every side against the truth.

    Args:
        figures: measurements by side, for each nodule of each volume, in one order for all sides.
        summary: errors by side, over the nodules measured on every side, so that they compare.
    """

    figures: Mapping[str, tuple[NoduleFigures, ...]]
    summary: Mapping[str, NoduleSummary]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "summary": {side: summary.to_json() for side, summary in self.summary.items()},
            "nodules": {
                side: [nodule.to_json() for nodule in nodules]
                for side, nodules in self.figures.items()
            },
        }


def compare_nodules(
    sides: Mapping[str, Sequence[CTVolume]], truths: Sequence[NoduleTruth]
) -> NoduleComparison:
    """Measure each body's nodules on every side.

    Args:
        sides: volumes by side; volume i of every side shows the same slices of one body.
        truths: true nodules of any number of bodies; `nodules_of` finds those of each volume.
    """
    measured: dict[str, list[NoduleFigures]] = {side: [] for side in sides}
    for stack in zip(*sides.values(), strict=True):
        by_volume = (nodules_of(truths, volume) for volume in stack)
        of_body = next((nodules for nodules in by_volume if nodules), ())
        for side, volume in zip(sides, stack, strict=True):
            measured[side] += [nodule for nodule in measure_nodules(volume, of_body) if nodule.seen]
    by_nodule = list(zip(*measured.values(), strict=True))
    has_excess = [all(n.excess_share is not None for n in nodule) for nodule in by_nodule]
    has_volume = [all(n.volume_mm3 is not None for n in nodule) for nodule in by_nodule]
    summary = {}
    for side, figures in measured.items():
        common = [
            replace(
                nodule,
                excess_share=nodule.excess_share if excess_known else None,
                core_hu=nodule.core_hu if volume_known else None,
                volume_mm3=nodule.volume_mm3 if volume_known else None,
                diameter_mm=nodule.diameter_mm if volume_known else None,
            )
            for nodule, excess_known, volume_known in zip(
                figures, has_excess, has_volume, strict=True
            )
        ]
        summary[side] = summarize_nodules(common)
    return NoduleComparison({side: tuple(figures) for side, figures in measured.items()}, summary)


def _thickness_mm(volume: CTVolume) -> float:
    return volume.geometry.thickness_mm or volume.geometry.spacing_mm


@dataclass(frozen=True)
class _NearbyVoxels:
    """Voxels around a nodule.

    Args:
        hu: their CT numbers.
        in_plane_mm: distance of their middles from the nodule's, in the plane of the slices.
        through_plane_mm: signed distance along the normal of the slices.
        voxel_mm3: volume of a voxel.
    """

    hu: Float[np.ndarray, "slices rows columns"]
    in_plane_mm: Float[np.ndarray, "1 rows columns"]
    through_plane_mm: Float[np.ndarray, "slices 1 1"]
    voxel_mm3: float


def _nearby_voxels(volume: CTVolume, truth: NoduleTruth) -> _NearbyVoxels | None:
    """Voxels of a nodule and its surroundings; None where the images do not show all of them."""
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
    return _NearbyVoxels(hu, in_plane_mm[None], z_mm[slices][:, None, None], voxel_mm3)
