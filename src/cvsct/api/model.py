"""A trained model, and volumes harmonized by it in memory with the same guards as on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cvsct.core.errors import UsageError
from cvsct.core.volume import CTVolume
from cvsct.guard.apply import Guard
from cvsct.guard.verdict import ScanVerdict
from cvsct.inference.streaming import derivation_of, fitted_and_checked, harmonize_volume
from cvsct.io.dicom.derive import Derivation
from cvsct.methods.base import RunOptions
from cvsct.methods.registry import find_method
from cvsct.model.bundle import DIRECTIONS, Bundle, Direction
from cvsct.model.pretrained import bundled_names, model_folder


@dataclass(frozen=True)
class HarmonizedVolume:
    """A volume as the other scanner would have made it, and what the guards say of it.

    Args:
        volume: the new HU, on the source's grid; padding is the source's.
        source: the volume that was given.
        input_check: of the scan before it was mapped; None where the model holds no guard.
        slice_checks: what each flagged slice says of itself, in slice order; empty text for a
            slice that was not changed too much.
        derivation: what its derived series says of how it was made.
    """

    volume: CTVolume
    source: CTVolume = field(repr=False)
    input_check: ScanVerdict | None
    slice_checks: tuple[str, ...]
    derivation: Derivation = field(repr=False)

    @property
    def n_flagged(self) -> int:
        """Slices that were changed too much."""
        return sum(map(bool, self.slice_checks))


@dataclass(frozen=True)
class Model:
    """A trained model: what it learned from, which way it maps, and volumes mapped by it.

    Args:
        bundle: weights, settings and guard.
        folder: where it was read from.
    """

    bundle: Bundle = field(repr=False)
    folder: Path

    @property
    def method(self) -> str:
        """Its row of `list_methods`."""
        return self.bundle.method

    @property
    def source(self) -> str:
        """The scanners of side A, by technical attributes."""
        return str(self.bundle.source)

    @property
    def target(self) -> str:
        """The scanners of side B."""
        return str(self.bundle.target)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """`a2b`, and `b2a` where one training serves both."""
        return DIRECTIONS if find_method(self.method).reversible else DIRECTIONS[:1]

    @property
    def sha256(self) -> str:
        """Hash over all files of the model."""
        return self.bundle.sha256

    def card(self) -> str:
        """The model card, as Markdown: training data, range of validity, limits."""
        return self.bundle.card()

    def harmonize(
        self,
        volume: CTVolume,
        direction: Direction = "a2b",
        *,
        guard: Sequence[str] = (),
        engine: str = "auto",
        precision: str = "fp32",
    ) -> HarmonizedVolume:
        """Rewrite a volume in memory as if the other scanner had made it.

        Args:
            volume: HU of shape (slices, rows, columns).
            direction: `a2b` from source to target, or `b2a`.
            guard: as `cvsct harmonize --guard`: `noise_db=12`, `scan=note`, `off`.
            engine: `auto`, `openvino` or `torch`, for networks.
            precision: `fp32` or `bf16`, for networks.

        Raises:
            UsageError: for a direction the model does not serve, or guard words that set nothing.
            GuardError: if the volume is unlike the scans the model learned from.
            ModelError: if the model does not fit the volume, or gives values that are not finite.

        Example:
            >>> volume = cvsct.read_series(scans_of_a)
            >>> harmonized = cvsct.load_model(model).harmonize(volume)
            >>> harmonized.volume.shape == volume.shape, harmonized.input_check.kind
            (True, 'in_domain')
        """
        reverse = self.is_reverse(direction)
        options = RunOptions(engine, precision)
        mapping = find_method(self.method).load(self.bundle, direction, options)
        watcher = Guard.of(self.bundle, reverse, guard)
        mapping, input_check = fitted_and_checked(volume, mapping, watcher)
        result = harmonize_volume(volume, mapping)
        remarks = watcher.watch()(volume, result)
        derivation = derivation_of(self.bundle, mapping, reverse, keep_equipment=False)
        return HarmonizedVolume(result, volume, input_check, tuple(remarks), derivation)

    def is_reverse(self, direction: str) -> bool:
        """Whether a direction runs from B to A.

        Raises:
            UsageError: if there is no such direction, or the model does not serve it.
        """
        if direction not in DIRECTIONS:
            raise UsageError(f"no direction {direction!r}; choose one of {', '.join(DIRECTIONS)}")
        if direction not in self.directions:
            raise UsageError(
                f"{self.method} maps only from A to B; train it with the scans swapped"
            )
        return direction == "b2a"


def load_model(path_or_name: Path | str) -> Model:
    """Read a model folder, or a model that comes with the package, after checking its hashes.

    Raises:
        ModelError: if there is none, or it is unfinished, altered or of another format.

    Example:
        >>> cvsct.load_model("siemens-bl64-br40-spectrum").directions
        ('a2b', 'b2a')
    """
    folder = model_folder(Path(path_or_name)).absolute()
    return Model(Bundle.read(folder), folder)


def list_models() -> tuple[str, ...]:
    """Names of the models that come with this version.

    Example:
        >>> "siemens-bl64-br40-spectrum" in cvsct.list_models()
        True
    """
    return bundled_names()
