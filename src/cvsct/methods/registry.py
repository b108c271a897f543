"""The METHODS table: every harmonisation method, and where its parts are found.

One table drives `train`, `harmonize`, `evaluate`, `benchmark` and the command line. A variant is
a row that differs in its settings, not a subclass. Nothing heavy is imported here: a row names
its functions as `module:attribute` and they are loaded when they are used.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cvsct.core.errors import MissingExtraError, UsageError

Kind = Literal["classical", "unpaired", "paired"]
TRAIN_OPTIONS = ("preset", "max_steps", "max_minutes", "seed", "resume")


@dataclass(frozen=True)
class Method:
    """One row.

    Args:
        trainer: `module:function` that takes (source volumes, target volumes, TrainingRequest)
            and returns a Bundle.
        loader: `module:function` that takes (Bundle, reverse, engine) and returns what maps a
            CTVolume to its new HU (`models.mapping`); a network's takes a precision as well.
        reversible: whether one training serves both directions.
        guarded: whether a guard must watch it (`cvsct.guard`): not where nothing is changed.
        uses: the `train` options that mean something to it; others are noted, not refused.
        settings: what distinguishes this row from others with the same trainer.
    """

    name: str
    kind: Kind
    summary: str
    trainer: str
    loader: str
    reversible: bool = True
    recommended: bool = False
    guarded: bool = True
    uses: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def load(self, what: Literal["trainer", "loader"]) -> Any:
        """Import and return the row's trainer or loader.

        Raises:
            MissingExtraError: if a library it needs is not installed.
        """
        module, attribute = getattr(self, what).split(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"{self.name} needs {error.name}, which is not installed; "
                "install it with: pip install 'cvsct[train]'"
            ) from error


_CVSCT = Method(
    name="cvsct",
    kind="unpaired",
    summary="CVS-CT: CycleGAN with CBAM attention and a VGG texture loss (the paper)",
    trainer="cvsct.training.cyclegan.train:train_cycle",
    loader="cvsct.inference.engines.load:load_network",
    uses=TRAIN_OPTIONS,
    settings={"attention": True, "domain_loss": True},
)

_SPECTRUM = Method(
    name="spectrum",
    kind="classical",
    summary="filters noise and structure by a gain each, from the scanners' texture spectra",
    trainer="cvsct.methods.classical:train_spectrum",
    loader="cvsct.methods.classical:load_spectrum",
    recommended=True,
)

_CGAN = Method(
    name="cgan",
    kind="paired",
    summary="pix2pix: U-Net and PatchGAN on pairs (Isola 2017)",
    trainer="cvsct.training.paired.train:train_paired",
    loader="cvsct.inference.engines.load:load_network",
    reversible=False,
    uses=TRAIN_OPTIONS,
    settings={"generator.architecture": "unet", "critics": ["conditional"]},
)

_ROWS = (
    Method(
        name="input",
        kind="classical",
        summary="leaves the images as they are: the row every other is compared with",
        trainer="cvsct.methods.classical:train_input",
        loader="cvsct.methods.classical:load_input",
        guarded=False,
    ),
    Method(
        name="histogram",
        kind="classical",
        summary="matches the distribution of HU between the two scanners",
        trainer="cvsct.methods.classical:train_histogram",
        loader="cvsct.methods.classical:load_histogram",
    ),
    _SPECTRUM,
    replace(
        _SPECTRUM,
        name="spectrum-plain",
        summary="one zero-phase filter for all, from the ratio of the scanners' texture spectra",
        recommended=False,
        settings={"gains": "one"},
    ),
    Method(
        name="band-energy",
        kind="classical",
        summary="the same filter, then the local energy of frequency bands scaled by position",
        trainer="cvsct.methods.band_energy:train_band_energy",
        loader="cvsct.methods.band_energy:load_band_energy",
    ),
    replace(
        _CVSCT,
        name="cyclegan",
        summary="CVS-CT without attention and without the texture loss",
        settings={"attention": False, "domain_loss": False},
    ),
    replace(
        _CVSCT,
        name="cvsct-1",
        summary="CVS-CT without attention (the paper's first ablation)",
        settings={"attention": False, "domain_loss": True},
    ),
    replace(
        _CVSCT,
        name="cvsct-2",
        summary="CVS-CT without the texture loss (the paper's second ablation)",
        settings={"attention": True, "domain_loss": False},
    ),
    _CVSCT,
    replace(
        _CGAN,
        name="choe-cnn",
        summary="residual CNN on pairs (Choe 2019)",
        settings={
            "generator.architecture": "residual-cnn",
            "critics": [],
            "pixels": "l2",
            "weight_pixels": 1.0,
        },
    ),
    _CGAN,
    replace(
        _CGAN,
        name="ganai",
        summary="pix2pix with generator and discriminators learning in turns (Liang 2018)",
        settings={
            "generator.architecture": "unet",
            "critics": ["conditional", "plain"],
            "alternation.phase_steps": 50,
        },
    ),
    replace(
        _CGAN,
        name="stan-ct",
        summary="GAN on pairs with latent and feature losses (Selim 2020)",
        settings={
            "generator.architecture": "unet",
            "critics": ["plain"],
            "weight_latent": 1.0,
            "weight_feature": 1.0,
        },
    ),
    replace(
        _CGAN,
        name="radiomicgan",
        summary="U-Net on a frozen ImageNet VGG, widening HU windows, on pairs (Selim 2021)",
        settings={
            "generator.architecture": "vgg-unet",
            "critics": ["conditional"],
            "window_stages": [0.17, 0.34, 0.68, 1.0],
        },
    ),
)

METHODS: dict[str, Method] = {row.name: row for row in _ROWS}


def list_methods() -> tuple[Method, ...]:
    """Every harmonization method, those without a network first.

    Example:
        >>> [row.name for row in cvsct.list_methods() if row.recommended]
        ['spectrum']
    """
    return _ROWS


def find_method(name: str) -> Method:
    """The row of that name.

    Raises:
        UsageError: if there is none.
    """
    if name not in METHODS:
        raise UsageError(f"no method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]
