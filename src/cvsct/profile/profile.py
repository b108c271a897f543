"""A scanner's profile: sums over its scans, from which models are fitted without its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from cvsct.core.moments import Moments
from cvsct.core.progress import Progress, silent
from cvsct.core.volume import Acquisition, CTVolume, ScanFacts, Scans, facts_of
from cvsct.guard.descriptor import Descriptor, describe
from cvsct.guard.input_check import Headers, SideReference
from cvsct.guard.side_sums import GuardSums
from cvsct.methods.spectrum.side import MeasuredSide
from cvsct.methods.spectrum.texture import Texture, TextureLayout, measure_texture, patients_of
from cvsct.model.bundle import Domain

MIN_PATCHES, MIN_PATIENTS = 30, 3
"""Fewest patches and patients behind any sum of a profile that is written."""

MAX_SLICES = 300
"""Most slices of which a profile is measured."""

LENGTH_STEP_MM = 0.05
"""Steps to which ranges of lengths are widened, so that they are no one scan's."""

OTHER = Acquisition()
"""Acquisition of the scans of which too few patients have their own."""


@dataclass(frozen=True)
class AcquisitionGroup:
    """Scans of one scanner, kernel and tube voltage.

    Args:
        n_patients, n_series, n_slices: distinct patients, series and slices.
    """

    acquisition: Acquisition
    n_patients: int
    n_series: int
    n_slices: int


@dataclass(frozen=True)
class ScannerProfile:
    """Texture statistics of one scanner, without any image.

    Args:
        texture: what methods that learn from statistics are fitted to.
        guard: what the guard knows of the scans.
        groups: the scans by scanner, kernel and tube voltage.
        pixel_mm, thickness_mm: range of pixel spacing and slice thickness; thickness is 0 where no
            file tells it.
        n_patients: distinct patients; those of merged profiles are taken to be others.
        few_patients: whether sums of fewer than three patients are kept, as asked for.
        sha256: hash of the file, set when the profile was written or read.

    Example:
        >>> profile = cvsct.fit_profile(scans_of_a, allow_few_patients=True)
        >>> profile.n_patients, profile.n_slices
        (1, 6)
    """

    texture: Texture
    guard: GuardSums
    groups: tuple[AcquisitionGroup, ...]
    pixel_mm: tuple[float, float]
    thickness_mm: tuple[float, float]
    n_patients: int
    few_patients: bool = False
    sha256: str = ""

    @property
    def n_series(self) -> int:
        """Series that were measured."""
        return sum(group.n_series for group in self.groups)

    @property
    def n_slices(self) -> int:
        """Slices of those series, of which at most `MAX_SLICES` were measured."""
        return sum(group.n_slices for group in self.groups)

    @property
    def scanner(self) -> str:
        """Scanners, kernels and tube voltages, as text."""
        return str(self.domain)

    @property
    def domain(self) -> Domain:
        """Technical attributes of the scans, as in a model."""
        return Domain(
            scanners=tuple(sorted({str(group.acquisition) for group in self.groups})),
            pixel_mm=self.pixel_mm,
            thickness_mm=self.thickness_mm,
            n_series=self.n_series,
            n_slices=self.n_slices,
        )

    @property
    def side(self) -> MeasuredSide:
        """The scanner as a fit sees it."""
        scanners = tuple(sorted({group.acquisition.scanner for group in self.groups}))
        return MeasuredSide(self.texture, self.domain, scanners)

    @property
    def reference(self) -> SideReference:
        """The scanner as the guard of a model knows it."""
        known = [group.acquisition for group in self.groups]
        headers = Headers(
            manufacturers=tuple(sorted({a.manufacturer for a in known} - {""})),
            kernels=tuple(sorted({a.kernel for a in known} - {""})),
            kvp=tuple(sorted({a.kvp for a in known} - {0.0})),
            pixel_mm=self.pixel_mm,
            thickness_mm=self.thickness_mm,
        )
        n = round(float(self.guard.tissue.patches.sum()))
        return self.guard.reference(headers, f"mean and spread of {n} series, from a profile")

    def to_json(self) -> dict[str, Any]:
        """What the card says, as plain values."""
        return {
            "groups": [asdict(group) for group in self.groups],
            "patients": self.n_patients,
            "series": self.n_series,
            "slices": self.n_slices,
            "pixel_mm": list(self.pixel_mm),
            "thickness_mm": list(self.thickness_mm),
            "patches_body": self.texture.n_body,
            "patches_soft_tissue": self.texture.n_soft,
            "few_patients": self.few_patients,
            "sha256": self.sha256,
        }

    def moments(self) -> dict[str, Moments]:
        """All sums by name."""
        return {
            **self.texture.moments(),
            "guard_noise": self.guard.noise,
            "guard_tissue": self.guard.tissue,
        }

    def __add__(self, other: ScannerProfile) -> ScannerProfile:
        """Profile of the scans of both; no patient may be in both.

        Raises:
            ValueError: if patches or frequencies differ.
        """
        groups: dict[Acquisition, AcquisitionGroup] = {}
        for group in (*self.groups, *other.groups):
            before = groups.get(group.acquisition)
            groups[group.acquisition] = group if before is None else _joined(before, group)
        return ScannerProfile(
            texture=self.texture + other.texture,
            guard=self.guard + other.guard,
            groups=tuple(sorted(groups.values(), key=lambda group: str(group.acquisition))),
            pixel_mm=_range(self.pixel_mm, other.pixel_mm),
            thickness_mm=_range(self.thickness_mm, other.thickness_mm),
            n_patients=self.n_patients + other.n_patients,
            few_patients=self.few_patients or other.few_patients,
        )

    def shareable(self, few_patients: bool = False) -> ScannerProfile:
        """The profile without sums of fewer than `MIN_PATCHES` patches or `MIN_PATIENTS` patients.

        Args:
            few_patients: keep sums of fewer patients.
        """
        least = 1 if few_patients else MIN_PATIENTS
        kept = {name: part.kept_where(_enough(part, name, least)) for name, part in
                self.moments().items()}  # fmt: skip
        groups = [
            group if group.n_patients >= least else replace(group, acquisition=OTHER)
            for group in self.groups
        ]
        others = [group for group in groups if group.acquisition == OTHER]
        named = [group for group in groups if group.acquisition != OTHER]
        for group in others[1:]:
            others[0] = _joined(others[0], group)
        return replace(
            self,
            texture=Texture(
                layout=self.texture.layout,
                **{name: kept[name] for name in self.texture.moments()},
            ),
            guard=GuardSums(kept["guard_noise"], kept["guard_tissue"]),
            groups=(*named, *others[:1]),
            pixel_mm=_widened(self.pixel_mm),
            thickness_mm=_widened(self.thickness_mm),
            few_patients=few_patients and any(
                ((part.patients > 0) & (part.patients < MIN_PATIENTS)).any()
                for part in kept.values()
            ),
            sha256="",
        )  # fmt: skip

    def share_kept(self, of: ScannerProfile) -> float:
        """Share of the patches of another profile that this one has, 0 to 1."""
        before = of.texture.n_body + of.texture.n_soft
        return (self.texture.n_body + self.texture.n_soft) / before if before else 1.0


