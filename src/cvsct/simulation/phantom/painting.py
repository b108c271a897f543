"""One axial slice: distances read from shapes, tissues laid over one another in fixed order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from cvsct.simulation.phantom import compiled_geometry, compositing
from cvsct.simulation.phantom.lesion import Lesion
from cvsct.simulation.phantom.shapes import Field, Nodes, Ovals, Tubes
from cvsct.simulation.phantom.tissues import Tissue

Plane = Float32[np.ndarray, "rows columns"]
Window = tuple[slice, slice]

NOISE_CELLS_MM = (
    (1.5, 1.5, 1.5), (3.6, 3.6, 3.6), (13.0, 13.0, 13.0), (7.0, 2.2, 8.0), (7.0, 7.0, 7.0),
)  # fmt: skip
"""x, y, z distance of the nodes of the fine, middle, coarse, fibrous noise and that of the fat's
lobules; chosen. The paper's phantom has no fat and none of the last."""
NO_PLANE = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class RasterGrid:
    """A square grid of pixels centred on the isocentre."""

    size_px: int = 1024
    extent_mm: float = 400.0

    @property
    def pixel_mm(self) -> float:
        """Distance of neighboring pixels."""
        return self.extent_mm / self.size_px

    @property
    def first_mm(self) -> float:
        """Both coordinates of the centre of pixel [0, 0]."""
        return (self.pixel_mm - self.extent_mm) / 2


