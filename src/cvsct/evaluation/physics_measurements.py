"""What a medical physicist asks of harmonized images, gathered for one evaluation.

Each question is a module of its own; a question that these images cannot answer is left out, and
`notes` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cvsct.core.errors import EvaluationError
from cvsct.core.volume import CTVolume
from cvsct.evaluation.features.placement import PlacedRegion
from cvsct.evaluation.features.radiomics import FeatureTable
from cvsct.evaluation.identification import Identification, identify
from cvsct.evaluation.image.alignment import Alignment, alignment
from cvsct.evaluation.image.consistency import (
    Idempotence,
    SliceConsistency,
    idempotence,
    slice_consistency,
)
from cvsct.evaluation.image.edge_mtf import EdgeTransfer, edge_transfer
from cvsct.evaluation.image.edges import EdgeKind
from cvsct.evaluation.image.nodule_truth import NoduleTruth
from cvsct.evaluation.image.nodules import NoduleComparison, compare_nodules
from cvsct.evaluation.image.noise import TissueNoise, tissue_noise
from cvsct.evaluation.image.residuals import Residuals, residuals
from cvsct.evaluation.image.tissues import Tissue, TissueBias, TissueMap, bias_by_tissue
from cvsct.evaluation.shared_slices import SharedSlices, images_of

Found = TypeVar("Found")


@dataclass(frozen=True)
class PhysicsMeasurements:
    """Answers by side (`source`, `harmonized`, `retest`, `target`); empty where there is none.

    Args:
        bias: of each tissue against the target.
        residuals: what is left against the target.
        shift: against the target, and of the harmonized images against their source under
            `moved`: harmonizing must not move anything.
        noise: in homogeneous tissue.
        edges: transfer over natural edges, by kind.
        consistency: of neighboring slices.
        nodules: against the phantom's truth.
        identification: how well each side is told from the target by its features.
        idempotence: what the model does to the target's own images.
    """

    bias: Mapping[str, Mapping[Tissue, TissueBias]] = field(default_factory=dict)
    residuals: Mapping[str, Residuals] = field(default_factory=dict)
    shift: Mapping[str, Alignment] = field(default_factory=dict)
    noise: Mapping[str, TissueNoise] = field(default_factory=dict)
    edges: Mapping[EdgeKind, Mapping[str, EdgeTransfer]] = field(default_factory=dict)
    consistency: Mapping[str, SliceConsistency] = field(default_factory=dict)
    nodules: NoduleComparison | None = None
    identification: Mapping[str, Identification] = field(default_factory=dict)
    idempotence: Idempotence | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "bias_by_tissue": {
                side: {tissue: one.to_json() for tissue, one in some.items()}
                for side, some in self.bias.items()
            },
            "residuals": {side: one.to_json() for side, one in self.residuals.items()},
            "shift": {side: one.to_json() for side, one in self.shift.items()},
            "noise_power": {side: one.to_json() for side, one in self.noise.items()},
            "edge_transfer": {
                kind: {side: one.to_json() for side, one in some.items()}
                for kind, some in self.edges.items()
            },
            "slice_consistency": {side: one.to_json() for side, one in self.consistency.items()},
            "nodules": self.nodules.to_json() if self.nodules else None,
            "scanner_identification": {
                side: one.to_json() for side, one in self.identification.items()
            },
            "idempotence": self.idempotence.to_json() if self.idempotence else None,
        }


def measure_physics(
    shared: Sequence[SharedSlices],
    regions: Sequence[PlacedRegion],
    features: Mapping[str, FeatureTable],
    nodules: Sequence[NoduleTruth] = (),
    target_harmonized: Sequence[CTVolume] = (),
    seed: int = 0,
) -> PhysicsMeasurements:
    """Examine sides that show the same slices.

    Args:
        shared: with a target.
        regions: where features were measured; those of one slice are one place to the classifier.
        nodules: the truth of simulated bodies, of any number of them.
        target_harmonized: the target's slices put through the model, in the order of `shared`.
    """
    asked = _Asked()
    names = [name for name in features if name != "target"]
    sides = {name: [images_of(one, name) for one in shared] for name in [*names, "target"]}
    maps = [TissueMap.of(target) for target in sides["target"]]
    against = {name: list(zip(sides[name], sides["target"], strict=True)) for name in names}
    slices = [(place.volume, place.region.slice_index) for place in regions]
    shift = {name: asked.of("shift", alignment, against[name]) for name in names}
    if "source" in sides:
        own = list(zip(sides["harmonized"], sides["source"], strict=True))
        shift["moved"] = asked.of("shift", alignment, own)
    identified = {
        name: asked.of("scanner identification", identify, features[name], features["target"],
                       slices, seed=seed)
        for name in names
    }  # fmt: skip
    return PhysicsMeasurements(
        bias={name: bias_by_tissue(pairs, maps) for name, pairs in against.items()},
        residuals={name: residuals(pairs, maps) for name, pairs in against.items()},
        shift=_told(shift),
        noise=asked.of("noise power", tissue_noise, sides, seed=seed) or {},
        edges=asked.of("edge transfer", edge_transfer, sides, seed=seed) or {},
        consistency=asked.of("slice consistency", slice_consistency, sides, maps) or {},
        nodules=asked.of("nodules", compare_nodules, sides, nodules) if nodules else None,
        identification=_told(identified),
        idempotence=asked.of("idempotence", idempotence, sides["target"], target_harmonized, maps)
        if target_harmonized
        else None,
        notes=tuple(dict.fromkeys(asked.notes)),
    )


def measure_physics_unpaired(
    shared: Sequence[SharedSlices], target: Sequence[CTVolume], seed: int = 0
) -> PhysicsMeasurements:
    """What can be told where the target shows another body: noise and edges, side by side.

    Args:
        shared: harmonized slices with their source; may be empty.
    """
    asked = _Asked()
    groups: list[dict[str, list[CTVolume]]] = [{"target": list(target)}]
    if shared:
        groups.insert(
            0, {name: [images_of(one, name) for one in shared] for name in ("source", "harmonized")}
        )
    noise: dict[str, TissueNoise] = {}
    edges: dict[EdgeKind, dict[str, EdgeTransfer]] = {}
    for sides in groups:
        noise |= asked.of("noise power", tissue_noise, sides, seed=seed) or {}
        found = asked.of("edge transfer", edge_transfer, sides, seed=seed) or {}
        for kind, some in found.items():
            edges.setdefault(kind, {}).update(some)
    own = [(one.harmonized, images_of(one, "source")) for one in shared]
    moved = asked.of("shift", alignment, own) if own else None
    return PhysicsMeasurements(
        noise=noise,
        edges=edges,
        shift={"moved": moved} if moved else {},
        notes=tuple(dict.fromkeys(asked.notes)),
    )


@dataclass
class _Asked:
    """Questions asked so far, and which had no answer."""

    notes: list[str] = field(default_factory=list)

    def of(self, what: str, ask: Callable[..., Found], *about: Any, **more: Any) -> Found | None:
        try:
            return ask(*about, **more)
        except EvaluationError as error:
            self.notes.append(f"no {what}: {error}")
            return None


def _told(found: Mapping[str, Found | None]) -> dict[str, Found]:
    return {name: one for name, one in found.items() if one is not None}
