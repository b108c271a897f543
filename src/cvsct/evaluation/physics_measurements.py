"""Physics of an evaluation: noise, resolution, CT numbers, positions, nodules, identification.

Each figure is measured by a module of its own. A figure that these images do not allow is left
out, and `notes` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cvsct.core.errors import EvaluationError
from cvsct.core.volume import CTVolume
from cvsct.core.workers import threads
from cvsct.evaluation.features.placement import PlacedRegion
from cvsct.evaluation.features.radiomics import RegionFeatures
from cvsct.evaluation.identification import Identification, identify
from cvsct.evaluation.image.alignment import Alignment, alignment, alignments
from cvsct.evaluation.image.consistency import (
    Idempotence,
    SliceConsistency,
    idempotence,
    slice_consistency,
)
from cvsct.evaluation.image.densitometry import Densitometry, densitometry
from cvsct.evaluation.image.edge_mtf import EdgeTransfer, edge_transfer
from cvsct.evaluation.image.edges import EdgeKind
from cvsct.evaluation.image.mean_image import MeanImage
from cvsct.evaluation.image.nodule_truth import NoduleTruth
from cvsct.evaluation.image.nodules import NoduleComparison, compare_nodules
from cvsct.evaluation.image.noise import TissueNoise, stacks_of, tissue_noise
from cvsct.evaluation.image.residuals import Residuals, residuals
from cvsct.evaluation.image.tissues import Tissue, TissueBias, TissueMap, bias_of_sides
from cvsct.evaluation.shared_slices import SharedSlices, images_of

Result = TypeVar("Result")


@dataclass(frozen=True)
class PhysicsMeasurements:
    """Physics of each side (`source`, `harmonized`, `retest`, `target`); empty if not measured.

    Args:
        bias: low-frequency difference from the target in each tissue.
        residuals: difference from the target in the body and in each tissue.
        shift: displacement against the target, and under `moved` that of the harmonized images
            against their source: harmonization must not move anything.
        noise: noise power in homogeneous tissue.
        densitometry: low attenuation and density of the lungs.
        edges: modulation transfer over natural edges, by kind of edge.
        consistency: differences of neighboring slices.
        nodules: errors against the phantom's true nodules.
        identification: how often a classifier tells a side from the target by its features.
        idempotence: change that the model makes to the target's own images.
        notes: why figures are missing.
    """

    bias: Mapping[str, Mapping[Tissue, TissueBias]] = field(default_factory=dict)
    residuals: Mapping[str, Residuals] = field(default_factory=dict)
    shift: Mapping[str, Alignment] = field(default_factory=dict)
    noise: Mapping[str, TissueNoise] = field(default_factory=dict)
    densitometry: Mapping[str, Densitometry] = field(default_factory=dict)
    edges: Mapping[EdgeKind, Mapping[str, EdgeTransfer]] = field(default_factory=dict)
    consistency: Mapping[str, SliceConsistency] = field(default_factory=dict)
    nodules: NoduleComparison | None = None
    identification: Mapping[str, Identification] = field(default_factory=dict)
    idempotence: Idempotence | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they stand under `physics` in `metrics.json`."""
        return {
            "bias_by_tissue": {
                side: {tissue: bias.to_json() for tissue, bias in by_tissue.items()}
                for side, by_tissue in self.bias.items()
            },
            "residuals": {side: value.to_json() for side, value in self.residuals.items()},
            "shift": {side: value.to_json() for side, value in self.shift.items()},
            "noise_power": {side: value.to_json() for side, value in self.noise.items()},
            "lung_densitometry": {
                side: value.to_json() for side, value in self.densitometry.items()
            },
            "edge_transfer": {
                kind: {side: value.to_json() for side, value in by_side.items()}
                for kind, by_side in self.edges.items()
            },
            "slice_consistency": {
                side: value.to_json() for side, value in self.consistency.items()
            },
            "nodules": self.nodules.to_json() if self.nodules else None,
            "scanner_identification": {
                side: value.to_json() for side, value in self.identification.items()
            },
            "idempotence": self.idempotence.to_json() if self.idempotence else None,
        }


