"""Whether two sides of scans may be learned from: what a model of them would be wrong for.

The sides are compared as wholes, so that a domain may hold phantoms beside patients as long as
both have tissue in common. Each finding has a word by which a user allows it all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cvsct.core.errors import UsageError, one_line
from cvsct.core.masks import FAT_VOXELS, LUNG
from cvsct.core.volume import CTVolume, ScanFacts
from cvsct.guard.calibrate import Place, Sample
from cvsct.guard.descriptor import Descriptor, describe, distance
from cvsct.guard.input_check import vendor
from cvsct.io.dicom.derive import SOFTWARE
from cvsct.io.dicom.stack import SeriesFiles

PHANTOM, DERIVED, MIXED = "phantom", "derived", "mixed-scanners"
ALLOWED = (PHANTOM, DERIVED, MIXED)
"""What a user may allow."""

APART_NATS = 1.0
"""Divergence of tissue, mean of both ways, beyond which two sides have too little in common.

Of single scans, a phantom that imitates a trunk is at most 0.83 from a patient, real patients are
0.1 from each other; a homogeneous phantom of water is 1.9 and more from real patients, one of
40 HU 1.3 and more, and 1.07 and more from simulated bodies.
"""

LEAST_SHARE = 0.001
"""Of all pixels, below which a side shows no air, or no fat."""


@dataclass(frozen=True)
class Finding:
    """One reason why a side, or both, must not be learned from.

    Args:
        allow: the word that lets it pass; empty where nothing does.
    """

    text: str
    allow: str = ""


@dataclass(frozen=True)
class Shown:
    """What a few slices of a side show.

    Args:
        air, fat: share of the pixels that are measured.
    """

    descriptor: Descriptor
    air: float
    fat: float

    @classmethod
    def of(cls, series: Sequence[SeriesFiles]) -> Shown:
        """Measure slices spread over the series.

        Raises:
            CvsctError: if one cannot be read.
        """
        counts = np.zeros(3)

        def counted(place: Place) -> CTVolume:
            volume = place.read()
            hu = volume.hu if volume.padding is None else volume.hu[~volume.padding]
            fat = (hu > FAT_VOXELS.low_hu) & (hu < FAT_VOXELS.high_hu)
            counts[:] += (hu < LUNG.high_hu).sum(), fat.sum(), hu.size
            return volume

        places = (place for group in Sample.of(series).groups for place in group)
        descriptor = describe(map(counted, places))
        air, fat = counts[:2] / max(counts[2], 1)
        return cls(descriptor, float(air), float(fat))


def parse_allowed(words: Sequence[str]) -> frozenset[str]:
    """What the user allows, of words that may each be several by commas.

    Raises:
        UsageError: for a word that names nothing.
    """
    given = {part.strip() for word in words for part in word.split(",")} - {""}
    unknown = sorted(given - set(ALLOWED))
    if unknown:
        raise UsageError(
            f"--allow {', '.join(unknown)}: nothing of that name; choose from {', '.join(ALLOWED)}"
        )
    return frozenset(given)


def findings(
    sides: Mapping[str, tuple[Sequence[SeriesFiles], Sequence[ScanFacts]]],
) -> Iterator[Finding]:
    """What of two sides of scans stands against learning from them.

    Args:
        sides: source and target by name, the series and what headers tell of each.

    Raises:
        CvsctError: if a slice that is looked at cannot be read.
    """
    for name, (_, facts) in sides.items():
        yield from mixed_makers(name, facts)
    shown = {name: Shown.of(series) for name, (series, _) in sides.items()}
    lacking = [finding for name, each in shown.items() if (finding := _lacking(name, each))]
    yield from lacking
    a, b = (each.descriptor for each in shown.values())
    apart = 0.5 * (distance(a, b).tissue_nats + distance(b, a).tissue_nats)
    if not lacking and apart > APART_NATS:
        yield Finding(
            f"tissue of source and target differs by {apart:.1f} nats, at most {APART_NATS:g} is "
            "expected: a phantom beside patients, or other parts of the body? Give scans of like "
            "bodies",
            PHANTOM,
        )


def mixed_makers(side: str, facts: Sequence[ScanFacts]) -> Iterator[Finding]:
    """Says that one side's scans are of several manufacturers."""
    made = {each.acquisition.manufacturer for each in facts} - {"", SOFTWARE}
    makers = {vendor(one): one_line(one)[:64] for one in sorted(made)}
    if len(makers) > 1:
        yield Finding(
            f"the {side} holds scans of {len(makers)} manufacturers ({', '.join(makers.values())}):"
            " a model learns one scanner from them, their mean; give scans of one",
            MIXED,
        )


def _lacking(side: str, shown: Shown) -> Finding | None:
    """What a side does not show that any body in HU does."""
    if max(shown.air, shown.fat) < LEAST_SHARE:
        return Finding(
            f"the {side} shows neither air nor fat, as any CT in Hounsfield units of a whole body "
            "does; give CT in HU"
        )
    if not shown.descriptor.knows_tissue:
        return Finding(
            f"the {side} shows hardly any tissue: no patient, or no Hounsfield units", PHANTOM
        )
    return None
