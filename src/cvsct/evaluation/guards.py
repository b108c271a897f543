"""Records of what a model's guards found in each harmonized series, for the report.

They are read from the manifest of `cvsct harmonize`. Without a manifest, the flagged slices are
known from the Image Comments of the harmonized images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cvsct.core.volume import CTVolume

REMARK_PREFIX = "cvsct guard: "
"""Beginning of the Image Comments of a flagged image."""


@dataclass(frozen=True)
class FlaggedSlice:
    """Slice that the model changed more than its guard allows.

    Args:
        slice: number in the series, from 1.
        z_mm: position along the normal of the slices.
        why: each limit that was exceeded, with the value.
    """

    slice: int
    z_mm: float
    why: str


@dataclass(frozen=True)
class GuardRecord:
    """Findings of a model's guards on one harmonized series.

    Args:
        series: name of its folder, or its number.
        scan: verdict on the scan before it was mapped, such as `in_domain`; empty if no guard
            judged it. The manifests of 0.1.0 have other values.
        position: position of its texture between the model's sides, 1 like the source and 0 like
            the target; None if unknown.
        exceeded: sentences on each limit by which the scan differs from the source side.
        judged: number of slices that were checked; None where only the flagged ones are known.
        flagged: slices that were changed too much.
        series_uid: Series Instance UID of the harmonized series; empty if unknown.
    """

    series: str
    scan: str
    position: float | None
    exceeded: tuple[str, ...]
    judged: int | None
    flagged: tuple[FlaggedSlice, ...]
    series_uid: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `metrics.json`, without the UID, which the manifest has."""
        record = asdict(self) | {"exceeded": list(self.exceeded), "n_flagged": len(self.flagged)}
        del record["series_uid"]
        return record


def guards_of(manifest: Mapping[str, Any], volumes: Sequence[CTVolume]) -> tuple[GuardRecord, ...]:
    """Guard records of the harmonized series; series of which nothing is known have none.

    Args:
        manifest: manifest of `cvsct harmonize`; empty where there is none.
        volumes: the harmonized series.
    """
    rows = manifest.get("figures", {}).get("series", [])
    rows = [row for row in rows if isinstance(row, Mapping)]
    is_guarded = any(row.get("guard") for row in rows)
    return tuple(map(_from_row, rows)) if is_guarded else _from_images(volumes)


def _from_row(row: Mapping[str, Any]) -> GuardRecord:
    guard = row.get("guard") or {}
    scan, slices = (guard.get(part, {}) for part in ("scan", "slices"))
    limits = slices.get("limits", {})
    return GuardRecord(
        series=str(row.get("folder", "")),
        scan=str(scan.get("kind", scan.get("verdict", ""))),
        position=scan.get("position"),
        exceeded=tuple(scan.get("exceeded", {}).values()),
        judged=slices.get("judged"),
        flagged=tuple(
            FlaggedSlice(
                slice_row["slice"],
                slice_row["z_mm"],
                ", ".join(
                    f"{name} {_number(value)} (limit {_number(limits.get(name))})"
                    for name, value in slice_row["exceeded"].items()
                ),
            )
            for slice_row in slices.get("flagged", ())
        ),
        series_uid=str(row.get("derived_series_uid") or ""),
    )


def _from_images(volumes: Sequence[CTVolume]) -> tuple[GuardRecord, ...]:
    records = []
    for number, volume in enumerate(volumes, 1):
        z_mm = volume.geometry.z_mm
        comments = [str(header.get("ImageComments", "")) for header in volume.headers]
        flagged = tuple(
            FlaggedSlice(i + 1, float(z_mm[i]), text.splitlines()[0].removeprefix(REMARK_PREFIX))
            for i, text in enumerate(comments)
            if text.startswith(REMARK_PREFIX)
        )
        if flagged:
            records.append(GuardRecord(str(number), "", None, (), None, flagged, volume.series_uid))
    return tuple(records)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
