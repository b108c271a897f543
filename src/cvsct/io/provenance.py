"""Origin of a series: whether this program derived it, from which images, for which scanner.

The roles of an evaluation are checked by it: if arguments are exchanged, or the source is not
what was harmonized, the figures mean nothing.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset

from cvsct.core.errors import EvaluationError
from cvsct.core.text import counted
from cvsct.core.volume import Acquisition, CTVolume
from cvsct.io.dicom.derive import is_derived_here
from cvsct.io.dicom.header import text
from cvsct.io.dicom.references import ImageName, items, slices_by_name, source_images
from cvsct.io.dicom.stack import SeriesFiles, acquisition_of
from cvsct.io.dicom.write import UID_MAP
from cvsct.io.series import is_harmonized

MADE_LIKE = re.compile(r"made to look like (.*?)\. Model ", re.DOTALL)
_ACQUIRED = "109101"
_UNKNOWN = str(Acquisition())

COMPARED = ("source", "harmonized", "target", "retest")
"""Roles of which a series can have only one."""


@dataclass(frozen=True)
class Origin:
    """Origin of a series, as far as its headers or its UID map tell.

    Args:
        ours: whether this program harmonized it.
        made_like: scanners that it was made to look like, in the words of its derivation.
        acquired_by: scanner of the images that it was derived from, or of its own.
        images: names of its images.
        sources: names of the images that it was derived from.
        source_series: the series that it was derived from, where images have no names.
    """

    series_uid: str
    ours: bool = False
    made_like: str = ""
    acquired_by: Acquisition = field(default_factory=Acquisition)
    images: frozenset[ImageName] = field(default=frozenset(), repr=False)
    sources: frozenset[ImageName] = field(default=frozenset(), repr=False)
    source_series: frozenset[str] = field(default=frozenset(), repr=False)


def origin_of(series: SeriesFiles, volume: CTVolume) -> Origin:
    """The origin of a series that was read."""
    if not volume.headers:
        return _nifti_origin(series, volume)
    header = volume.headers[0]
    derivation = MADE_LIKE.search(text(header, "DerivationDescription"))
    ours = is_derived_here(header)
    return Origin(
        volume.series_uid,
        ours,
        derivation[1] if ours and derivation else "",
        acquired_by(header) if ours else volume.acquisition,
        frozenset(slices_by_name(volume)) - _sources(volume),
        _sources(volume) if ours else frozenset(),
    )


def origin_of_volume(volume: CTVolume) -> Origin | None:
    """The origin of a volume in memory; None where nothing is known of it."""
    images = frozenset(slices_by_name(volume)) if volume.headers else frozenset()
    if by := volume.harmonization:
        return Origin(
            by.derived_uid, True, by.target, volume.acquisition, frozenset(), images,
            frozenset({volume.series_uid} - {""}),
        )  # fmt: skip
    return Origin(volume.series_uid, False, "", volume.acquisition, images) if images else None


def check_roles(roles: Mapping[str, Sequence[Origin]]) -> list[str]:
    """Check the roles of series in an evaluation; returns notes for its reader.

    Args:
        roles: origins of the series by role: `harmonized`, `target`, and where given `source`,
            `retest` and `target_harmonized`.

    Raises:
        EvaluationError: if arguments were exchanged, or the source is not what was harmonized.
    """
    ours = [origin for origin in roles["harmonized"] if origin.ours]
    notes = []
    for role in ("source", "target", "retest"):
        derived = [origin for origin in roles.get(role, ()) if origin.ours]
        if derived and not ours:
            raise EvaluationError(
                f"the series given as {role} were written by `cvsct harmonize`, those given as "
                f"harmonized were not; did you exchange --harmonized and --{role}?"
            )
        if derived and role == "source":
            notes.append(
                f"{len(derived)} of {len(roles[role])} series given as source were written by "
                "`cvsct harmonize` themselves"
            )
    strangers = len(roles["harmonized"]) - len(ours)
    if strangers:
        notes.append(
            f"{strangers} of {len(roles['harmonized'])} series given as harmonized were not "
            "written by `cvsct harmonize`: give what it wrote, unless another program's images "
            "are meant"
        )
    for number, origin in enumerate(roles["harmonized"], start=1):
        _refuse_other_source(number, origin, roles.get("source", ()))
    return notes


def _refuse_other_source(number: int, harmonized: Origin, sources: Sequence[Origin]) -> None:
    """Refuse sources of which none is what a series was derived from."""
    if not sources or not harmonized.ours:
        return
    if harmonized.sources:
        related = any(harmonized.sources & source.images for source in sources if source.images)
        comparable = any(source.images for source in sources)
    else:
        related = any(source.series_uid in harmonized.source_series for source in sources)
        comparable = bool(harmonized.source_series) and not any(source.images for source in sources)
    if comparable and not related:
        raise EvaluationError(
            f"harmonized series {number} was not derived from any of the {len(sources)} series "
            "given as source; give the scans that were harmonized as --source"
        )


def wrong_direction(roles: Mapping[str, Sequence[Origin]]) -> str:
    """Whether series were made to look like another scanner than the target's, in error.

    That is so if they were made to look like their own scanner, which is the other direction, or if
    the target is of the scanner that they come from.

    Returns:
        How many, as a sentence without its end; empty where they were not.
    """
    ours, targets = [each for each in roles["harmonized"] if each.ours], roles["target"]
    wanted = {_scanner_and_kernel(str(target.acquired_by)) for target in targets}
    turned, exchanged = [], []
    for origin in ours:
        like = {_scanner_and_kernel(scanner) for scanner in origin.made_like.split("; ")} - {""}
        own = _scanner_and_kernel(str(origin.acquired_by))
        if not like or like & wanted or own == _UNKNOWN:
            continue
        if own in like:
            turned.append(origin)
        elif own in wanted:
            exchanged.append(origin)
    if turned:
        return (
            f"{len(turned)} of {len(ours)} harmonized series were made to look like "
            f"{turned[0].made_like}, the scanner they came from, and not like the target's: were "
            "they harmonized in the other direction?"
        )
    if exchanged:
        return (
            f"{len(exchanged)} of {len(ours)} harmonized series were made to look like "
            f"{exchanged[0].made_like}, and the target is of the scanner they came from: did you "
            "give the source as --target?"
        )
    return ""


def doubtful_roles(roles: Mapping[str, Sequence[Origin]]) -> str:
    """Why the series of an evaluation may not be what they are given as.

    Returns:
        The reasons, as a sentence without its end; empty where there are none.
    """
    compared = [role for role in COMPARED if roles.get(role)]
    reasons = []
    for one, other in itertools.combinations(compared, 2):
        series = [{origin.series_uid for origin in roles[role]} for role in (one, other)]
        if same := len(series[0] & series[1] - {""}):
            are = counted(same, "series is", "series are")
            reasons.append(f"{are} given as {one} and as {other} alike")
    for role in ("target", "retest"):
        if derived := sum(origin.ours for origin in roles.get(role, ())):
            were = "was" if derived == 1 else "were"
            reasons.append(f"{derived} series given as {role} {were} written by `cvsct harmonize`")
    wanted = {_scanner_and_kernel(str(target.acquired_by)) for target in roles["target"]}
    others = {
        str(origin.acquired_by)
        for origin in roles.get("retest", ())
        if _scanner_and_kernel(str(origin.acquired_by)) not in {*wanted, _UNKNOWN}
    }
    if others and _UNKNOWN not in wanted:
        reasons.append(f"the retest is of {'; '.join(sorted(others))}, and the target is not")
    return "; ".join(reasons)


def _scanner_and_kernel(about: str) -> str:
    """Description of an acquisition without the tube voltage, in ASCII and without case."""
    words = about.encode("ascii", "replace").decode().replace("\\", "/")
    return re.sub(r",? [0-9.]+ kVp$", "", words).strip().casefold()


def acquired_by(header: Dataset) -> Acquisition:
    """The scanner that acquired the source of a derived image, with the image's kernel and kVp."""
    for item in items(header, "ContributingEquipmentSequence"):
        purposes = items(item, "PurposeOfReferenceCodeSequence")
        if any(text(code, "CodeValue") == _ACQUIRED for code in purposes):
            scanner, own = acquisition_of(item), acquisition_of(header)
            return Acquisition(scanner.manufacturer, scanner.model, own.kernel, own.kvp)
    return Acquisition()


def _sources(volume: CTVolume) -> frozenset[ImageName]:
    return frozenset(name for header in volume.headers for name in source_images(header))


def _nifti_origin(series: SeriesFiles, volume: CTVolume) -> Origin:
    path = series.files[0]
    if not is_harmonized(series):
        return Origin(volume.series_uid)
    uid_map = read_uid_map(path.parent)
    derivation = MADE_LIKE.search(str(uid_map.get("derivation", "")))
    of_nifti = "derivation" in uid_map  # else it repeats the DICOM series beside it
    source_series = uid_map.get("series", {})
    return Origin(
        volume.series_uid,
        ours=True,
        made_like=derivation[1] if derivation else "",
        source_series=frozenset(map(str, source_series)) if of_nifti else frozenset(),
    )


def read_uid_map(folder: Path) -> dict[str, Any]:
    """The UID map that lies beside derived images; empty where there is none."""
    try:
        content = json.loads((folder / UID_MAP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
