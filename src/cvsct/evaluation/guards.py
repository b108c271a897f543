"""What the guards of a model said of the series it harmonized, for the report.

`cvsct harmonize` writes it into its manifest. Where that is not at hand the images themselves tell
which of them were flagged, in Image Comments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cvsct.core.volume import CTVolume

REMARK_PREFIX = "cvsct guard: "
"""Begins the comments of a flagged image."""


@dataclass(frozen=True)
class FlaggedSlice:
    """A slice that was changed too much.

    Args:
        slice: its number in the series, from 1.
        why: each limit that was exceeded, with the value.
    """

    slice: int
    z_mm: float
    why: str


@dataclass(frozen=True)
class GuardRecord:
    """What was said of one series.

    Args:
        series: the name of its folder, or its number.
        scan: kind of the scan before it was mapped, `in_domain` or another; empty where none is
            known. Manifests of 0.1.0 have words of their own.
        position: 1 like the model's source, 0 like its target.
        exceeded: by how much the scan is unlike the source's, in words.
        judged: slices that were judged; None where only the flagged ones are known.
    """

    series: str
    scan: str
    position: float | None
    exceeded: tuple[str, ...]
    judged: int | None
    flagged: tuple[FlaggedSlice, ...]

    def to_json(self) -> dict[str, Any]:
        """For `metrics.json`."""
        return asdict(self) | {"exceeded": list(self.exceeded), "n_flagged": len(self.flagged)}


def guards_of(manifest: Mapping[str, Any], volumes: Sequence[CTVolume]) -> tuple[GuardRecord, ...]:
    """What is known of each harmonized series.

    Args:
        manifest: of `cvsct harmonize`, empty where there is none.
        volumes: the harmonized series.
    """
    rows = manifest.get("figures", {}).get("series", [])
    told = [row for row in rows if isinstance(row, Mapping) and row.get("guard")]
    return tuple(map(_from_row, told)) if told else _from_images(volumes)


def _from_row(row: Mapping[str, Any]) -> GuardRecord:
    scan, slices = (row["guard"].get(part, {}) for part in ("scan", "slices"))
    limits = slices.get("limits", {})
    return GuardRecord(
        series=str(row.get("folder", "")),
        scan=str(scan.get("kind", scan.get("verdict", ""))),
        position=scan.get("position"),
        exceeded=tuple(scan.get("exceeded", {}).values()),
        judged=slices.get("judged"),
        flagged=tuple(
            FlaggedSlice(
                one["slice"],
                one["z_mm"],
                ", ".join(
                    f"{name} {_number(value)} (limit {_number(limits.get(name))})"
                    for name, value in one["exceeded"].items()
                ),
            )
            for one in slices.get("flagged", ())
        ),
    )


def _from_images(volumes: Sequence[CTVolume]) -> tuple[GuardRecord, ...]:
    found = []
    for number, volume in enumerate(volumes, 1):
        z_mm = volume.geometry.z_mm
        comments = [str(header.get("ImageComments", "")) for header in volume.headers]
        flagged = tuple(
            FlaggedSlice(i + 1, float(z_mm[i]), text.splitlines()[0].removeprefix(REMARK_PREFIX))
            for i, text in enumerate(comments)
            if text.startswith(REMARK_PREFIX)
        )
        if flagged:
            found.append(GuardRecord(str(number), "", None, (), None, flagged))
    return tuple(found)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
