"""Whether a model is tested on scans that it learned from.

The manifest of `cvsct harmonize` holds the model's keyed hashes of training slices
(`core.slice_hashes`); those of the evaluated scans are looked up among them. Another kernel or
dose of a training scan has other pixels and is not recognized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cvsct.core.slice_hashes import LEARNED, SliceHashes
from cvsct.core.volume import CTVolume

TESTED_SIDES = ("source", "target")
"""Sides whose scans a model may have learned from."""


@dataclass(frozen=True)
class Independence:
    """Slices of the evaluated scans that the model learned from.

    Args:
        learned: number of them by side.
        series: series of each side that hold such slices, and all series of the side.
    """

    learned: dict[str, int]
    series: dict[str, tuple[int, int]]

    @property
    def warning(self) -> str:
        """What a reader must know, as a sentence without its end; empty where all is well."""
        sides = [
            f"{n_learned} of {n} {side} series"
            for side, (n_learned, n) in self.series.items()
            if n_learned
        ]
        if not sides:
            return ""
        return (
            f"the model learned from the scans it is tested on ({', '.join(sides)}): the figures "
            "do not hold for other scans"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for `metrics.json`."""
        return {
            side: {"learned_slices": self.learned[side], "learned_series": n_learned, "series": n}
            for side, (n_learned, n) in self.series.items()
        }


def independence_of(
    manifest: Mapping[str, Any], scans: Mapping[str, Sequence[CTVolume]]
) -> Independence | None:
    """Look up the evaluated scans among those that the model learned from.

    Args:
        manifest: manifest of `cvsct harmonize`; empty where there is none.
        scans: the scans of each side.

    Returns:
        None where nothing is known: without a manifest, or of a model that holds no hashes, or
        not those of all its scans and none of these.
    """
    try:
        known = SliceHashes.from_json(manifest["figures"][LEARNED])
    except (KeyError, TypeError, ValueError):
        return None
    if not known.hashes:
        return None
    counts = {
        side: [known.count(volume.hu) for volume in scans[side]]
        for side in TESTED_SIDES
        if side in scans
    }
    if not known.told(sum(map(sum, counts.values()))):
        return None
    return Independence(
        learned={side: sum(of_series) for side, of_series in counts.items()},
        series={
            side: (sum(count > 0 for count in of_series), len(of_series))
            for side, of_series in counts.items()
        },
    )
