"""A scanner's profile: sums over its scans, from which models are fitted without its images."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from cvsct.core.moments import Moments
from cvsct.core.progress import Progress, silent
from cvsct.core.volume import UNNAMED, Acquisition, CTVolume, ScanFacts, Scans, facts_of
from cvsct.guard.descriptor import Descriptor, describe
from cvsct.guard.input_check import Headers, SideReference
from cvsct.guard.side_sums import GuardSums
from cvsct.methods.spectrum.side import MeasuredSide
from cvsct.methods.spectrum.texture import (
    N_TISSUES,
    Texture,
    TextureLayout,
    measure_patches,
)
from cvsct.model.bundle import Domain
from cvsct.profile.privacy import (
    MIN_PATIENTS,
    OF_FEW,
    SHARED,
    all_or_nothing,
    pooled,
    without_spread,
)

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

    In its file are sums `NAME.sums` and numbers of patients `NAME.patients`. NAME is

    - `body`: log power of patches of bodies (40 mm, overlapping by half), with mean CT number, its
      square, low-frequency power and shape, and expected noise of patch and slice; by 16 strata of
      low-frequency power and 3 of tissue (stratum = 3 x power + tissue);
    - `by_roughness`, `by_ratio`: log power of patches of soft tissue (20 mm), with expected noise
      of patch and slice, squared radius, CT number and roughness; by 28 strata of roughness, 42 of
      roughness over noise;
    - `within_slices`, `slices`: their mean log power from .45 to .75/mm, scatter within slices by
      roughness, and means of slices by roughness over noise;
    - `contrast`: the same patches by contrast agent: given, none, unknown;
    - `load`: log of tube current times time of slices, with expected noise, by whether headers
      tell it;
    - `fat_mode`, `soft_mode`: most frequent CT number of both tissues in each patient, with
      expected noise;
    - `guard_noise`, `guard_tissue`: what the guard compares, of series.

    Edges of strata: low-frequency log power (mean of .025 to .075/mm, HU² mm²) 3, 4, ... 17; CT
    number -500, -200 HU; log roughness (HU) -1.5, -1.25, ... 5; log of roughness over the root of
    noise power -5, -4.75, ... 5. What lies beyond is in the first or last.

    Args:
        texture: what methods that learn from statistics are fitted to.
        guard: what the guard knows of the scans.
        groups: the scans by scanner, kernel and tube voltage.
        pixel_mm: lowest and highest pixel spacing.
        thickness_mm: lowest and highest slice thickness; 0 where no file tells it.
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
        """Slices that were measured."""
        return sum(group.n_slices for group in self.groups)

    @property
    def acquisitions(self) -> tuple[Acquisition, ...]:
        """Scanners, kernels and tube voltages."""
        return tuple(group.acquisition for group in self.groups)

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
        known = self.acquisitions
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
        """The profile with nothing in it that stands for few patches or patients (`privacy`).

        Args:
            few_patients: let sums stand for one or two patients.
        """
        least = OF_FEW if few_patients else SHARED
        texture, guard = self.texture, self.guard
        kept = {
            name: pooled(part, _chains(name, part), least)
            for name, part in texture.moments().items()
            if name in POOLED
        }
        kept |= {
            name: all_or_nothing(part, least.for_spread, 1)
            for name, part in texture.moments().items()
            if name in ("load", "fat_mode", "soft_mode")
        }
        kept["contrast"] = all_or_nothing(texture.contrast, least.patients, least.patches)
        known = guard.noise, guard.tissue
        if self.n_patients < least.for_spread:
            known = without_spread(known[0]), without_spread(known[1])
        noise, tissue = (all_or_nothing(part, least.patients, 1) for part in known)
        named = [group for group in self.groups if group.n_patients >= least.patients]
        rest = [
            replace(group, acquisition=OTHER)
            for group in self.groups
            if group.n_patients < least.patients
        ]
        others = [functools.reduce(_joined, rest)] if rest else []
        shared = replace(
            self,
            texture=Texture(layout=texture.layout, **kept),
            guard=GuardSums(noise, tissue),
            groups=(*named, *others),
            pixel_mm=_widened(self.pixel_mm),
            thickness_mm=_widened(self.thickness_mm),
            sha256="",
        )
        return replace(shared, few_patients=shared.holds_few)

    @property
    def holds_few(self) -> bool:
        """Whether a sum stands for one or two patients."""
        return any(
            bool(((part.patients > 0) & (part.patients < MIN_PATIENTS)).any())
            for part in self.moments().values()
        )

    def share_kept(self, of: ScannerProfile) -> float:
        """Share of the patches of another profile that this one has, 0 to 1."""
        before = of.texture.n_body + of.texture.n_soft
        return (self.texture.n_body + self.texture.n_soft) / before if before else 1.0


def measure_profile(
    scans: Scans, max_slices: int = MAX_SLICES, progress: Progress = silent
) -> ScannerProfile:
    """Measure the profile of scans, one scan in memory at a time.

    Every sum is kept; `ScannerProfile.shareable` leaves out what stands for few. Scans that name no
    patient count as one patient together, for they may be of one.

    Args:
        max_slices: slices used in all, spread evenly over the scans.
    """
    facts = facts_of(scans)
    people = [named(scan) for scan in facts]
    descriptors: list[Descriptor] = []
    used: list[int] = []
    slices: list[int] = []

    def look(volume: CTVolume, number: int) -> None:
        descriptors.append(describe(volume.select([i]) for i in range(len(volume.hu))))
        used.append(number)
        slices.append(len(volume.hu))

    patches = measure_patches(
        scans, TextureLayout(), max_slices, "scans", progress, also=look, patients=people
    )
    measured = [replace(facts[i], shape=(n, *facts[i].shape[1:]))
                for i, n in zip(used, slices, strict=True)]  # fmt: skip
    domain = Domain.from_facts(measured)
    return ScannerProfile(
        texture=patches.texture(),
        guard=GuardSums.of(descriptors, [people[i] for i in used]),
        groups=_groups(measured),
        pixel_mm=domain.pixel_mm,
        thickness_mm=domain.thickness_mm,
        n_patients=len({people[i] for i in used}),
    )


def named(scan: ScanFacts) -> str:
    """Patient that the headers of a scan name; those of all unnamed scans are one."""
    return "" if scan.patient.startswith(UNNAMED) else scan.patient


def _groups(facts: Sequence[ScanFacts]) -> tuple[AcquisitionGroup, ...]:
    members: dict[Acquisition, list[tuple[str, ScanFacts]]] = {}
    for scan in facts:
        members.setdefault(scan.acquisition, []).append((named(scan), scan))
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
    low, high = (round(length / LENGTH_STEP_MM, 6) for length in lengths)
    steps = math.floor(low), math.ceil(high)
    return round(steps[0] * LENGTH_STEP_MM, 2), round(steps[1] * LENGTH_STEP_MM, 2)


POOLED = frozenset({"body", "by_ratio", "by_roughness", "within_slices", "slices"})
"""Sums over patches, whose strata of few are added to their neighbors."""


def _chains(name: str, part: Moments) -> list[Int[np.ndarray, " strata"]]:
    """Strata in the order in which one is added to the next: of bodies, those of one tissue."""
    apart = N_TISSUES if name == "body" else 1
    return [np.arange(first, len(part.sums), apart) for first in range(apart)]
