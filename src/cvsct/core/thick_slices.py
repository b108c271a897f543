"""A scan's thin slices averaged to thicker ones, a few of them in memory at a time.

`core.slice_average` says which slices are averaged and with what weights; here are the voxels,
the padding and the positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Shaped

from cvsct.core.errors import GeometryError
from cvsct.core.slice_average import SliceAverage, average_slices
from cvsct.core.volume import AIR_FLOOR_HU, CTVolume, Geometry, OpenedScan

EVEN = 0.01
"""Largest relative difference of the distances between slices that count as even."""


@dataclass(frozen=True)
class ThickSlice:
    """A thicker slice and the slices that it is the average of.

    Args:
        sources: volumes of one slice each, in slice order.
        nearest: index of the source that it has most of.
        weights: of the sources.
        z_mm: center along the normal.
        position_mm: center of the first voxel.
        hu: the average of what is not padding.
        padding: where more than half of the weight is padding.
    """

    sources: tuple[CTVolume, ...]
    nearest: int
    weights: Float[np.ndarray, " sources"]
    z_mm: float
    position_mm: Float[np.ndarray, " 3"]
    hu: Float[np.ndarray, "rows columns"]
    padding: Bool[np.ndarray, "rows columns"]

    @property
    def nearest_source(self) -> CTVolume:
        """The slice that it has most of, as a volume."""
        return self.sources[self.nearest]

    @property
    def other_sources(self) -> tuple[CTVolume, ...]:
        """The other slices."""
        return self.sources[: self.nearest] + self.sources[self.nearest + 1 :]


def plan_average(
    geometry: Geometry,
    to_thickness_mm: float,
    to_spacing_mm: float | None = None,
    to_z_mm: Sequence[float] | None = None,
    *,
    thickness_mm: float | None = None,
) -> SliceAverage:
    """Plan the average of a scan's slices to thicker ones, as `average_slices` does.

    Args:
        geometry: of the scan.
        thickness_mm: of its slices; None for what the geometry says.

    Raises:
        GeometryError: if thicker slices cannot be made, or are not wanted at even distances.
    """
    average = average_slices(
        geometry.z_mm,
        geometry.thickness_mm if thickness_mm is None else thickness_mm,
        to_thickness_mm,
        to_spacing_mm,
        to_z_mm,
    )
    if to_z_mm is None or len(average) < 2:
        return average
    steps = np.diff(average.z_mm)
    step = float(steps.mean())
    if step <= 0 or np.abs(steps - step).max() > EVEN * step:
        raise GeometryError(
            f"centers {steps.min():g} to {steps.max():g} mm apart, expected thicker slices that "
            "rise at even distances; ask for one distance"
        )
    return replace(average, spacing_mm=step)


def thick_geometry(geometry: Geometry, average: SliceAverage) -> Geometry:
    """Where the thicker slices lie: on the line through the first and the last thin one."""
    z, positions = geometry.z_mm, geometry.positions_mm
    along = (average.z_mm - z[0]) / (z[-1] - z[0])
    return replace(
        geometry,
        positions_mm=positions[0] + along[:, None] * (positions[-1] - positions[0]),
        thickness_mm=average.thickness_mm,
    )


def thick_slices(scan: OpenedScan, average: SliceAverage) -> Iterator[ThickSlice]:
    """The thicker slices one by one; each slice of the scan is read once, and then freed.

    Args:
        scan: a series on disk, or a volume in memory.
        average: planned for its geometry.

    Raises:
        SeriesError: if pixels cannot be read.
    """
    positions = thick_geometry(scan.geometry, average).positions_mm
    held: dict[int, CTVolume] = {}
    read = 0
    for i, weights in enumerate(average.weights):
        wanted = average.sources(i)
        held = {j: volume for j, volume in held.items() if j in wanted}
        start = max(read, wanted.start)
        if start < wanted.stop:
            part = scan.read(start, wanted.stop)
            held |= {start + k: part.select([k]) for k in range(len(part))}
            read = wanted.stop
        sources = tuple(held[j] for j in wanted)
        hu, padding = average_of(sources, weights)
        yield ThickSlice(
            sources=sources,
            nearest=average.nearest(i) - wanted.start,
            weights=weights,
            z_mm=float(average.z_mm[i]),
            position_mm=positions[i],
            hu=hu,
            padding=padding,
        )


def average_of(
    sources: Sequence[CTVolume], weights: Float[np.ndarray, " sources"]
) -> tuple[Float[np.ndarray, "rows columns"], Bool[np.ndarray, "rows columns"]]:
    """Weighted mean of slices, and where it is padding.

    A voxel is padding where more than half of its weight is; elsewhere it is the mean of what is
    not padding.

    Args:
        sources: volumes of one slice each.
        weights: of each; they sum to 1.

    Returns:
        float32 HU, -1024 where it is padding; and the padding.
    """
    total = np.zeros(sources[0].hu.shape[1:])
    seen = np.zeros(total.shape)
    for source, weight in zip(sources, weights, strict=True):
        if source.padding is None or not source.padding.any():
            total += weight * source.hu[0]
            seen += weight
        else:
            inside = weight * ~source.padding[0]
            total += inside * source.hu[0]
            seen += inside
    padding = seen < 0.5 - 1e-6
    hu = total / np.where(seen > 0, seen, 1.0)
    hu[padding] = AIR_FLOOR_HU
    return hu.astype(np.float32), padding


def padding_values(
    thick: ThickSlice, sources: Sequence[CTVolume]
) -> Shaped[np.ndarray, " voxels"] | None:
    """The values to store where a thicker slice is padding, as its sources store them.

    Args:
        thick: a slice with padding.
        sources: those of its sources whose stored values are to be used, the first before others.

    Returns:
        A value for each voxel of the padding; None where the sources store none.
    """
    values: Shaped[np.ndarray, "rows columns"] | None = None
    missing = thick.padding.copy()
    for source in sources:
        if source.padding is None or not source.padding_stored:
            continue
        own, stored = source.padding[0], source.padding_stored[0]
        if not len(stored):
            continue
        if values is None:
            values = np.full(own.shape, stored[0])
        here = np.empty_like(values)
        here[own] = stored
        values[missing & own] = here[missing & own]
        missing &= ~own
    return None if values is None else values[thick.padding]
