"""Check of the scans of both sides before a training: phantoms, mixed scanners, no HU.

The sides are compared as wholes, so that a domain may hold phantoms beside patients as long as
both have tissue in common. Each problem names the value of `--allow` by which a user accepts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cvsct.core.errors import UsageError, one_line
from cvsct.core.kinds import texts
from cvsct.core.masks import FAT_VOXELS, LUNG
from cvsct.core.volume import CTVolume, ScanFacts
from cvsct.guard.calibrate import SliceGroups, SliceRef
from cvsct.guard.descriptor import Descriptor, describe, distance
from cvsct.guard.input_check import vendor
from cvsct.io.dicom.derive import SOFTWARE
from cvsct.io.dicom.stack import SeriesFiles

PHANTOM, DERIVED, MIXED = "phantom", "derived", "mixed-scanners"
ALLOWED = (PHANTOM, DERIVED, MIXED)
"""Values of `--allow`."""

MAX_DIVERGENCE_NATS = 1.0
"""Divergence of tissue, mean of both directions, beyond which two sides are refused.

Of single scans, a phantom that imitates a trunk is at most 0.83 from a patient, real patients are
0.1 from each other; a homogeneous phantom of water is 1.9 and more from real patients, one of
40 HU 1.3 and more, and 1.07 and more from simulated bodies.
"""

LEAST_SHARE = 0.001
"""Share of all pixels below which a side counts as without air, or without fat."""


@dataclass(frozen=True)
class TrainingProblem:
    """Reason to refuse a training on one side's scans, or on both.

    Args:
        text: what was found, where, and what to give instead.
        allow: value of `--allow` that accepts it; empty where none does.
    """

    text: str
    allow: str = ""


@dataclass(frozen=True)
class SideContent:
    """Descriptor and shares of air and fat of slices that represent a side.

    Args:
        air, fat: share of the measured pixels, 0 to 1.
    """

    descriptor: Descriptor
    air: float
    fat: float

    @classmethod
    def of(cls, series: Sequence[SeriesFiles]) -> SideContent:
        """Measure slices spread over the series.

        Raises:
            CvsctError: if a slice cannot be read.
        """
        counts = np.zeros(3)

        def read_and_count(slice_ref: SliceRef) -> CTVolume:
            volume = slice_ref.read()
            hu = volume.hu if volume.padding is None else volume.hu[~volume.padding]
            fat = (hu > FAT_VOXELS.low_hu) & (hu < FAT_VOXELS.high_hu)
            counts[:] += (hu < LUNG.high_hu).sum(), fat.sum(), hu.size
            return volume

        slices = (ref for group in SliceGroups.spread_over(series).groups for ref in group)
        descriptor = describe(map(read_and_count, slices))
        air, fat = counts[:2] / max(counts[2], 1)
        return cls(descriptor, float(air), float(fat))


def parse_allowed(words: Sequence[str]) -> frozenset[str]:
    """Parse the values of `--allow`, each of which may be a list separated by commas.

    Raises:
        UsageError: for a value that is not in `ALLOWED`.
    """
    given = {part.strip() for word in texts(words) for part in word.split(",")} - {""}
    unknown = sorted(given - set(ALLOWED))
    if unknown:
        raise UsageError(
            f"--allow {', '.join(unknown)}: nothing of that name; choose from {', '.join(ALLOWED)}"
        )
    return frozenset(given)


def find_problems(
    sides: Mapping[str, tuple[Sequence[SeriesFiles], Sequence[ScanFacts]]],
) -> Iterator[TrainingProblem]:
    """Find the problems of one or two sides of scans as a training set.

    Args:
        sides: series and header facts by name; two sides are also compared with each other.

    Raises:
        CvsctError: if one of the measured slices cannot be read.
    """
    for name, (_, facts) in sides.items():
        yield from check_manufacturers(name, facts)
    contents = {name: SideContent.of(series) for name, (series, _) in sides.items()}
    lacking = [
        problem for name, content in contents.items() if (problem := _check_content(name, content))
    ]
    yield from lacking
    if lacking or len(contents) < 2:
        return
    a, b = (content.descriptor for content in contents.values())
    divergence_nats = 0.5 * (distance(a, b).tissue_nats + distance(b, a).tissue_nats)
    if divergence_nats > MAX_DIVERGENCE_NATS:
        yield TrainingProblem(
            f"tissue of source and target differs by {divergence_nats:.1f} nats, at most "
            f"{MAX_DIVERGENCE_NATS:g} is expected: a phantom beside patients, or other "
            "parts of the body? Give scans of like bodies",
            PHANTOM,
        )


def check_manufacturers(side: str, facts: Sequence[ScanFacts]) -> Iterator[TrainingProblem]:
    """Report a side whose scans are of several manufacturers."""
    manufacturers = {scan.acquisition.manufacturer for scan in facts} - {"", SOFTWARE}
    by_vendor = {vendor(name): one_line(name)[:64] for name in sorted(manufacturers)}
    if len(by_vendor) > 1:
        yield TrainingProblem(
            f"the {side} holds scans of {len(by_vendor)} manufacturers "
            f"({', '.join(by_vendor.values())}): a model learns the mean of them; "
            "give scans of one",
            MIXED,
        )


def _check_content(side: str, content: SideContent) -> TrainingProblem | None:
    """Report a side without what any CT of a body in HU shows: air or fat, and tissue."""
    if max(content.air, content.fat) < LEAST_SHARE:
        return TrainingProblem(
            f"the {side} shows neither air nor fat, as any CT in Hounsfield units of a whole body "
            "does; give CT in HU"
        )
    if not content.descriptor.knows_tissue:
        return TrainingProblem(
            f"the {side} shows hardly any tissue: no patient, or no Hounsfield units", PHANTOM
        )
    return None
