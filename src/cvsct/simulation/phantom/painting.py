"""One axial slice: distances read from shapes, tissues laid over one another in fixed order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from cvsct.simulation.phantom import compiled_geometry as fields
from cvsct.simulation.phantom import compositing as voxels
from cvsct.simulation.phantom.lesion import Lesion
from cvsct.simulation.phantom.shapes import Field, Nodes, Ovals, Tubes
from cvsct.simulation.phantom.tissues import Tissue

Plane = Float32[np.ndarray, "rows columns"]
Window = tuple[slice, slice]

NOISE_CELLS_MM = ((1.5, 1.5, 1.5), (3.6, 3.6, 3.6), (13.0, 13.0, 13.0), (7.0, 2.2, 8.0))
"""x, y, z distance of the nodes of the fine, middle, coarse and fibrous noise; chosen."""


@dataclass(frozen=True)
class RasterGrid:
    """A square grid of pixels centred on the isocentre."""

    size_px: int = 1024
    extent_mm: float = 400.0

    @property
    def pixel_mm(self) -> float:
        """Distance of neighbouring pixels."""
        return self.extent_mm / self.size_px

    @property
    def first_mm(self) -> float:
        """Both coordinates of the centre of pixel [0, 0]."""
        return (self.pixel_mm - self.extent_mm) / 2


class Canvas:
    """The slice at one z while it is painted.

    Args:
        grid: pixels; row and column grow with y and x.
        noise: nodes of the four noises; none for bodies without texture.
    """

    def __init__(self, z_mm: float, grid: RasterGrid, noise: tuple[Nodes, ...]) -> None:
        self.z_mm, self.grid = z_mm, grid
        self.amounts = np.zeros((2, grid.size_px, grid.size_px), np.float32)
        self._nodes = noise
        self._noise = np.zeros((4, grid.size_px if noise else 1, grid.size_px), np.float32)

    def weave(self, window: Window) -> None:
        """Prepare the noises within a window, before anything textured is painted there."""
        for nodes, cell, out in zip(self._nodes, NOISE_CELLS_MM, self._noise, strict=False):
            start, step = self.grid.first_mm, self.grid.pixel_mm
            fields.refine(
                fields.plane_between(nodes, self.z_mm / cell[2], True),
                (start + step * window[0].start) / cell[1], step / cell[1],
                (start + step * window[1].start) / cell[0], step / cell[0],
                True, out[window],
            )  # fmt: skip

    def window(self, field: Field, reach_mm: float = 0.0) -> Window | None:
        """The pixels where a field may be below `reach_mm`; None where it nowhere is."""
        plane = field.plane(self.z_mm)
        if plane is None:
            return None
        low = plane < reach_mm + self.grid.pixel_mm
        rows, columns = np.flatnonzero(low.any(axis=1)), np.flatnonzero(low.any(axis=0))
        if len(rows) == 0:
            return None
        spans = []
        for nodes, axis in ((rows, 1), (columns, 0)):
            first = field.origin_mm[axis] + (nodes[0] - 2) * field.step_mm[axis]
            last = field.origin_mm[axis] + (nodes[-1] + 2) * field.step_mm[axis]
            spans.append(self._span(first, last))
        return (spans[0], spans[1])

    def _span(self, low_mm: float, high_mm: float) -> slice:
        start, step = self.grid.first_mm, self.grid.pixel_mm
        first = int(np.clip(np.ceil((low_mm - start) / step), 0, self.grid.size_px))
        last = int(np.clip(np.floor((high_mm - start) / step) + 1, first, self.grid.size_px))
        return slice(first, last)

    def distance(self, field: Field, window: Window) -> Plane:
        """A field at the pixels of a window."""
        plane = field.plane(self.z_mm)
        shape = tuple(part.stop - part.start for part in window)
        out = np.empty(shape, np.float32)
        if plane is None:
            out[:] = 1e3
            return out
        start, step = self.grid.first_mm, self.grid.pixel_mm
        x, y, _ = field.origin_mm
        dx, dy, _ = field.step_mm
        fields.refine(
            plane,
            (start + step * window[0].start - y) / dy, step / dy,
            (start + step * window[1].start - x) / dx, step / dx,
            False, out,
        )  # fmt: skip
        return out

    def tubes(
        self, tubes: Tubes | Ovals, window: Window | None = None, margin_mm: float = 1.0
    ) -> tuple[Window, Plane] | None:
        """Distance from tubes where it is below the margin, in a window or around the tubes."""
        margin = margin_mm + self.grid.pixel_mm
        near = tubes.near(self.z_mm, margin)
        if len(near.starts) == 0:
            return None
        if window is None:
            both = np.concatenate((near.starts, near.ends))
            thick = near.radii if isinstance(near, Tubes) else near.half_mm
            reach = float(thick.max()) + margin
            low, high = both.min(axis=0) - reach, both.max(axis=0) + reach
            window = (
                self._span(float(low[1]), float(high[1])),
                self._span(float(low[0]), float(high[0])),
            )
        shape = tuple(part.stop - part.start for part in window)
        out = np.full(shape, 1e3, np.float32)
        place = (
            np.float32(self.z_mm),
            np.float32(self.grid.first_mm + self.grid.pixel_mm * window[1].start),
            np.float32(self.grid.first_mm + self.grid.pixel_mm * window[0].start),
            np.float32(self.grid.pixel_mm),
            np.float32(margin),
        )
        if isinstance(near, Tubes):
            fields.tube_distance(near.starts, near.ends, near.radii, *place, out)
        else:
            fields.oval_distance(near.starts, near.ends, near.across, near.half_mm, *place, out)
        return window, out

    def paint(
        self, window: Window, distance: Plane, tissue: Tissue, offset_mm: float = 0.0
    ) -> None:
        """Lay a tissue within `distance + offset_mm < 0`."""
        voxels.blend(
            self.amounts[0][window], self.amounts[1][window], distance, np.float32(offset_mm),
            np.float32(self.grid.pixel_mm), tissue.amounts, self._textures(window), tissue.texture,
        )  # fmt: skip

    def paint_field(
        self, field: Field, tissue: Tissue, window: Window | None = None, offset_mm: float = 0.0
    ) -> None:
        """Lay a tissue within a field's surface, moved inwards by `offset_mm`."""
        window = window or self.window(field, -offset_mm)
        if window is not None:
            self.paint(window, self.distance(field, window), tissue, offset_mm)

    def paint_tubes(self, tubes: Tubes | Ovals, tissue: Tissue, offset_mm: float = 0.0) -> None:
        """Lay a tissue within tubes."""
        seen = self.tubes(tubes)
        if seen is not None:
            self.paint(*seen, tissue, offset_mm)

    def paint_bone(
        self, window: Window, distance: Plane, cortex_mm: float, cortex: Tissue, marrow: Tissue
    ) -> None:
        """Lay a bone with its cortex."""
        voxels.blend_bone(
            self.amounts[0][window], self.amounts[1][window], distance,
            np.float32(self.grid.pixel_mm), np.float32(cortex_mm), cortex.amounts, marrow.amounts,
            self._textures(window), marrow.texture,
        )  # fmt: skip

    def paint_lung(
        self,
        window: Window,
        distance: Plane,
        fissure: Plane,
        air: tuple[float, ...],
        tissue: Tissue,
    ) -> Plane:
        """Lay parenchyma; returns each pixel's share of lung."""
        share = np.empty_like(distance)
        voxels.blend_lung(
            self.amounts[0][window], self.amounts[1][window], distance, fissure,
            np.float32(self.grid.pixel_mm),
            np.float32(self.grid.first_mm + self.grid.pixel_mm * window[0].start),
            np.float32(self.grid.pixel_mm), tissue.amounts, np.array(air, np.float32),
            np.float32(20.0), self._textures(window), tissue.texture, share,
        )  # fmt: skip
        return share

    def paint_within(self, window: Window, distance: Plane, share: Plane, tissue: Tissue) -> None:
        """Lay a tissue on the part of each pixel that is lung."""
        voxels.blend_within(
            self.amounts[0][window], self.amounts[1][window], distance, share,
            np.float32(self.grid.pixel_mm), tissue.amounts,
        )  # fmt: skip

    def paint_lesion(self, lesion: Lesion, tissue: Tissue) -> None:
        """Lay a lesion with the texture of its traits.

        Args:
            tissue: what it is made of, at 0 HU.
        """
        x, y, z = lesion.centre_mm
        reach = lesion.reach_mm
        if abs(self.z_mm - z) >= reach:
            return
        window = self._span(y - reach, y + reach), self._span(x - reach, x + reach)
        rows_mm, columns_mm = (
            self.grid.first_mm + self.grid.pixel_mm * np.arange(part.start, part.stop)
            for part in window
        )
        distance = lesion.distance_mm(columns_mm[None, :], rows_mm[:, None], np.array(self.z_mm))
        near = np.nonzero(distance < self.grid.pixel_mm)
        texture = np.zeros((4, *distance.shape), np.float32)
        texture[0][near] = lesion.field(columns_mm[near[1]], rows_mm[near[0]], np.array(self.z_mm))
        traits = lesion.traits
        strengths = np.zeros(6, np.float32)
        strengths[0] = traits.heterogeneity_hu / (1000 + traits.hu)
        voxels.blend(
            self.amounts[0][window], self.amounts[1][window], distance.astype(np.float32),
            np.float32(0.0), np.float32(self.grid.pixel_mm),
            tissue.scaled((1000 + traits.hu) / 1000).amounts, texture, strengths,
        )  # fmt: skip

    def noise(self, kind: int, window: Window) -> Plane:
        """One of the woven noises: 0 fine, 1 middle, 2 coarse, 3 fibrous."""
        return self._noise[(kind, *window)]

    def _textures(self, window: Window) -> Float32[np.ndarray, "4 rows columns"]:
        return self._noise[:, window[0], window[1]] if self._nodes else self._noise
