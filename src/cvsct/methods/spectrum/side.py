"""One side of a fit: texture statistics and technical attributes, of scans or of a profile."""

from __future__ import annotations

from dataclasses import dataclass, field

from cvsct.core.errors import TrainingError
from cvsct.core.progress import Progress
from cvsct.core.volume import Scans, facts_of
from cvsct.methods.base import require_scans
from cvsct.methods.spectrum.settings import RatioSettings
from cvsct.methods.spectrum.texture import Texture, TextureLayout, measure_patches
from cvsct.model.bundle import Domain


@dataclass(frozen=True)
class MeasuredSide:
    """One scanner as a fit sees it.

    Args:
        texture: statistics of its scans.
        domain: technical attributes of its scans.
        scanners: distinct makes and models in their headers.
        groups: statistics of groups of patients, which add up to `texture`; none where they are
            not asked for or, as in a profile, not known any more.
    """

    texture: Texture
    domain: Domain
    scanners: tuple[str, ...]
    groups: tuple[Texture, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls,
        scans: Scans,
        layout: TextureLayout,
        max_slices: int,
        name: str,
        progress: Progress,
        soft: bool = True,
        n_groups: int = 0,
    ) -> MeasuredSide:
        """Measure scans.

        Args:
            max_slices: slices used in all, spread evenly over the scans.
            name: what the scans are called in messages.
            soft: whether soft tissue is measured too.
            n_groups: most groups of patients.
        """
        facts = facts_of(scans)
        patches = measure_patches(scans, layout, max_slices, name, progress, soft)
        return cls(
            patches.texture(),
            Domain.from_facts(facts),
            tuple(sorted({scan.acquisition.scanner for scan in facts})),
            patches.groups(n_groups) if n_groups else (),
        )


Side = Scans | MeasuredSide
"""Scans of a scanner, or what was measured of them."""


def measured_sides(
    source: Side, target: Side, settings: RatioSettings, progress: Progress, soft: bool = True,
    n_groups: int = 0,
) -> tuple[MeasuredSide, MeasuredSide]:  # fmt: skip
    """Measure the sides that are scans.

    Args:
        n_groups: most groups of patients of each that are measured by themselves too.

    Raises:
        TrainingError: if a side has no scans, or was measured with other patches or frequencies
            than the settings ask for.
    """
    layout = TextureLayout(
        settings.patch_mm, settings.frequency_step_per_mm, settings.low_frequency_per_mm
    )

    for name, side in (("source", source), ("target", target)):
        if not isinstance(side, MeasuredSide):
            require_scans(name, side)

    def measured(name: str, side: Side) -> MeasuredSide:
        if not isinstance(side, MeasuredSide):
            return MeasuredSide.of(
                side, layout, settings.max_slices, name, progress, soft, n_groups
            )
        known = side.texture.layout
        if known != layout:
            raise TrainingError(
                f"the {name} is a profile, measured with patch_mm={known.patch_mm:g}, "
                f"frequency_step_per_mm={known.step_per_mm:g} and "
                f"low_frequency_per_mm={known.low_per_mm:g}; leave these settings at that, or "
                "give scans"
            )
        return side

    return measured("source", source), measured("target", target)


def same_scanner(source: MeasuredSide, target: MeasuredSide) -> bool:
    """Whether the headers of both sides name one scanner."""
    names = {*source.scanners, *target.scanners}
    return len(names) == 1 and names != {""}
