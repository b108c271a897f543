"""Validation of unpaired training: figures of a model, measured without pairs while it trains.

A GAN's losses do not say: each network's depends on the other's. These figures do not move with
the discriminators. All come from the averaged generators on fixed patches, held out where there
are enough scans. notebook/decisions/008-best-checkpoint.md says why the score is what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cvsct.core.masks import blurred
from cvsct.core.spectra import distance_band_per_mm, distance_db, texture_frequencies
from cvsct.core.volume import HUWindow
from cvsct.training.logging import Picture
from cvsct.training.patch_view import FLOOR_DB, Images, PatchView
from cvsct.training.texture_loss import TextureLoss

BIAS_UNIT_HU = 10.0


@runtime_checkable
class Translator(Protocol):
    """Step with generators of both directions, as the validator needs it.

    Attributes:
        texture_loss: texture features, where it has some.
    """

    texture_loss: TextureLoss | None

    def translate(self, direction: str, images: Images) -> Images:
        """Translate (`a2b`, `b2a`) as the finished model would."""


@dataclass(frozen=True)
class DomainPatches:
    """Fixed patches of one domain.

    Args:
        unit: in [-1, 1] of the window, of held-out patients where there are any.
        pixel_mm: their pixel spacing, or what is typical of the domain.
        spectrum_patches: patches of every patient, for spectra; `unit` where there are none. No
            network can memorize a spectrum, which is a mean, and the spectrum of one body differs
            from that of others by more than a trained model's from its target's.
    """

    unit: Images
    pixel_mm: float
    spectrum_patches: Float[Tensor, "many 1 h w"] | None = None

    @property
    def texture(self) -> Float[Tensor, "_ 1 h w"]:
        """Patches whose spectrum stands for the domain."""
        return self.unit if self.spectrum_patches is None else self.spectrum_patches


class CycleValidator:
    """Validator of a step's generators on fixed patches of both domains.

    Args:
        a: patches of domain A, on the step's device.
        b: patches of domain B.
    """

    def __init__(self, a: DomainPatches, b: DomainPatches, window: HUWindow) -> None:
        self.samples = {"a": a, "b": b}
        self.views = {
            side: PatchView(window, patches.pixel_mm) for side, patches in self.samples.items()
        }
        self.half_hu = self.views["a"].half_hu
        size_px = a.unit.shape[-1]
        spacings = (a.pixel_mm, b.pixel_mm)
        self.frequencies = texture_frequencies(size_px, spacings)
        self.band = distance_band_per_mm(spacings)
        self.pure = {
            side: self.views[side].pure(patches.texture) for side, patches in self.samples.items()
        }
        self._target_grams: dict[str, list[Tensor]] = {}

    def __call__(self, step: Translator) -> dict[str, float]:
        """Figures of both directions, and the score: 1 for a model that does nothing.

        Returns:
            For each direction (`_a2b`, `_b2a`): `spectrum_db`, the distance of translated texture
            from the target's; `gram`, the same by VGG features where the step has them; `bias_hu`
            and `bias_p95_hu`, by how much a patch's mean moves; `idempotence_hu`, how much patches
            that are the target's already are changed; `cycle_hu`, how far patches are from
            themselves after both directions.
        """
        forward, backward = (
            self._measure_direction(step, *sides) for sides in (("a", "b"), ("b", "a"))
        )
        scores = [
            figures["spectrum_db"] / max(self.input_db, FLOOR_DB)
            + figures["bias_hu"] / BIAS_UNIT_HU
            + figures["idempotence_hu"] / self.texture_hu
            for figures in (forward, backward)
        ]
        return {
            "score": sum(scores) / 2,
            **{f"{name}_a2b": value for name, value in forward.items()},
            **{f"{name}_b2a": value for name, value in backward.items()},
        }

    @cached_property
    def input_db(self) -> float:
        """Distance of the domains' texture before anything is done."""
        power = {
            side: self._log_power(patches.texture, side) for side, patches in self.samples.items()
        }
        return distance_db(self.frequencies, power["a"], power["b"], self.band)

    @cached_property
    def texture_hu(self) -> float:
        """Standard deviation of texture, noise above all, the mean of both domains.

        What changes images that need nothing done by as much has failed.
        """
        hu = [
            self.views[side].hu(patches.texture)[self.pure[side]]
            for side, patches in self.samples.items()
        ]
        return float(np.mean([(side_hu - blurred(side_hu)).std() for side_hu in hu]))

    def pictures(self, step: Translator) -> dict[str, Picture]:
        """One patch of each domain as it is, translated, and beside a real one of the other."""
        shown = {}
        for source, target in (("a", "b"), ("b", "a")):
            real = self.samples[source].unit[:1]
            images = (real, step.translate(f"{source}2{target}", real), self.samples[target].unit)
            for number, (name, image) in enumerate(
                zip(("source", "translated", "target"), images, strict=True), 1
            ):
                shown[f"{source}2{target}/{number}_{name}"] = self.views[source].gray(image)
        return shown

    def _measure_direction(self, step: Translator, source: str, target: str) -> dict[str, float]:
        direction, inverse = f"{source}2{target}", f"{target}2{source}"
        real, wanted = self.samples[source].unit, self.samples[target].unit
        translated = step.translate(direction, real)
        spectrum_patches = self.samples[source].spectrum_patches
        textured = (
            translated if spectrum_patches is None else step.translate(direction, spectrum_patches)
        )
        shift_hu = self.half_hu * (translated - real).mean(dim=(1, 2, 3)).abs().cpu().numpy()
        figures = {
            "spectrum_db": distance_db(
                self.frequencies,
                self._log_power(textured, source),
                self._log_power(self.samples[target].texture, target),
                self.band,
            ),
            "bias_hu": float(shift_hu.mean()),
            "bias_p95_hu": float(np.percentile(shift_hu, 95)),
            "idempotence_hu": self._difference_hu(step.translate(direction, wanted), wanted),
            "cycle_hu": self._difference_hu(step.translate(inverse, translated), real),
        }
        if step.texture_loss is not None:
            figures["gram"] = self._gram(step.texture_loss, translated, target)
        return figures

    def _difference_hu(self, images: Images, wanted: Images) -> float:
        return self.half_hu * float((images - wanted).abs().mean())

    def _gram(self, texture_loss: TextureLoss, translated: Images, target: str) -> float:
        """Squared distance of mean Gram matrices over the target's energy, a mean over layers."""
        if target not in self._target_grams:
            self._target_grams[target] = texture_loss.mean_grams(self.samples[target].unit)
        pairs = zip(texture_loss.mean_grams(translated), self._target_grams[target], strict=True)
        layers = [(now - want).square().sum() / want.square().sum() for now, want in pairs]
        return float(torch.stack(layers).mean())

    def _log_power(self, images: Images, side: str) -> Float[np.ndarray, " f"]:
        """The texture spectrum of a side's patches, as they are or translated."""
        return self.views[side].log_power(images, self.frequencies, self.pure[side])
