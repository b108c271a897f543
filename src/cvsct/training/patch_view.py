"""Views of patches for validation: CT numbers, texture spectra and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from cvsct.core.masks import SOFT_TISSUE_WINDOW, covered_fraction, soft_tissue
from cvsct.core.spectra import mean_over_patches, patch_spectra
from cvsct.core.volume import CTVolume, Geometry, HUWindow
from cvsct.training.logging import Picture

Images = Float[Tensor, "n 1 h w"]

PURE_TISSUE = 0.95
"""Smallest share of soft tissue of a patch that counts for the spectrum, as in evaluations."""

MIN_PURE_PATCHES = 8
"""Fewest pure patches; with fewer, spectra are of all patches."""

FLOOR_DB = 0.5
"""Smallest distance of two domains' spectra that a score is divided by."""


@dataclass(frozen=True)
class PatchView:
    """Patches in [-1, 1] of a window as HU, as texture and as pictures.

    Args:
        pixel_mm: their pixel spacing.
    """

    window: HUWindow
    pixel_mm: float

    @property
    def half_hu(self) -> float:
        """HU of a difference of 1."""
        return (self.window.high_hu - self.window.low_hu) / 2

    def hu(self, images: Images) -> Float[np.ndarray, "n h w"]:
        """CT numbers."""
        hu: Float[np.ndarray, "n h w"] = (
            ((images[:, 0] + 1) * self.half_hu + self.window.low_hu).float().cpu().numpy()
        )
        return hu

    def pure(self, images: Images) -> Bool[np.ndarray, " n"]:
        """Which patches are soft tissue enough for their spectrum; all, where few are."""
        hu = self.hu(images)
        pure = covered_fraction(soft_tissue(hu), hu.shape[-1])[:, 0, 0] >= PURE_TISSUE
        return pure if pure.sum() >= MIN_PURE_PATCHES else np.ones_like(pure)

    def log_power(
        self,
        images: Images,
        frequencies: Float[np.ndarray, " f"],
        which: Bool[np.ndarray, " n"],
    ) -> Float[np.ndarray, " f"]:
        """The mean texture spectrum of some of the patches."""
        hu = self.hu(images)[which]
        spacing = (self.pixel_mm, self.pixel_mm)
        apart = Geometry(np.zeros((len(hu), 3)), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), spacing, 0.0)
        volume = CTVolume(hu, apart)
        spectra = patch_spectra(volume, frequencies, hu.shape[-1], "soft", min_fraction=0.0)
        return mean_over_patches(spectra.log_power)

    def gray(self, images: Images) -> Picture:
        """The first of the patches as a picture in [0, 1]."""
        low, high = SOFT_TISSUE_WINDOW.limits_hu
        gray: Picture = np.clip((self.hu(images[:1])[0] - low) / (high - low), 0, 1)
        return gray
