"""Trained models, and harmonization of volumes in memory with the same guards as on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cvsct.core.errors import UsageError
from cvsct.core.kinds import refuse_no_path, refuse_other_kind, texts
from cvsct.core.sampling import read_sample
from cvsct.core.volume import CTVolume, Harmonization
from cvsct.guard.apply import Guard
from cvsct.guard.scan_verdict import ScanVerdict
from cvsct.inference.harmonize_volume import harmonize_volume
from cvsct.inference.streaming import adapt_and_check, derivation_of, with_synthesis
from cvsct.inference.uncertainty import Ensemble, Uncertainty
from cvsct.io.dicom.derive import Derivation
from cvsct.methods.base import RunOptions
from cvsct.methods.registry import find_method
from cvsct.model.bundle import DIRECTIONS, Bundle, Direction
from cvsct.model.pretrained import bundled_names, model_folder


@dataclass(frozen=True)
class HarmonizedVolume:
    """A harmonized volume with its source and the findings of the guards.

    Args:
        volume: the harmonized volume in HU, on the grid of the source and with its padding. It
            knows what harmonized it, so that features and evaluations tell it from its source.
        source: the volume that was harmonized.
        input_check: the guard's verdict on the source (`kind` is `in_domain`, `at_target`,
            `out_of_domain` or `unknown`); None where the model holds no guard.
        slice_checks: one text per slice, in slice order: why the slice is flagged, or empty where
            the change is within the guard's limits.
        derivation: model, settings and target, as a derived series records them.
    """

    volume: CTVolume
    source: CTVolume = field(repr=False)
    input_check: ScanVerdict | None
    slice_checks: tuple[str, ...]
    derivation: Derivation = field(repr=False)

    def __post_init__(self) -> None:
        harmonization = Harmonization(
            self.derivation.uid(self.source.series_uid, "series"),
            self.derivation.target,
            self.derivation.model_sha256,
            self.input_check.kind if self.input_check else "",
        )
        object.__setattr__(self, "volume", replace(self.volume, harmonization=harmonization))

    @property
    def n_flagged(self) -> int:
        """Number of slices that the guard flagged because they were changed too much."""
        return sum(map(bool, self.slice_checks))


@dataclass(frozen=True)
class Model:
    """A trained model, as `load_model` and `train` return it.

    Args:
        bundle: weights, settings and guard of the model.
        folder: the folder that it was read from.
    """

    bundle: Bundle = field(repr=False)
    folder: Path

    @property
    def method(self) -> str:
        """Name of the model's method, as in `list_methods`."""
        return self.bundle.method

    @property
    def source(self) -> str:
        """Scanners, kernels and tube voltages of side A, which the model was trained on."""
        return str(self.bundle.source)

    @property
    def target(self) -> str:
        """Scanners, kernels and tube voltages of side B, which the model was trained on."""
        return str(self.bundle.target)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Directions that the model maps: `a2b`, and `b2a` where one training gives both."""
        return DIRECTIONS if find_method(self.method).reversible else DIRECTIONS[:1]

    @property
    def sha256(self) -> str:
        """SHA-256 over all files of the model, as hexadecimal text."""
        return self.bundle.sha256

    def card(self) -> str:
        """The model card as Markdown text: training data, range of validity, limits."""
        return self.bundle.card()

    def harmonize(
        self,
        volume: CTVolume,
        direction: Direction = "a2b",
        *,
        guard: Sequence[str] = (),
        engine: str = "auto",
        precision: str = "fp32",
        seed: int | None = None,
    ) -> HarmonizedVolume:
        """Harmonize a volume in memory, as if the other scanner had made it.

        The guard checks the volume before and each slice after, as `cvsct.harmonize` does.

        Args:
            volume: HU of shape (slices, rows, columns).
            direction: `a2b` from the model's source to its target, or `b2a`.
            guard: settings of the guard, as for `cvsct harmonize --guard`: `noise_db=12` changes
                a limit, `scan=note` accepts an unusual scan with a note, `off` checks nothing.
            engine: what runs a network: `auto`, `openvino` or `torch`.
            precision: precision of a network: `fp32` or `bf16`.
            seed: seed of noise that the method adds, for another draw of it. Without one the
                noise follows from the series (its UID, or its CT numbers), the model and each
                slice's position, so that it is the same in every run.

        Returns:
            The harmonized volume, float32 HU of the same shape and geometry, with the findings of
            the guard.

        Raises:
            UsageError: if `volume` is a path or anything else, the model does not map in that
                direction, or a guard setting is unknown.
            GuardError: if the volume is unlike the scans that the model was trained on.
            ModelError: if the model does not fit the volume, or gives values that are not finite.

        Example:
            >>> volume = cvsct.read_series(scans_of_a)
            >>> harmonized = cvsct.load_model(model).harmonize(volume)
            >>> harmonized.volume.shape == volume.shape, harmonized.input_check.kind
            (True, 'in_domain')
        """
        _refuse_no_volume(volume)
        reverse = self.is_reverse(direction)
        options = RunOptions(engine, precision)
        mapping = find_method(self.method).load(self.bundle, direction, options)
        model_guard = Guard.of(self.bundle, reverse, texts(guard))
        mapping, input_check = adapt_and_check(volume, mapping, model_guard, seed)
        result = harmonize_volume(volume, mapping)
        remarks = model_guard.watch()(volume, result)
        derivation = with_synthesis(
            derivation_of(self.bundle, mapping, reverse, keep_equipment=False), mapping
        )
        return HarmonizedVolume(result, volume, input_check, tuple(remarks), derivation)

    def uncertainty(
        self, volume: CTVolume, direction: Direction = "a2b", *, seed: int | None = None
    ) -> Uncertainty:
        """Harmonize a volume, and tell how far the result depends on the fit and on chance.

        The model is applied as its fits without each group of its patients would have it
        (delete-a-group jackknife), and with other draws of the noise that it adds. It takes five
        to ten times as long as `harmonize`, and checks nothing.

        Args:
            volume: HU of shape (slices, rows, columns).
            direction: `a2b` from the model's source to its target, or `b2a`.
            seed: seed of noise that the method adds, as in `harmonize`.

        Returns:
            The `Uncertainty`: `volume`, maps in HU of its shape (`fit_hu`, `synthesis_hu`,
            `total_hu`), `by_tissue()`, and `standard_error(statistic)` of anything that is computed
            of a volume.

        Raises:
            UsageError: if `volume` is a path or anything else, the model does not map in that
                direction, or does not tell its uncertainty: it is known of `spectrum` and
                `spectrum-network` models that were trained on scans.
            ModelError: if the model does not fit the volume, or gives values that are not finite.

        Example:
            >>> uncertainty = cvsct.load_model(model).uncertainty(cvsct.read_series(scans_of_a))
            >>> uncertainty.total_hu.shape == uncertainty.volume.shape
            True
        """
        _refuse_no_volume(volume)
        self.is_reverse(direction)  # refuses one that the model does not map
        method = find_method(self.method)
        mapping, sample = method.load(self.bundle, direction, RunOptions()), read_sample(volume)
        fitted = mapping.fitted_to(sample, seed)
        repeated = method.load_repeated(self.bundle, direction)
        ensemble = Ensemble.of(mapping, fitted, repeated, sample, seed)
        return ensemble.uncertainty(volume, harmonize_volume(volume, fitted))

    def is_reverse(self, direction: str) -> bool:
        """Whether a direction maps from B to A.

        Raises:
            UsageError: if there is no such direction, or the model does not map that way.
        """
        if direction not in DIRECTIONS:
            raise UsageError(f"no direction {direction!r}; choose one of {', '.join(DIRECTIONS)}")
        if direction not in self.directions:
            raise UsageError(
                f"{self.method} maps only from A to B; train it with the scans swapped"
            )
        return direction == "b2a"


def _refuse_no_volume(volume: object) -> None:
    """Refuse anything but a volume in memory.

    Raises:
        UsageError: saying what to do with it.
    """
    if isinstance(volume, HarmonizedVolume):
        raise UsageError("volume: harmonized already; give its `source`, or its `volume` to map on")
    refuse_other_kind(
        CTVolume,
        "a CTVolume; read one series with cvsct.read_series, or give paths to cvsct.harmonize",
        volume=volume,
    )


def load_model(path_or_name: Path | str) -> Model:
    """Read a trained model after checking its hashes.

    Args:
        path_or_name: a model folder, or a name of `list_models`.

    Raises:
        UsageError: if there is no such model.
        ModelError: if it is unfinished, altered or of another format.

    Example:
        >>> cvsct.load_model("siemens-bl64-br40-spectrum").directions
        ('a2b', 'b2a')
    """
    refuse_no_path("or a name of list_models", path_or_name=path_or_name)
    folder = model_folder(Path(path_or_name)).absolute()
    return Model(Bundle.read(folder), folder)


def list_models() -> tuple[str, ...]:
    """Names of the trained models that come with this version, for `load_model`.

    Example:
        >>> "siemens-bl64-br40-spectrum" in cvsct.list_models()
        True
    """
    return bundled_names()
