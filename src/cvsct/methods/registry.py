"""Table of harmonization methods with the functions that configure, train and load each.

One table drives training, harmonization, evaluation, benchmark and the command line. A variant is
a row that differs in its settings, not a subclass. A row's functions import what they need when
they are called: nothing heavy is imported here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from cvsct.core.download import DownloadOptions
from cvsct.core.errors import MissingExtraError, UsageError
from cvsct.core.settings import Settings
from cvsct.core.text import did_you_mean
from cvsct.core.volume import Scans
from cvsct.methods.base import Loader, RunOptions, Trainer, TrainingRequest
from cvsct.methods.settings import PRESETS, SettingInfo, describe_settings, read_settings
from cvsct.methods.volume_mapping import RepeatedMapping, VolumeMapping
from cvsct.model.bundle import Bundle, Direction

if TYPE_CHECKING:
    from cvsct.methods.spectrum.side import Side

Kind = Literal["classical", "unpaired", "paired"]
DEFAULT_PRESET = "cpu"
TRAIN_OPTIONS = ("preset", "max_steps", "max_minutes", "seed", "resume")


@runtime_checkable
class Configure(Protocol):
    """Function that makes a method's settings from a preset and the user's values."""

    def __call__(self, preset: str, given: Mapping[str, Any], /) -> Settings:
        """Merge the values into the preset and check them.

        Raises:
            UsageError: for a preset, key or value that does not exist, with the nearest one.
        """
        ...


@runtime_checkable
class ObtainFiles(Protocol):
    """Function that finds or downloads files of others that a training needs, before it starts."""

    def __call__(self, config: Settings, options: DownloadOptions, /) -> None:
        """Have the files of a training with these settings in their places.

        Raises:
            TrainingError: if one is missing and may not or cannot be downloaded.
        """
        ...


@runtime_checkable
class Fitter(Protocol):
    """Function that trains a model from scans or from what was measured of them."""

    def __call__(self, source: Side, target: Side, request: TrainingRequest, /) -> Bundle:
        """Train on both sides, each of either kind.

        Raises:
            CvsctError: if nothing can be learned from them.
        """
        ...


@runtime_checkable
class LoadRepeated(Protocol):
    """Function that makes of a model the mappings of its repeated fits."""

    def __call__(self, bundle: Bundle, direction: Direction, /) -> tuple[RepeatedMapping, ...]:
        """Make the mappings of one direction.

        Raises:
            ModelError: if the model is damaged.
        """
        ...


def _load_no_repeated(bundle: Bundle, direction: Direction) -> tuple[RepeatedMapping, ...]:
    """Load nothing: the method fits once."""
    return ()


def _obtain_none(config: Settings, options: DownloadOptions) -> None:
    """Obtain nothing: the method learns from the scans alone."""


@dataclass(frozen=True)
class Method:
    """One harmonization method: a row of the table.

    Args:
        configure: makes the settings of a training; those of a network need the extra `train`.
        train: makes a model of two sides' scans.
        load: makes of a model what maps volumes in one direction.
        fit: the same as `train`, of scans or profiles; None for a method that needs images.
        load_repeated: makes of a model the mappings that it would be without some of its patients;
            none where the model does not tell.
        obtain_files: has files of others in their places that `train` needs.
        reversible: whether one training serves both directions.
        guarded: whether a guard must watch it (`cvsct.guard`): not where nothing is changed.
        uses: the `train` options that mean something to it; others are noted, not refused.
        settings: what distinguishes this row from others with the same trainer.
    """

    name: str
    kind: Kind
    summary: str
    configure: Configure
    train: Trainer
    load: Loader
    fit: Fitter | None = None
    load_repeated: LoadRepeated = _load_no_repeated
    obtain_files: ObtainFiles = _obtain_none
    reversible: bool = True
    recommended: bool = False
    guarded: bool = True
    uses: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def settings_model(self) -> type[Settings]:
        """Class of the method's settings."""
        return type(self.configure(DEFAULT_PRESET, self.settings))

    def describe_settings(self) -> tuple[SettingInfo, ...]:
        """Describe every setting, with its default and its value in each preset.

        Raises:
            MissingExtraError: for a network where the extra `train` is not installed.
        """
        names = PRESETS if "preset" in self.uses else ()
        return describe_settings(
            self.settings_model(),
            self.configure(DEFAULT_PRESET, self.settings),
            {name: self.configure(name, self.settings) for name in names},
        )


