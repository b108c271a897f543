"""Series to be compared: which slices pair (see `cvsct.core.pairing`) and whether they may.

Slices at one place pair unless their patients are known to differ, and are compared only where
the images show one body (`cvsct.core.same_body`).
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
from cvsct.core.same_body import Likeness, Planes, likeness
from cvsct.core.volume import CTVolume
from cvsct.evaluation.settings import EvaluationSettings

SWITCHED_OFF = "pairing was switched off"


@dataclass(frozen=True)
class SharedSlices:
    """Volumes cut to the slices they share: slice i of each is at one place in one body.

    Args:
        retest: the target scanned once more, with other noise.
        target_at: which of the target series given this is, and which of its slices.
    """

    harmonized: CTVolume
    target: CTVolume | None
    source: CTVolume | None
    retest: CTVolume | None = None
    target_at: tuple[int, tuple[int, ...]] = (0, ())


@dataclass(frozen=True)
class Pairing:
    """Which harmonized series are compared with which target series.

    Args:
        unpaired_because: why none is; empty where some are.
        notes: what a reader must know of the pairs.
    """

    pairs: tuple[VolumePair, ...]
    unpaired_because: str = ""
    notes: tuple[str, ...] = ()


def images_of(shared: SharedSlices, side: str) -> CTVolume:
    """The volume of one side: `source`, `harmonized`, `retest` or `target`."""
    volume: CTVolume | None = getattr(shared, side)
    if volume is None:
        raise EvaluationError(f"no {side} images here")
    return volume


def pairs_to_compare(
    a: Sequence[CTVolume],
    b: Sequence[CTVolume],
    z_tolerance_mm: float = Z_TOLERANCE_MM,
    forced: bool = False,
) -> list[VolumePair]:
    """For each volume of `a`, the one of `b` that shares its slices; some may have none.

    Args:
        forced: by position alone, whatever patients and frames of reference are.

    Raises:
        EvaluationError: where `pair_volumes` refuses.
    """
    who = None if forced else (_patients(a), _patients(b))
    try:
        return pair_volumes(a, b, z_tolerance_mm, who, any_frame=forced)
    except GeometryError as error:
        raise EvaluationError(str(error)) from error


def pair_with_target(
    harmonized: Sequence[CTVolume],
    target: Sequence[CTVolume],
    source: Sequence[CTVolume] | None,
    settings: EvaluationSettings,
) -> Pairing:
    """Pair harmonized series with the target's, and check that each pair shows one body.

    What is checked is the source where there is one: a model may have left nothing of a body.

    Raises:
        EvaluationError: if volumes that should pair do not fit, or a forced pairing finds nothing.
    """
    if settings.pairing == "off":
        return Pairing((), SWITCHED_OFF)
    forced, tolerance_mm = settings.pairing == "forced", settings.z_tolerance_mm
    pairs = pairs_to_compare(harmonized, target, tolerance_mm, forced)
    if not pairs:
        who = None if forced else (_patients(harmonized), _patients(target))
        reason = unpaired_reason(
            harmonized, target, tolerance_mm, ("harmonized", "target"), patients=who
        )
        if forced:
            raise EvaluationError(f"pairing cannot be forced: {reason}")
        return Pairing((), reason)
    before = _own_sources(harmonized, source, tolerance_mm)
    kept, notes, reasons = [], [], []
    for pair in pairs:
        shown = before.get(pair.first)
        alike = _compare(pair, shown or harmonized[pair.first].hu.__getitem__, target)
        side = "harmonized series" if shown is None else "the source of harmonized series"
        named = f"{side} {pair.first + 1} and target series {pair.second + 1}"
        reason = alike.difference
        if reason and not forced:
            reasons.append(f"{named} {reason}")
            continue
        kept.append(pair)
        if are_other_patients(harmonized[pair.first].patient, target[pair.second].patient):
            notes.append(
                f"paired because that was asked for: {named}, though their patients differ"
            )
        if reason:
            notes.append(f"paired because that was asked for, although {named} {reason}")
        elif alike.correlation is None:
            notes.append(f"{named} show too little to tell whether it is one body")
        elif not _one_frame(harmonized[pair.first], target[pair.second]):
            notes.append(
                f"{named} share no frame of reference: slices were paired by position alone, "
                f"which holds only if both show the same body (their edges correlate by "
                f"{alike.correlation:.2f})"
            )
    if not kept:
        return Pairing((), reasons[0])
    notes += [f"left out: {reason}" for reason in reasons]
    return Pairing(tuple(kept), "", tuple(notes))


def _own_sources(
    harmonized: Sequence[CTVolume], source: Sequence[CTVolume] | None, tolerance_mm: float
) -> dict[int, Planes]:
    """The source's slices by those of each harmonized series, where it has all of them."""
    found: dict[int, Planes] = {}
    for pair in pairs_to_compare(harmonized, source, tolerance_mm) if source else []:
        if source and len(pair.slices) == len(harmonized[pair.first].hu):
            found[pair.first] = _reordered(source[pair.second], dict(pair.slices))
    return found


def _reordered(volume: CTVolume, order: Mapping[int, int]) -> Planes:
    return lambda i: volume.hu[order[i]]


def _compare(pair: VolumePair, shown: Planes, target: Sequence[CTVolume]) -> Likeness:
    other = target[pair.second]
    return likeness(
        shown,
        other.hu.__getitem__,
        pair.slices,
        other.geometry.z_mm,
        other.pixel_mm,
    )


def refuse_other_retest(shared: Sequence[SharedSlices]) -> None:
    """Refuse retest scans that show another body than the target.

    Raises:
        EvaluationError: naming the series.
    """
    for number, one in enumerate(shared, start=1):
        if one.retest is None or one.target is None:
            continue
        slices = tuple((i, i) for i in range(len(one.target.hu)))
        shown = one.retest.hu.__getitem__
        reason = _compare(VolumePair(0, 0, slices), shown, [one.target]).difference
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
        pairs: harmonized series with their targets.
        sides: `harmonized` and `target`, and where there are any `source` and `retest`.
        forced: as in `pairs_to_compare`.

    Raises:
        EvaluationError: if there are source or retest series, but not of every slice.
    """
    others = {
        side: {
            each.first: each
            for each in pairs_to_compare(sides["harmonized"], sides[side], z_tolerance_mm, forced)
        }
        for side in ("source", "retest")
        if side in sides
    }
    shared = []
    for pair in pairs:
        kept = [i for i, _ in pair.slices]
        target_slices = [j for _, j in pair.slices]
        cut = {
            side: _cut_alike(side, found.get(pair.first), kept, pair.first, sides[side])
            for side, found in others.items()
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
    places = dict(pair.slices) if pair else {}
    lost = sum(i not in places for i in kept)
    if pair is None or lost:
        raise EvaluationError(
            f"{lost} of {len(kept)} slices of harmonized series {first + 1} have no {side} slice "
            f"at their place; {_REMEDIES[side]}"
        )
    return volumes[pair.second].select([places[i] for i in kept])


def _patients(volumes: Sequence[CTVolume]) -> list[str]:
    return [volume.patient for volume in volumes]


def _one_frame(a: CTVolume, b: CTVolume) -> bool:
    frames = a.geometry.frame_of_reference, b.geometry.frame_of_reference
    return all(frames) and frames[0] == frames[1]
