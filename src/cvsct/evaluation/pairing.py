"""Series to be compared, cut to the slices they share (see `cvsct.pairing`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cvsct.errors import EvaluationError, GeometryError
from cvsct.pairing import Z_TOLERANCE_MM, VolumePair, pair_volumes
from cvsct.volume import CTVolume


@dataclass(frozen=True)
class SharedSlices:
    """Volumes cut to the slices they share: slice i of each is at one place in one body.

    Args:
        repeat: the target scanned once more, with other noise.
        target_at: which of the target series given this is, and which of its slices.
    """

    harmonized: CTVolume
    target: CTVolume | None
    source: CTVolume | None
    repeat: CTVolume | None = None
    target_at: tuple[int, tuple[int, ...]] = (0, ())


def images_of(shared: SharedSlices, side: str) -> CTVolume:
    """The volume of one side: `source`, `harmonized`, `repeat` or `target`."""
    volume: CTVolume | None = getattr(shared, side)
    if volume is None:
        raise EvaluationError(f"no {side} images here")
    return volume


def pairs_to_compare(
    a: Sequence[CTVolume], b: Sequence[CTVolume], z_tolerance_mm: float = Z_TOLERANCE_MM
) -> list[VolumePair]:
    """For each volume of `a`, the one of `b` that shares its slices; some may have none.

    Raises:
        EvaluationError: where `pair_volumes` refuses.
    """
    try:
        return pair_volumes(a, b, z_tolerance_mm)
    except GeometryError as error:
        raise EvaluationError(str(error)) from error


def with_target(
    pairs: Sequence[VolumePair],
    sides: Mapping[str, Sequence[CTVolume]],
    z_tolerance_mm: float = Z_TOLERANCE_MM,
) -> list[SharedSlices]:
    """Cut every side to the slices it shares with the others.

    Args:
        pairs: harmonised series with their targets.
        sides: `harmonized` and `target`, and where there are any `source` and `repeat`.

    Raises:
        EvaluationError: if there are source or repeated series, but not of every slice.
    """
    others = {
        side: {
            each.first: each
            for each in pairs_to_compare(sides["harmonized"], sides[side], z_tolerance_mm)
        }
        for side in ("source", "repeat")
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
                repeat=cut.get("repeat"),
                target_at=(pair.second, tuple(target_slices)),
            )
        )
    return shared


_REMEDIES = {
    "source": "give the series that was harmonised as source",
    "repeat": "give a second scan of every target series as repeat",
}


def _cut_alike(
    side: str, pair: VolumePair | None, kept: list[int], first: int, volumes: Sequence[CTVolume]
) -> CTVolume:
    places = dict(pair.slices) if pair else {}
    lost = sum(i not in places for i in kept)
    if pair is None or lost:
        raise EvaluationError(
            f"{lost} of {len(kept)} slices of harmonised series {first + 1} have no {side} slice "
            f"at their place; {_REMEDIES[side]}"
        )
    return volumes[pair.second].select([places[i] for i in kept])
