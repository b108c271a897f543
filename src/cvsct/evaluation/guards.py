"""Records of what a model's guards found in each harmonized series, for the report.

They are read from the manifest of `cvsct harmonize`. Without a manifest, the flagged slices are
known from the Image Comments of the harmonized images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
        changed_limits: options of `cvsct harmonize` that set or switched off limits of the guards.
    """

    series: str
    scan: str
    position: float | None
    exceeded: tuple[str, ...]
    judged: int | None
    flagged: tuple[FlaggedSlice, ...]
    series_uid: str = ""
    changed_limits: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for `metrics.json`, without the UID, which the manifest has."""
        record = asdict(self) | {
            "exceeded": list(self.exceeded),
            "n_flagged": len(self.flagged),
            "changed_limits": list(self.changed_limits),
        }
        del record["series_uid"]
        return record


def guards_of(manifest: Mapping[str, Any], volumes: Sequence[CTVolume]) -> tuple[GuardRecord, ...]:
    """Guard records of the harmonized series.

    A series that the manifest does not name has a record without a verdict. Without a manifest only
    series with flagged slices have one.

    Args:
        manifest: manifest of `cvsct harmonize`; empty where there is none.
        volumes: the harmonized series.
    """
    rows = _mapping(manifest.get("figures")).get("series")
    rows = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    if not any(row.get("guard") for row in rows):
        return _from_images(volumes)
    options = _changed_limits(manifest)
    records = [_from_row(row, options) for row in rows]
    return (*records, *_of_strangers(rows, volumes))


def record_in_memory(
    number: int, scan: Mapping[str, Any], remarks: Sequence[str], volume: CTVolume
) -> GuardRecord:
    """Guard record of a volume that was harmonized in memory.

    Args:
        number: number of the volume, which names it.
        scan: verdict on its source, as in the manifest.
        remarks: why each slice is flagged; empty where it is not.
        volume: the harmonized volume.
    """
    record = _from_row({"folder": str(number), "guard": {"scan": scan}}, ())
    flagged = tuple(
        FlaggedSlice(i + 1, float(volume.geometry.z_mm[i]), remark.removeprefix(REMARK_PREFIX))
        for i, remark in enumerate(remarks)
        if remark
    )
    uid = volume.harmonization.derived_uid if volume.harmonization else volume.series_uid
    return replace(record, judged=len(remarks), flagged=flagged, series_uid=uid)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _changed_limits(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Options by which the user has set or switched off limits of the guards."""
    options = _mapping(manifest.get("config")).get("guard")
    actions = ("scan=", "slices=", "off")
    words = map(str, options) if isinstance(options, list) else ()
    return tuple(word for word in words if not word.startswith(actions))


def _of_strangers(
    rows: Sequence[Mapping[str, Any]], volumes: Sequence[CTVolume]
) -> list[GuardRecord]:
    """Records without a verdict of the series that a manifest does not name.

    A NIfTI series has no UID that the manifest could name; there the number of series decides.
    """
    named = {str(row["derived_series_uid"]) for row in rows if row.get("derived_series_uid")}
    strangers = [
        GuardRecord(str(number), "", None, (), None, (), volume.series_uid)
        for number, volume in enumerate(volumes, 1)
        if volume.headers and volume.series_uid not in named
    ]
    surplus = len(volumes) - len(named) - len(strangers)
    return strangers + [GuardRecord("unknown", "", None, (), None, ())] * surplus


def _from_row(row: Mapping[str, Any], changed_limits: tuple[str, ...]) -> GuardRecord:
    """Record of a series from its row in a manifest; without a verdict where it makes no sense."""
    series, uid = str(row.get("folder", "")), str(row.get("derived_series_uid") or "")
    guard = _mapping(row.get("guard"))
    scan, slices = (guard.get(part, {}) for part in ("scan", "slices"))
    try:
        limits, position, judged = (
            slices.get("limits", {}),
            scan.get("position"),
            slices.get("judged"),
        )
        return GuardRecord(
            series=series,
            scan=str(scan.get("kind", scan.get("verdict", ""))),
            position=None if position is None else _finite(position),
            exceeded=tuple(map(str, scan.get("exceeded", {}).values())),
            judged=None if judged is None else int(_finite(judged)),
            flagged=tuple(
                FlaggedSlice(
                    int(_finite(slice_row["slice"])),
                    _finite(slice_row["z_mm"]),
                    ", ".join(
                        f"{name} {_number(value)} (limit {_number(limits.get(name))})"
                        for name, value in slice_row["exceeded"].items()
                    ),
                )
                for slice_row in slices.get("flagged", ())
            ),
            series_uid=uid,
            changed_limits=changed_limits,
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return GuardRecord(series, "", None, (), None, (), uid)


def _finite(value: Any) -> float:
    """A number of a manifest.

    Raises:
        TypeError, ValueError: if it is something else.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is no finite number")
    return float(value)


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


def _number(value: Any) -> str:
    return "unknown" if value is None else f"{_finite(value):.3g}"
