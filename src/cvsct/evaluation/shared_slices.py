"""Pairing of the series of an evaluation: which slices show the same place of the same body.

Slices at one position pair (`cvsct.core.pairing`) unless their patients are known to differ, and
are compared only where the images show one body (`cvsct.core.same_body`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cvsct.core.errors import EvaluationError, GeometryError
from cvsct.core.pairing import (
    Z_TOLERANCE_MM,
    VolumePair,
    are_other_patients,
    pair_volumes,
    unpaired_reason,
)
from cvsct.core.same_body import Likeness, Planes
from cvsct.core.same_body import likeness as compare_anatomy
from cvsct.core.volume import CTVolume
from cvsct.evaluation.settings import EvaluationSettings

SWITCHED_OFF = "pairing was switched off"


@dataclass(frozen=True)
class SharedSlices:
    """Volumes cut to the slices they share: slice i of each shows the same place of one body.

    Args:
        harmonized: harmonized slices.
        target: slices of the target scanner; None in an unpaired evaluation.
        source: slices before they were harmonized; None where they are not given.
        retest: slices of the target's second scan; None where it is not given.
        target_at: number of the target series, and the numbers of its slices.
    """

    harmonized: CTVolume
    target: CTVolume | None
    source: CTVolume | None
    retest: CTVolume | None = None
    target_at: tuple[int, tuple[int, ...]] = (0, ())


@dataclass(frozen=True)
class Pairing:
    """Pairs of harmonized and target series that are compared slice by slice.

    Args:
        pairs: the pairs, with their slices.
        unpaired_because: why there are none; empty where there are some.
        notes: remarks on the pairs for the reader of a report.
    """

    pairs: tuple[VolumePair, ...]
    unpaired_because: str = ""
    notes: tuple[str, ...] = ()


def images_of(shared: SharedSlices, side: str) -> CTVolume:
    """Volume of one side: `source`, `harmonized`, `retest` or `target`.

    Raises:
        EvaluationError: if that side is not given.
    """
    volume: CTVolume | None = getattr(shared, side)
    if volume is None:
        raise EvaluationError(f"these shared slices have no {side} images; give its scans too")
    return volume


def pairs_to_compare(
    a: Sequence[CTVolume],
    b: Sequence[CTVolume],
    z_tolerance_mm: float = Z_TOLERANCE_MM,
    forced: bool = False,
) -> list[VolumePair]:
    """Pair each volume of `a` with the volume of `b` that shares its slices, if there is one.

    Args:
        a: volumes of one side.
        b: volumes of the other side.
        z_tolerance_mm: largest distance at which two slices count as one place.
        forced: pair by position alone, whatever the patients and frames of reference are.

    Raises:
        EvaluationError: if volumes that should pair do not fit (`pair_volumes`).
    """
    patients = None if forced else (_patients(a), _patients(b))
    try:
        return pair_volumes(a, b, z_tolerance_mm, patients, any_frame=forced)
    except GeometryError as error:
        raise EvaluationError(str(error)) from error


def pair_with_target(
    harmonized: Sequence[CTVolume],
    target: Sequence[CTVolume],
    source: Sequence[CTVolume] | None,
    settings: EvaluationSettings,
) -> Pairing:
    """Pair harmonized series with the target's, and check that each pair shows one body.

    The check compares the source with the target where the source is given, since a model may have
    destroyed the anatomy.

    Raises:
        EvaluationError: if volumes that should pair do not fit, or a forced pairing finds nothing.
    """
    if settings.pairing == "off":
        return Pairing((), SWITCHED_OFF)
    forced, tolerance_mm = settings.pairing == "forced", settings.z_tolerance_mm
    pairs = pairs_to_compare(harmonized, target, tolerance_mm, forced)
    if not pairs:
        patients = None if forced else (_patients(harmonized), _patients(target))
        reason = unpaired_reason(
            harmonized, target, tolerance_mm, ("harmonized", "target"), patients=patients
        )
        if forced:
            raise EvaluationError(
                f"pairing cannot be forced: {reason}; give series that share positions, or do not "
                "force it"
            )
        return Pairing((), reason)
    source_planes = _source_planes(harmonized, source, tolerance_mm)
    kept, notes, refused = [], [], []
    for pair in pairs:
        planes = source_planes.get(pair.first)
        likeness = _compare(pair, planes or harmonized[pair.first].hu.__getitem__, target)
        side = "harmonized series" if planes is None else "the source of harmonized series"
        names = f"{side} {pair.first + 1} and target series {pair.second + 1}"
        reason = likeness.difference
        if reason and not forced:
            refused.append(f"{names} {reason}")
            continue
        kept.append(pair)
        if are_other_patients(harmonized[pair.first].patient, target[pair.second].patient):
            notes.append(f"pairing was forced: {names} pair though their patients differ")
        if reason:
            notes.append(f"pairing was forced, although {names} {reason}")
        elif likeness.correlation is None:
            notes.append(f"{names} show too little to decide whether they show one body")
        elif not _share_frame_of_reference(harmonized[pair.first], target[pair.second]):
            notes.append(
                f"{names} share no frame of reference: slices were paired by position alone, "
                f"which holds only if both show the same body (their edges correlate by "
                f"{likeness.correlation:.2f})"
            )
    if not kept:
        return Pairing((), refused[0])
    notes += [f"left out: {reason}" for reason in refused]
    return Pairing(tuple(kept), "", tuple(notes))


def _source_planes(
    harmonized: Sequence[CTVolume], source: Sequence[CTVolume] | None, tolerance_mm: float
) -> dict[int, Planes]:
    """Source slices at each slice of a harmonized series, for series with all of them.

    Returns:
        By the number of the harmonized series.
    """
    planes: dict[int, Planes] = {}
    for pair in pairs_to_compare(harmonized, source, tolerance_mm) if source else []:
        if source and len(pair.slices) == len(harmonized[pair.first].hu):
            planes[pair.first] = _reordered(source[pair.second], dict(pair.slices))
    return planes


def _reordered(volume: CTVolume, order: Mapping[int, int]) -> Planes:
    return lambda i: volume.hu[order[i]]


def _compare(pair: VolumePair, planes: Planes, target: Sequence[CTVolume]) -> Likeness:
    """Compare the anatomy of slices with that of the paired target slices."""
    target_volume = target[pair.second]
    return compare_anatomy(
        planes,
        target_volume.hu.__getitem__,
        pair.slices,
        target_volume.geometry.z_mm,
        target_volume.pixel_mm,
    )


def refuse_other_retest(shared: Sequence[SharedSlices]) -> None:
    """Refuse retest scans that show another body than the target.

    Raises:
        EvaluationError: if a retest shows another body.
    """
    for number, slices in enumerate(shared, start=1):
        if slices.retest is None or slices.target is None:
            continue
        pair = VolumePair(0, 0, tuple((i, i) for i in range(len(slices.target.hu))))
        reason = _compare(pair, slices.retest.hu.__getitem__, [slices.target]).difference
        if reason:
            raise EvaluationError(
                f"retest and target of compared series {number} {reason}; {_REMEDIES['retest']}"
            )


def with_target(
    pairs: Sequence[VolumePair],
    sides: Mapping[str, Sequence[CTVolume]],
    z_tolerance_mm: float = Z_TOLERANCE_MM,
    forced: bool = False,
) -> list[SharedSlices]:
    """Cut every side to the slices it shares with the others.

    Args:
        pairs: pairs of harmonized and target series.
        sides: series of `harmonized` and `target`, and of `source` and `retest` if given.
        z_tolerance_mm: largest distance at which two slices count as one place.
        forced: pair by position alone, as in `pairs_to_compare`.

    Raises:
        EvaluationError: if there are source or retest series, but not for every slice.
    """
    pairs_of_side = {
        side: {
            pair.first: pair
            for pair in pairs_to_compare(sides["harmonized"], sides[side], z_tolerance_mm, forced)
        }
        for side in ("source", "retest")
        if side in sides
    }
    shared = []
    for pair in pairs:
        kept = [i for i, _ in pair.slices]
        target_slices = [j for _, j in pair.slices]
        cut = {
            side: _cut_alike(side, by_series.get(pair.first), kept, pair.first, sides[side])
            for side, by_series in pairs_of_side.items()
        }
        shared.append(
            SharedSlices(
                harmonized=sides["harmonized"][pair.first].select(kept),
                target=sides["target"][pair.second].select(target_slices),
                source=cut.get("source"),
                retest=cut.get("retest"),
                target_at=(pair.second, tuple(target_slices)),
            )
        )
    return shared


_REMEDIES = {
    "source": "give the series that was harmonized as source",
    "retest": "give a second scan of every target series as retest",
}


def _cut_alike(
    side: str, pair: VolumePair | None, kept: list[int], first: int, volumes: Sequence[CTVolume]
) -> CTVolume:
    """Volume of a side cut to the kept slices of harmonized series number `first`."""
    slice_at = dict(pair.slices) if pair else {}
    missing = sum(i not in slice_at for i in kept)
    if pair is None or missing:
        raise EvaluationError(
            f"{missing} of {len(kept)} slices of harmonized series {first + 1} have no {side} "
            f"slice at their position; {_REMEDIES[side]}"
        )
    return volumes[pair.second].select([slice_at[i] for i in kept])


def _patients(volumes: Sequence[CTVolume]) -> list[str]:
    return [volume.patient for volume in volumes]


def _share_frame_of_reference(a: CTVolume, b: CTVolume) -> bool:
    frames = a.geometry.frame_of_reference, b.geometry.frame_of_reference
    return all(frames) and frames[0] == frames[1]