class Canvas:
    """The slice at one z while it is painted.

    Args:
        grid: pixels; row and column grow with y and x.
        noise: nodes of the noises (`NOISE_CELLS_MM`); none for bodies without texture.
    """

    def __init__(self, z_mm: float, grid: RasterGrid, noise: tuple[Nodes, ...]) -> None:
        self.z_mm, self.grid = z_mm, grid
        self.amounts = np.zeros((2, grid.size_px, grid.size_px), np.float32)
        self._nodes = noise
        shape = (max(len(noise), 4), grid.size_px if noise else 1, grid.size_px)
        self._noise = np.zeros(shape, np.float32)

    def prepare_noise(self, window: Window) -> None:
        """Evaluate the noises within a window; required before textured tissue is painted there."""
        for nodes, cell, plane in zip(self._nodes, NOISE_CELLS_MM, self._noise, strict=False):
            start, step = self.grid.first_mm, self.grid.pixel_mm
            compiled_geometry.refine(
                compiled_geometry.plane_between(nodes, self.z_mm / cell[2], True),
                (start + step * window[0].start) / cell[1], step / cell[1],
                (start + step * window[1].start) / cell[0], step / cell[0],
                True, plane[window],
            )  # fmt: skip

    def window(self, field: Field, reach_mm: float = 0.0) -> Window | None:
        """The pixels where a field may be below `reach_mm`; None if it is above everywhere."""
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

    def rows_mm(self, window: Window) -> Float32[np.ndarray, " rows"]:
        """Coordinates y of a window's rows."""
        rows = np.arange(window[0].start, window[0].stop, dtype=np.float32)
        y_mm: Float32[np.ndarray, " rows"] = (
            np.float32(self.grid.first_mm) + np.float32(self.grid.pixel_mm) * rows
        )
        return y_mm

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
        compiled_geometry.refine(
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
        raster = (
            np.float32(self.z_mm),
            np.float32(self.grid.first_mm + self.grid.pixel_mm * window[1].start),
            np.float32(self.grid.first_mm + self.grid.pixel_mm * window[0].start),
            np.float32(self.grid.pixel_mm),
            np.float32(margin),
        )
        if isinstance(near, Tubes):
            compiled_geometry.tube_distance(near.starts, near.ends, near.radii, *raster, out)
        else:
            compiled_geometry.oval_distance(
                near.starts, near.ends, near.across, near.half_mm, *raster, out
            )
        return window, out

    def paint(
        self, window: Window, distance: Plane, tissue: Tissue, offset_mm: float = 0.0
    ) -> None:
        """Paint a tissue where `distance + offset_mm < 0`."""
        compositing.blend(
            self.amounts[0][window], self.amounts[1][window], distance, np.float32(offset_mm),
            np.float32(self.grid.pixel_mm), tissue.amounts, self._textures(window), tissue.texture,
        )  # fmt: skip

    def paint_field(
        self, field: Field, tissue: Tissue, window: Window | None = None, offset_mm: float = 0.0
    ) -> None:
        """Paint a tissue within a field's surface, moved inwards by `offset_mm`."""
        window = window or self.window(field, -offset_mm)
        if window is not None:
            self.paint(window, self.distance(field, window), tissue, offset_mm)

    def paint_tubes(self, tubes: Tubes | Ovals, tissue: Tissue, offset_mm: float = 0.0) -> None:
        """Paint a tissue within tubes."""
        region = self.tubes(tubes)
        if region is not None:
            self.paint(*region, tissue, offset_mm)

    def paint_fat(
        self,
        window: Window,
        distance: Plane,
        fat: Tissue,
        septa: Tissue,
        septa_mm: float,
        offset_mm: float = 0.0,
        fascia: Plane = NO_PLANE,
    ) -> None:
        """Paint fat with septa where `distance + offset_mm < 0`; see `compositing.blend_fat`."""
        compositing.blend_fat(
            self.amounts[0][window], self.amounts[1][window], distance, np.float32(offset_mm),
            np.float32(self.grid.pixel_mm), fascia, fat.amounts, septa.amounts,
            np.float32(septa_mm), self._textures(window), fat.texture,
        )  # fmt: skip

    def paint_muscle(
        self,
        window: Window,
        distance: Plane,
        fascia: Plane,
        muscle: Tissue,
        fat: Tissue,
        streaks_mm: float,
    ) -> None:
        """Paint muscle in bundles with fat between them; see `compositing.blend_muscle`."""
        compositing.blend_muscle(
            self.amounts[0][window], self.amounts[1][window], distance,
            np.float32(self.grid.pixel_mm), fascia, muscle.amounts, fat.amounts,
            np.float32(streaks_mm), self._textures(window), muscle.texture,
        )  # fmt: skip

    def paint_bone(
        self,
        window: Window,
        distance: Plane,
        cortex_mm: float | Float32[np.ndarray, " rows"],
        cortex: Tissue,
        marrow: Tissue,
    ) -> None:
        """Paint a bone with its cortex, of one thickness or of one for each row."""
        thick_mm = np.broadcast_to(np.asarray(cortex_mm, np.float32), distance.shape[:1])
        compositing.blend_bone(
            self.amounts[0][window], self.amounts[1][window], distance,
            np.float32(self.grid.pixel_mm), np.ascontiguousarray(thick_mm), cortex.amounts,
            marrow.amounts,
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
        """Paint parenchyma; returns each pixel's share of lung."""
        share = np.empty_like(distance)
        compositing.blend_lung(
            self.amounts[0][window], self.amounts[1][window], distance, fissure,
            np.float32(self.grid.pixel_mm),
            np.float32(self.grid.first_mm + self.grid.pixel_mm * window[0].start),
            np.float32(self.grid.pixel_mm), tissue.amounts, np.array(air, np.float32),
            np.float32(20.0), self._textures(window), tissue.texture, share,
        )  # fmt: skip
        return share

    def paint_within(self, window: Window, distance: Plane, share: Plane, tissue: Tissue) -> None:
        """Paint a tissue on the part of each pixel that is lung."""
        compositing.blend_within(
            self.amounts[0][window], self.amounts[1][window], distance, share,
            np.float32(self.grid.pixel_mm), tissue.amounts,
        )  # fmt: skip

    def paint_lesion(self, lesion: Lesion, tissue: Tissue) -> None:
        """Paint a lesion with the texture of its traits.

        Args:
            tissue: its tissue, at 0 HU.
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
        compositing.blend(
            self.amounts[0][window], self.amounts[1][window], distance.astype(np.float32),
            np.float32(0.0), np.float32(self.grid.pixel_mm),
            tissue.scaled((1000 + traits.hu) / 1000).amounts, texture, strengths,
        )  # fmt: skip

    def noise(self, kind: int, window: Window) -> Plane:
        """One of the noises: 0 fine, 1 middle, 2 coarse, 3 fibrous, 4 of lobules."""
        return self._noise[(kind, *window)]

    def _textures(self, window: Window) -> Float32[np.ndarray, "noises rows columns"]:
        return self._noise[:, window[0], window[1]] if self._nodes else self._noise