def measure_profile(
    scans: Scans, max_slices: int = MAX_SLICES, progress: Progress = silent
) -> ScannerProfile:
    """Measure the profile of scans, one scan in memory at a time.

    Every sum is kept; `ScannerProfile.shareable` leaves out those of few patches or patients.

    Args:
        max_slices: slices used in all, spread evenly over the scans.
    """
    facts = facts_of(scans)
    descriptors: list[Descriptor] = []
    patients: list[str] = []

    def look(volume: CTVolume, patient: str) -> None:
        descriptors.append(describe(volume.select([i]) for i in range(len(volume.hu))))
        patients.append(patient)

    texture = measure_texture(scans, TextureLayout(), max_slices, "scans", progress, also=look)
    domain = Domain.from_facts(facts)
    return ScannerProfile(
        texture=texture,
        guard=GuardSums.of(descriptors, patients),
        groups=_groups(facts),
        pixel_mm=domain.pixel_mm,
        thickness_mm=domain.thickness_mm,
        n_patients=len(set(patients_of(facts))),
    )


def _groups(facts: Sequence[ScanFacts]) -> tuple[AcquisitionGroup, ...]:
    members: dict[Acquisition, list[tuple[str, ScanFacts]]] = {}
    for patient, scan in zip(patients_of(facts), facts, strict=True):
        members.setdefault(scan.acquisition, []).append((patient, scan))
    return tuple(
        AcquisitionGroup(
            acquisition,
            len({patient for patient, _ in scans}),
            len(scans),
            sum(scan.shape[0] for _, scan in scans),
        )
        for acquisition, scans in sorted(members.items(), key=lambda item: str(item[0]))
    )


def _joined(a: AcquisitionGroup, b: AcquisitionGroup) -> AcquisitionGroup:
    return AcquisitionGroup(
        a.acquisition,
        a.n_patients + b.n_patients,
        a.n_series + b.n_series,
        a.n_slices + b.n_slices,
    )


def _range(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return min(a[0], b[0]), max(a[1], b[1])


def _widened(lengths: tuple[float, float]) -> tuple[float, float]:
    def to_step(round_to: Callable[[float], float], length: float) -> float:
        return round(float(round_to(round(length / LENGTH_STEP_MM, 6))) * LENGTH_STEP_MM, 2)

    return to_step(np.floor, lengths[0]), to_step(np.ceil, lengths[1])


OF_PATIENTS = frozenset({"fat_mode", "soft_mode", "guard_noise", "guard_tissue", "load"})
"""Sums over patients, scans or slices, each with at least as many patches of its own."""

WHOLE = frozenset({"contrast", "load", "fat_mode", "soft_mode"})
"""Sums whose strata tell a thing together: all are kept, or none."""


def _enough(part: Moments, name: str, least_patients: int) -> Bool[np.ndarray, "strata n"]:
    """Cells that enough patches and patients stand behind."""
    few = part.counts < (1 if name in OF_PATIENTS else MIN_PATCHES)
    few |= part.patients < least_patients
    if name in WHOLE and (few & (part.counts > 0)).any():
        return np.zeros_like(few)
    return ~few