def measure_physics(
    shared: Sequence[SharedSlices],
    regions: Sequence[PlacedRegion],
    features: Mapping[str, RegionFeatures],
    nodules: Sequence[NoduleTruth] = (),
    target_harmonized: Sequence[CTVolume] = (),
    seed: int = 0,
    workers: int = 1,
    maps: Sequence[TissueMap] | None = None,
) -> PhysicsMeasurements:
    """Measure the physics of sides that show the same slices.

    Args:
        shared: slices of every side, with a target.
        regions: where features were measured; the regions of one slice stay together in the
            classifier's cross-validation.
        features: features of the regions, by side.
        nodules: true nodules of any number of simulated bodies.
        target_harmonized: the target's slices put through the model, in the order of `shared`.
        seed: seed of region positions, bootstraps and folds.
        workers: number of threads; the filters and transforms run outside Python's lock.
        maps: tissue maps of the targets, where they are known; None computes them.
    """
    names = [name for name in features if name != "target"]
    sides = {name: [images_of(slices, name) for slices in shared] for name in [*names, "target"]}
    stacks = [dict(zip(sides, stack, strict=True)) for stack in zip(*sides.values(), strict=True)]
    pairs = {name: list(zip(sides[name], sides["target"], strict=True)) for name in names}
    shifts = {name: (name, "target") for name in names}
    if "source" in sides:
        shifts["moved"] = ("harmonized", "source")
    slice_of_region = [(placed.volume, placed.region.slice_index) for placed in regions]
    with threads(workers) as pool:
        attempts = _Attempts(pool)
        shift = attempts.start("shift", alignments, stacks, shifts)
        maps = maps or list(pool.map(TissueMap.of, sides["target"]))
        means = list(pool.map(MeanImage.of, map(list, map(dict.values, stacks_of(sides)))))
        edges = attempts.start("edge transfer", edge_transfer, sides, seed=seed, means=means)
        noise = attempts.start("noise power", tissue_noise, sides, seed=seed, means=means)
        consistency = attempts.start("slice consistency", slice_consistency, sides, maps)
        bias = pool.submit(bias_of_sides, names, stacks, maps, seed)
        density = pool.submit(densitometry, sides, paired=True)
        sizes = {name: pool.submit(residuals, pairs[name], maps) for name in names}
        identification = {
            name: attempts.start("scanner identification", identify, features[name],
                                 features["target"], slice_of_region, seed=seed)
            for name in names
        }  # fmt: skip
        nodule_errors = (
            attempts.start("nodules", compare_nodules, sides, nodules) if nodules else None
        )
        change = (
            attempts.start("idempotence", idempotence, sides["target"], target_harmonized, maps)
            if target_harmonized
            else None
        )
    return PhysicsMeasurements(
        bias=bias.result(),
        residuals={name: size.result() for name, size in sizes.items()},
        shift=_measured(shift.result() or {}),
        noise=noise.result() or {},
        densitometry=density.result(),
        edges=edges.result() or {},
        consistency=consistency.result() or {},
        nodules=nodule_errors.result() if nodule_errors else None,
        identification=_measured({name: task.result() for name, task in identification.items()}),
        idempotence=change.result() if change else None,
        notes=attempts.notes,
    )


def measure_physics_unpaired(
    shared: Sequence[SharedSlices], target: Sequence[CTVolume], seed: int = 0, workers: int = 1
) -> PhysicsMeasurements:
    """Measure noise and edges of sides where the target shows another body.

    Args:
        shared: harmonized slices with their source; may be empty.
        target: series of the target scanner.
        seed: seed of region positions and bootstraps.
        workers: number of threads.
    """
    groups: list[dict[str, list[CTVolume]]] = [{"target": list(target)}]
    if shared:
        one_body = {
            name: [images_of(slices, name) for slices in shared]
            for name in ("source", "harmonized")
        }
        groups.insert(0, one_body)
    noise: dict[str, TissueNoise] = {}
    density: dict[str, Densitometry] = {}
    edges: dict[EdgeKind, dict[str, EdgeTransfer]] = {}
    with threads(workers) as pool:
        attempts = _Attempts(pool)
        tasks = []
        for sides in groups:
            means = list(pool.map(MeanImage.of, map(list, map(dict.values, stacks_of(sides)))))
            tasks.append(
                (
                    attempts.start("noise power", tissue_noise, sides, seed=seed, means=means),
                    attempts.start("edge transfer", edge_transfer, sides, seed=seed, means=means),
                    pool.submit(densitometry, sides, paired=False),
                )
            )
        before_and_after = [(slices.harmonized, images_of(slices, "source")) for slices in shared]
        moved = attempts.start("shift", alignment, before_and_after) if before_and_after else None
    for noise_of_group, edges_of_group, density_of_group in tasks:
        noise |= noise_of_group.result() or {}
        density |= density_of_group.result()
        for kind, by_side in (edges_of_group.result() or {}).items():
            edges.setdefault(kind, {}).update(by_side)
    return PhysicsMeasurements(
        noise=noise,
        densitometry=density,
        edges=edges,
        shift=_measured({"moved": moved.result() if moved else None}),
        notes=attempts.notes,
    )


@dataclass
class _Attempts:
    """Measurements in threads that may fail alone, with a note on each that did.

    Args:
        pool: the threads.
        refusals: why each measurement was refused, in the order in which they were started; empty
            where it was not.
    """

    pool: ThreadPoolExecutor
    refusals: list[str] = field(default_factory=list)

    def start(
        self, name: str, function: Callable[..., Result | None], *arguments: Any, **options: Any
    ) -> Future[Result | None]:
        """Begin a measurement, whose result is None where it is refused."""
        number = len(self.refusals)
        self.refusals.append("")

        def attempt() -> Result | None:
            try:
                return function(*arguments, **options)
            except EvaluationError as error:
                self.refusals[number] = f"no {name}: {error}"
                return None

        return self.pool.submit(attempt)

    @property
    def notes(self) -> tuple[str, ...]:
        """Why measurements are missing, once all are done."""
        return tuple(dict.fromkeys(filter(None, self.refusals)))


def _measured(results: Mapping[str, Result | None]) -> dict[str, Result]:
    """The results that are not None."""
    return {name: result for name, result in results.items() if result is not None}
