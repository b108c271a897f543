"""Validation of paired training: figures of a model on held-out pairs while it trains.

Paired methods are taught by a distance of pixels. A model that is chosen by that alone may be the
one that blurs best: where the target is sharper or noisier, what cannot be foreseen costs least
when it is left out. The score counts texture as much as pixels.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from cvsct.core.spectra import distance_band_per_mm, distance_db, texture_frequencies
from cvsct.core.volume import HUWindow
from cvsct.training.logging import Picture
from cvsct.training.patch_view import FLOOR_DB, Images, PatchView


@runtime_checkable
class PairTranslator(Protocol):
    """Step with a generator from source to target, as the validator needs it."""

    def translate(self, direction: str, images: Images) -> Images:
        """Translate (`a2b`) as the finished model would."""


class PairValidator:
    """Validator of a step's generator: translated source patches against those of the target.

    Args:
        a: source patches in [-1, 1] of the window, on the step's device.
        b: the target's, of the same places.
        pixel_mm: their pixel spacing.
    """

    def __init__(self, a: Images, b: Images, pixel_mm: float, window: HUWindow) -> None:
        self.a, self.b = a, b
        self.view = PatchView(window, pixel_mm)
        spacings = (pixel_mm, pixel_mm)
        self.frequencies = texture_frequencies(a.shape[-1], spacings)
        self.band = distance_band_per_mm(spacings)
        self.pure = self.view.pure(b)

    def __call__(self, step: PairTranslator) -> dict[str, float]:
        """Figures, and the score: 1 for a model that does nothing, 0 for a perfect one.

        Returns:
            `error_hu`, mean absolute difference from the target; `psnr_db` on [0, 1] of the
            window; `spectrum_db`, distance of texture from the target's; `bias_hu`, mean
            difference. The first three also of the `input`.
        """
        translated = step.translate("a2b", self.a)
        figures = self._figures(translated)
        error = figures["error_hu"] / max(self.input["error_hu"], 1e-6)
        texture = figures["spectrum_db"] / max(self.input["spectrum_db"], FLOOR_DB)
        bias_hu = self.view.half_hu * float((translated - self.b).mean())
        return {
            "score": (error + texture) / 2,
            **figures,
            "bias_hu": bias_hu,
            **{f"input_{name}": value for name, value in self.input.items()},
        }

    @cached_property
    def input(self) -> dict[str, float]:
        """Figures of the source patches before translation."""
        return self._figures(self.a)

    def pictures(self, step: PairTranslator) -> dict[str, Picture]:
        """One patch of the source, translated, and of the target."""
        source = self.a[:1]
        shown = {
            "1_source": source,
            "2_translated": step.translate("a2b", source),
            "3_target": self.b,
        }
        return {f"a2b/{name}": self.view.gray(image) for name, image in shown.items()}

    def _figures(self, images: Images) -> dict[str, float]:
        difference = (images - self.b).double()
        mean_square = float(difference.square().mean()) / 4  # of [0, 1]
        return {
            "error_hu": self.view.half_hu * float(difference.abs().mean()),
            "psnr_db": -10 * float(np.log10(max(mean_square, 1e-12))),
            "spectrum_db": distance_db(
                self.frequencies,
                self.view.log_power(images, self.frequencies, self.pure),
                self._target_log_power,
                self.band,
            ),
        }

    @cached_property
    def _target_log_power(self) -> np.ndarray:
        return self.view.log_power(self.b, self.frequencies, self.pure)
