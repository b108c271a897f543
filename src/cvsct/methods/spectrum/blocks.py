"""Cutting of a slice into overlapping blocks under a sine window, and their sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from jaxtyping import Float, Float32

from cvsct.methods.spectrum.patches import RADIUS_UNIT_MM

BLOCK_MM = 28.0
"""Side of a block: wide enough to resolve gains over 0.07/mm, small enough to hold one edge."""

MAX_RADIUS_SQ = 4.0
"""Squared radius in (100 mm)² beyond which the noise gain is constant: 200 mm."""

Planes = Float32[np.ndarray, "down across rows columns"]


@dataclass(frozen=True)
class Blocks:
    """Blocks of slices of one shape, which overlap by half; edges are mirrored.

    Args:
        shape: rows and columns of a slice.
        pixel_mm: spacing of rows and columns.
        size: rows and columns of a block; half of each is the step to the next.
        window: sine window of a block; squared and overlapped by half it adds up to 1.
    """

    shape: tuple[int, int]
    pixel_mm: tuple[float, float]
    size: tuple[int, int]
    window: Float32[np.ndarray, "rows columns"]

    @classmethod
    def of(cls, shape: tuple[int, int], pixel_mm: tuple[float, float]) -> Blocks:
        """Blocks of `BLOCK_MM`."""
        rows, columns = (max(4, 2 * round(BLOCK_MM / mm / 2)) for mm in pixel_mm)
        down, across = (np.sin(np.pi * (np.arange(n) + 0.5) / n) for n in (rows, columns))
        return cls(shape, pixel_mm, (rows, columns), (down[:, None] * across).astype(np.float32))

    @property
    def steps(self) -> tuple[int, int]:
        """Rows and columns from one block to the next."""
        return self.size[0] // 2, self.size[1] // 2

    @property
    def counts(self) -> tuple[int, int]:
        """Number of blocks down and across."""
        down, across = (-(-n // step) + 1 for n, step in zip(self.shape, self.steps, strict=True))
        return down, across

    @property
    def centers_px(self) -> tuple[Float[np.ndarray, " down"], Float[np.ndarray, " across"]]:
        """Rows and columns of the blocks' centers, in pixels of the slice."""
        down, across = (
            np.arange(count) * step - 0.5
            for count, step in zip(self.counts, self.steps, strict=True)
        )
        return down, across

    @property
    def radius_offset(self) -> Float32[np.ndarray, "down across 1 1"]:
        """Squared distance of each block from the middle of the image in (100 mm)², less one."""
        down, across = (
            (centers + 0.5 - n / 2) * mm / RADIUS_UNIT_MM
            for centers, n, mm in zip(self.centers_px, self.shape, self.pixel_mm, strict=True)
        )
        radius_sq = np.minimum(down[:, None] ** 2 + across**2, MAX_RADIUS_SQ)
        return (radius_sq - 1).astype(np.float32)[..., None, None]

    @property
    def frequencies_per_mm(
        self,
    ) -> tuple[Float[np.ndarray, "rows 1"], Float[np.ndarray, " half"]]:
        """Frequencies of a block's spectrum in cycles/mm, down and across."""
        down = scipy.fft.fftfreq(self.size[0], self.pixel_mm[0])[:, None]
        return down, scipy.fft.rfftfreq(self.size[1], self.pixel_mm[1])

    def cut(self, plane: Float32[np.ndarray, "_ _"]) -> Planes:
        """Blocks of a slice, as views of it with mirrored margins."""
        wide = np.pad(plane, self._margins, mode="symmetric")
        views = np.lib.stride_tricks.sliding_window_view(wide, self.size)
        return views[:: self.steps[0], :: self.steps[1]]

    def joined(self, blocks: Planes) -> Float32[np.ndarray, "_ _"]:
        """The slice that windowed blocks add up to."""
        rows, columns = self.size
        total = np.zeros(
            [n + sum(margin) for n, margin in zip(self.shape, self._margins, strict=True)],
            dtype=np.float32,
        )
        for down in (0, 1):
            for across in (0, 1):
                apart = blocks[down::2, across::2]
                height, width = apart.shape[0] * rows, apart.shape[1] * columns
                top, left = down * rows // 2, across * columns // 2
                total[top : top + height, left : left + width] += apart.swapaxes(1, 2).reshape(
                    height, width
                )
        (above, _), (before, _) = self._margins
        return total[above : above + self.shape[0], before : before + self.shape[1]]

    @property
    def _margins(self) -> list[tuple[int, int]]:
        """Rows and columns that are mirrored at each end."""
        return [
            (step, (count + 1) * step - n - step)
            for n, step, count in zip(self.shape, self.steps, self.counts, strict=True)
        ]
