"""Uncertainty of harmonized images: how far they depend on who was learned from, and on chance.

Three parts are known. *Fit*: the model's gains follow from some patients; others would have given
other gains. The model holds the fits without each group of patients in turn (delete-a-group
jackknife), and each is applied to the scan. *Synthesis*: where a method adds noise, another draw of
it would have been as good; the scan is mapped again with other seeds. *Method*: what a filter
cannot do, however many patients it is fitted to, is a constant of each tissue, found beside
repeated scans of simulated pairs (notebook/uncertainty.md); it is in the figures of tissues, not in
maps. Noise that the scan brought along is in none of them, nor what a scan would meet that is
unlike all of the training.

All errors are standard errors of which 1.96 are an interval of 95 %: those of the fit are widened
by Student's t for the number of groups.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage, stats

from cvsct.core.errors import UsageError
from cvsct.core.files import write_atomic
from cvsct.core.masks import BONE, FAT, LUNG_WITH_TISSUE, ORGANS, HURange, blurred
from cvsct.core.volume import CTVolume, Geometry
from cvsct.inference.harmonize_volume import harmonize_volume
from cvsct.io.nifti.write import write_map
from cvsct.methods.volume_mapping import RepeatedMapping, VolumeMapping

Asked = Literal["none", "table", "map"]
"""What can be asked for: nothing, a table by slice and tissue, or a map for each slice too."""
UNCERTAINTY: tuple[Asked, ...] = get_args(Asked)

TABLE_FILE, MAP_FILE = "uncertainty.csv", "uncertainty.nii.gz"
"""Files in the folder of a harmonized series."""
COLUMNS = (
    "slice",
    "z_mm",
    "tissue",
    "voxels",
    "fit_hu",
    "synthesis_hu",
    "mean_hu",
    "noise_percent",
)

DRAWS = 2
"""Further draws of noise that is added."""
SMOOTH_PX = 3.0
"""Standard deviation of the Gaussian by which the variance over few draws is smoothed."""
METHOD_HU = {"lung": 1.15, "fat": 0.55, "soft": 0.85, "bone": 3.0}
"""Error of the method in the mean CT number of a tissue of a slice."""
METHOD_NOISE_PERCENT = {"lung": 5.55, "fat": 2.95, "soft": 1.35, "bone": 2.8}
"""Error of the method in its noise level."""
LEAST_VOXELS = 200
"""Fewest voxels of a tissue in a slice that has figures."""

TISSUES: Mapping[str, HURange] = {
    "lung": LUNG_WITH_TISSUE, "fat": FAT, "soft": ORGANS, "bone": BONE,
}  # fmt: skip
"""Ranges of the blurred source."""

Slices = Float32[np.ndarray, "slices rows columns"]
Numbers = Float[np.ndarray, "..."]


@dataclass(frozen=True)
class TissueUncertainty:
    """Standard errors of one tissue in one slice.

    Args:
        slice_index: from 0, in slice order.
        tissue: `lung`, `fat`, `soft` or `bone`, told on the blurred source.
        voxels: their number.
        fit_hu: root mean square over voxels of the standard error by the fit.
        synthesis_hu: the same of the noise that was added; 0 where none was.
        mean_hu: standard error of the tissue's mean CT number, by fit, synthesis and method.
        noise_percent: relative standard error of its noise level, by the three: of the standard
            deviation of the image less the blurred image.
    """

    slice_index: int
    tissue: str
    voxels: int
    fit_hu: float
    synthesis_hu: float
    mean_hu: float
    noise_percent: float


@dataclass(frozen=True)
class Uncertainty:
    """A harmonized volume with what it would be by other fits and other draws of noise.

    Args:
        volume: the harmonized volume.
        source: what it was made of.
        without: the volume by each repeated fit of the model.
        sides, shares: of these fits, as in `RepeatedMapping`.
        draws: the volume with other noise; empty where none was added.
    """

    volume: CTVolume
    source: CTVolume = field(repr=False)
    without: tuple[CTVolume, ...] = field(repr=False)
    sides: tuple[int, ...]
    shares: tuple[float, ...]
    draws: tuple[CTVolume, ...] = field(default=(), repr=False)

    @property
    def fit_hu(self) -> Slices:
        """Standard error of each voxel by the fit, in HU."""
        fit_hu: Slices = np.sqrt(self._fit_variance(np.stack([v.hu for v in self.without])))
        return fit_hu

    @property
    def synthesis_hu(self) -> Slices:
        """Standard deviation of each voxel by the noise that was added, in HU, locally smoothed."""
        if not self.draws:
            return np.zeros_like(self.volume.hu)
        drawn = np.stack([self.volume.hu, *(volume.hu for volume in self.draws)])
        variance = drawn.var(axis=0, ddof=1)
        smooth = ndimage.gaussian_filter(variance, (0, SMOOTH_PX, SMOOTH_PX))
        synthesis_hu: Slices = np.sqrt(np.maximum(smooth, 0)).astype(np.float32)
        return synthesis_hu

    @property
    def total_hu(self) -> Slices:
        """Root of the sum of squares of both, in HU."""
        total_hu: Slices = np.hypot(self.fit_hu, self.synthesis_hu)
        return total_hu

    def standard_error(self, statistic: Callable[[CTVolume], float | np.ndarray]) -> Numbers:
        """Standard error of anything that is computed of a volume, by fit and synthesis.

        Args:
            statistic: function of a harmonized volume that returns a number, or an array.

        Example:
            >>> uncertainty = cvsct.load_model(model).uncertainty(cvsct.read_series(scans_of_a))
            >>> float(uncertainty.standard_error(lambda volume: volume.hu.mean())) < 1
            True
        """
        return self._error_of([statistic(volume) for volume in self._volumes])

    def by_tissue(self) -> Iterator[TissueUncertainty]:
        """Standard errors of each tissue in each slice where there is enough of it."""
        smooth = blurred(self.source.hu)
        fit_hu, synthesis_hu = self.fit_hu, self.synthesis_hu
        fine = [volume.hu - blurred(volume.hu) for volume in self._volumes]
        for i in range(len(self.volume)):
            for tissue, limits in TISSUES.items():
                mask = (smooth[i] >= limits.low_hu) & (smooth[i] < limits.high_hu)
                if self.source.padding is not None:
                    mask &= ~self.source.padding[i]
                if mask.sum() >= LEAST_VOXELS:
                    yield self._of_tissue(i, tissue, mask, fit_hu[i], synthesis_hu[i], fine)

    def _of_tissue(
        self,
        i: int,
        tissue: str,
        mask: Bool[np.ndarray, "rows columns"],
        fit_hu: Float[np.ndarray, "rows columns"],
        synthesis_hu: Float[np.ndarray, "rows columns"],
        fine: Sequence[Slices],
    ) -> TissueUncertainty:
        means = [float(v.hu[i][mask].mean(dtype=np.float64)) for v in self._volumes]
        logs = np.log([max(float(hu[i][mask].std(dtype=np.float64)), 1e-3) for hu in fine])
        return TissueUncertainty(
            i, tissue, int(mask.sum()),
            float(np.sqrt(np.mean(fit_hu[mask].astype(np.float64) ** 2))),
            float(np.sqrt(np.mean(synthesis_hu[mask].astype(np.float64) ** 2))),
            float(np.hypot(self._error_of(means), METHOD_HU[tissue])),
            float(np.hypot(100 * self._error_of(list(logs)), METHOD_NOISE_PERCENT[tissue])),
        )  # fmt: skip

    @property
    def _volumes(self) -> tuple[CTVolume, ...]:
        """The volume, those of the repeated fits, and the draws."""
        return (self.volume, *self.without, *self.draws)

    def _error_of(self, values: Sequence[np.ndarray | float]) -> Numbers:
        """Standard error of a value of each of `_volumes`, by fit and synthesis."""
        each, n = np.stack([np.asarray(value) for value in values]), len(self.without)
        variance = self._fit_variance(each[1 : 1 + n])
        if self.draws:
            variance += np.var(np.concatenate([each[:1], each[1 + n :]]), axis=0, ddof=1)
        return np.asarray(np.sqrt(variance))

    def _fit_variance(self, each: Float[np.ndarray, "fits ..."]) -> Numbers:
        """Jackknife variance of a value of each repeated fit, widened for their number.

        Sides are independent.
        """
        sides = np.array(self.sides)
        total: Numbers = np.zeros(each.shape[1:], dtype=np.result_type(each.dtype, np.float32))
        for side in np.unique(sides):
            own = each[sides == side]
            share = self.shares[int(np.flatnonzero(sides == side)[0])]
            total += share * ((own - own.mean(axis=0)) ** 2).sum(axis=0)
        degrees = len(sides) - len(np.unique(sides))
        total *= float(stats.t.ppf(0.975, degrees) / stats.norm.ppf(0.975)) ** 2
        return total


@dataclass(frozen=True)
class Ensemble:
    """Mappings that fit one scan: the model's own, its repeated fits, and further draws.

    Args:
        repeated: repeated fits of the model, adapted to the scan.
        draws: the model's own mapping with other noise.
    """

    repeated: tuple[RepeatedMapping, ...]
    draws: tuple[VolumeMapping, ...]

    @classmethod
    def of(
        cls,
        mapping: VolumeMapping,
        fitted: VolumeMapping,
        repeated: Sequence[RepeatedMapping],
        sample: CTVolume,
        seed: int | None = None,
    ) -> Ensemble:
        """Adapt all mappings to a scan.

        Args:
            mapping: the model's own, not yet adapted.
            fitted: the model's own, adapted.
            repeated: its repeated fits.
            sample: slices that represent the scan.
            seed: of the model's own noise.

        Raises:
            UsageError: if the model has no repeated fits.
        """
        refuse_no_repeated(repeated)
        adds = fitted.synthesis is not None and fitted.synthesis.predicted_share > 0
        first = 1 if seed is None else seed + 1
        return cls(
            tuple(replace(each, mapping=each.mapping.fitted_to(sample, seed)) for each in repeated),
            tuple(mapping.fitted_to(sample, first + i) for i in range(DRAWS)) if adds else (),
        )

    def uncertainty(self, source: CTVolume, result: CTVolume) -> Uncertainty:
        """Uncertainty of a harmonized volume, or of some of its slices."""
        return Uncertainty(
            result,
            source,
            tuple(harmonize_volume(source, each.mapping) for each in self.repeated),
            tuple(each.side for each in self.repeated),
            tuple(each.share for each in self.repeated),
            tuple(harmonize_volume(source, mapping) for mapping in self.draws),
        )


def refuse_no_repeated(repeated: Sequence[RepeatedMapping]) -> None:
    """Refuse a model that does not tell its uncertainty.

    Raises:
        UsageError: if it has no repeated fits.
    """
    if not repeated:
        raise UsageError(
            "this model does not tell how uncertain it is: that is known of `spectrum` and "
            "`spectrum-network` models that this version trained on scans, not on profiles; leave "
            "out --uncertainty"
        )


@dataclass
class UncertaintyWriter:
    """Uncertainty of a series, part by part in slice order.

    Args:
        ensemble: mappings that fit the series.
        wants_map: whether a map is written too.
    """

    ensemble: Ensemble
    wants_map: bool
    _rows: list[TissueUncertainty] = field(default_factory=list)
    _map: list[Slices] = field(default_factory=list)
    _done: int = 0

    def add(self, source: CTVolume, result: CTVolume) -> None:
        """Take the next slices."""
        uncertainty = self.ensemble.uncertainty(source, result)
        self._rows.extend(
            replace(row, slice_index=self._done + row.slice_index)
            for row in uncertainty.by_tissue()
        )
        if self.wants_map:
            self._map.append(uncertainty.total_hu.astype(np.float32))
        self._done += len(source)

    def write(self, folder: Path, geometry: Geometry) -> dict[str, Any]:
        """Write the table, and the map where it is wanted.

        Returns:
            The tissues' medians over slices, for a manifest.
        """
        write_atomic(folder / TABLE_FILE, _csv(self._rows, geometry), private=True)
        if self._map:
            values = np.concatenate(self._map)
            write_map(geometry, values, folder / MAP_FILE, "standard error", private=True)
        return summary_of(self._rows)


def summary_of(rows: Sequence[TissueUncertainty]) -> dict[str, Any]:
    """Medians over slices of each tissue's figures."""
    found: dict[str, Any] = {}
    for tissue in TISSUES:
        own = [row for row in rows if row.tissue == tissue]
        if own:
            found[tissue] = {
                name: round(float(np.median([getattr(row, name) for row in own])), 3)
                for name in ("fit_hu", "synthesis_hu", "mean_hu", "noise_percent")
            } | {"slices": len(own)}
    return found


def _csv(rows: Sequence[TissueUncertainty], geometry: Geometry) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    z_mm = geometry.z_mm
    for row in rows:
        writer.writerow(
            (row.slice_index + 1, f"{z_mm[row.slice_index]:.2f}", row.tissue, row.voxels,
             f"{row.fit_hu:.3f}", f"{row.synthesis_hu:.3f}", f"{row.mean_hu:.4f}",
             f"{row.noise_percent:.2f}")
        )  # fmt: skip
    return text.getvalue()