@contextlib.contextmanager
def _needs_torch(method: str) -> Iterator[None]:
    """Turn a missing library into an error that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{method} needs {error.name}, which is not installed; "
            "install it with: pip install 'cvsct[train]'"
        ) from error


def _configure_cyclegan(preset: str, given: Mapping[str, Any]) -> Settings:
    with _needs_torch("the settings of a network"):
        from cvsct.training.cyclegan.settings import cycle_config
    return cycle_config(preset, given)


def _configure_paired(preset: str, given: Mapping[str, Any]) -> Settings:
    with _needs_torch("the settings of a network"):
        from cvsct.training.paired.settings import paired_config
    return paired_config(preset, given)


def _obtain_vgg_weights(config: Settings, options: DownloadOptions) -> None:
    from cvsct.training.settings import TrainingConfig
    from cvsct.training.vgg_files import find_weights

    wanted = config.wanted_weights() if isinstance(config, TrainingConfig) else None
    if wanted:
        find_weights(wanted, options)


def _configure_input(_: str, given: Mapping[str, Any]) -> Settings:
    from cvsct.methods.identity import InputSettings

    return read_settings(InputSettings, given)


def _configure_histogram(_: str, given: Mapping[str, Any]) -> Settings:
    from cvsct.methods.histogram import HistogramSettings

    return read_settings(HistogramSettings, given)


def _configure_spectrum(_: str, given: Mapping[str, Any]) -> Settings:
    from cvsct.methods.spectrum.settings import SpectrumSettings

    return read_settings(SpectrumSettings, given)


def _configure_band_energy(_: str, given: Mapping[str, Any]) -> Settings:
    from cvsct.methods.band_energy import BandEnergySettings

    return read_settings(BandEnergySettings, given)


def _train_cyclegan(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    with _needs_torch(request.method):
        from cvsct.training.cyclegan.train import train_cycle
    return train_cycle(source, target, request)


def _train_paired(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    with _needs_torch(request.method):
        from cvsct.training.paired.train import train_paired
    return train_paired(source, target, request)


def _load_network(bundle: Bundle, direction: Direction, options: RunOptions) -> VolumeMapping:
    from cvsct.inference.engines.load import load_network

    reverse = direction == "b2a"
    return load_network(bundle, reverse, options.engine, options.precision, options.threads)


def _train_input(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    from cvsct.methods.identity import train_input

    return train_input(source, target, request)


def _load_input(bundle: Bundle, direction: Direction, _: RunOptions) -> VolumeMapping:
    from cvsct.methods.identity import load_input

    return load_input(bundle, direction == "b2a")


def _train_histogram(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    from cvsct.methods.histogram import train_histogram

    return train_histogram(source, target, request)


def _load_histogram(bundle: Bundle, direction: Direction, _: RunOptions) -> VolumeMapping:
    from cvsct.methods.histogram import load_histogram

    return load_histogram(bundle, direction == "b2a")


def _train_spectrum(source: Side, target: Side, request: TrainingRequest) -> Bundle:
    from cvsct.methods.spectrum.train import train_spectrum

    return train_spectrum(source, target, request)


def _load_repeated_spectrum(bundle: Bundle, direction: Direction) -> tuple[RepeatedMapping, ...]:
    from cvsct.methods.spectrum.apply import load_repeated

    return load_repeated(bundle, direction == "b2a")


def _load_spectrum(bundle: Bundle, direction: Direction, _: RunOptions) -> VolumeMapping:
    from cvsct.methods.spectrum.apply import load_spectrum

    return load_spectrum(bundle, direction == "b2a")


def _train_spectrum_network(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    from cvsct.methods.spectrum_network.train import train_spectrum_network

    return train_spectrum_network(source, target, request)


def _load_spectrum_network(bundle: Bundle, direction: Direction, _: RunOptions) -> VolumeMapping:
    from cvsct.methods.spectrum_network.apply import load_spectrum_network

    return load_spectrum_network(bundle, direction == "b2a")


def _load_repeated_network(bundle: Bundle, direction: Direction) -> tuple[RepeatedMapping, ...]:
    from cvsct.methods.spectrum_network.apply import load_repeated

    return load_repeated(bundle, direction == "b2a")


def _train_band_energy(source: Side, target: Side, request: TrainingRequest) -> Bundle:
    from cvsct.methods.band_energy import train_band_energy

    return train_band_energy(source, target, request)


def _load_band_energy(bundle: Bundle, direction: Direction, _: RunOptions) -> VolumeMapping:
    from cvsct.methods.band_energy import load_band_energy

    return load_band_energy(bundle, direction == "b2a")


_CVSCT = Method(
    name="cvsct",
    kind="unpaired",
    summary="CVS-CT: CycleGAN with CBAM attention and a VGG texture loss (the paper)",
    configure=_configure_cyclegan,
    train=_train_cyclegan,
    load=_load_network,
    obtain_files=_obtain_vgg_weights,
    uses=TRAIN_OPTIONS,
    settings={"generator.attention": True},
)

_SPECTRUM = Method(
    name="spectrum",
    kind="classical",
    summary="filter with a gain each for noise and structure, from the scanners' texture spectra",
    configure=_configure_spectrum,
    train=_train_spectrum,
    load=_load_spectrum,
    fit=_train_spectrum,
    load_repeated=_load_repeated_spectrum,
    recommended=True,
)

_CGAN = Method(
    name="cgan",
    kind="paired",
    summary="pix2pix: U-Net and PatchGAN on pairs (Isola 2017)",
    configure=_configure_paired,
    train=_train_paired,
    load=_load_network,
    obtain_files=_obtain_vgg_weights,
    reversible=False,
    uses=TRAIN_OPTIONS,
    settings={"generator.architecture": "unet", "critics": ["conditional"]},
)

_ROWS = (
    Method(
        name="input",
        kind="classical",
        summary="leaves the images unchanged: the reference that other methods are compared with",
        configure=_configure_input,
        train=_train_input,
        load=_load_input,
        guarded=False,
    ),
    Method(
        name="histogram",
        kind="classical",
        summary="matches the distribution of HU between the two scanners",
        configure=_configure_histogram,
        train=_train_histogram,
        load=_load_histogram,
    ),
    _SPECTRUM,
    replace(
        _SPECTRUM,
        name="spectrum-plain",
        summary="zero-phase filter with one gain, the ratio of the scanners' texture spectra",
        recommended=False,
        settings={"gains": "one"},
    ),
    Method(
        name="spectrum-network",
        kind="classical",
        summary="spectrum, then a network of the package that sharpens edges and calms noise",
        configure=_configure_spectrum,
        train=_train_spectrum_network,
        load=_load_spectrum_network,
        load_repeated=_load_repeated_network,
    ),
    Method(
        name="band-energy",
        kind="classical",
        summary="zero-phase filter, then the local energy of frequency bands scaled by position",
        configure=_configure_band_energy,
        train=_train_band_energy,
        load=_load_band_energy,
        fit=_train_band_energy,
    ),
    replace(
        _CVSCT,
        name="cyclegan",
        summary="CycleGAN: CVS-CT without attention and without the texture loss",
        settings={"generator.attention": False, "weight_domain": 0.0},
    ),
    replace(
        _CVSCT,
        name="cvsct-1",
        summary="CVS-CT without attention (the paper's first ablation)",
        settings={"generator.attention": False},
    ),
    replace(
        _CVSCT,
        name="cvsct-2",
        summary="CVS-CT without the texture loss (the paper's second ablation)",
        settings={"generator.attention": True, "weight_domain": 0.0},
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
    """Find a method by its name.

    Raises:
        UsageError: if there is none, with the nearest one and the list.
    """
    if name not in METHODS:
        hint = did_you_mean(name, METHODS)
        raise UsageError(f"no method {name!r}; {hint}choose one of {', '.join(METHODS)}")
    return METHODS[name]
