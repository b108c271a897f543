"""Images that share a SOP Instance UID, as careless anonymizers leave them.

The standard says that the UID of an image is its own (PS3.3 C.12.1.1.1), and derived UIDs follow
from it. Where it is not, the position along the normal and the stored values tell images apart;
where these agree too, one is a copy of the other, and neither series is used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cvsct.core.errors import CvsctError
from cvsct.io.dicom.header import MAX_MULTIFRAME_BYTES, label, read_dataset, text
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.dicom.write import position_mm, stored_sha256
from cvsct.io.nifti.header import is_nifti
from cvsct.io.series import open_series


def mark_repeated(series: Sequence[SeriesFiles], repeated: Iterable[str]) -> list[SeriesFiles]:
    """Mark each series with its UIDs that are not unique, and refuse series that hold copies.

    Args:
        series: all that were found under one path, so that every part of a cohort knows the same.
        repeated: SOP Instance UIDs that occur more than once there; sound input has none, and is
            given back as it is.
    """
    repeated = frozenset(repeated)
    if not repeated:
        return list(series)
    holders: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for number, files in enumerate(series):
        for path, uid in _uids(files):
            if uid in repeated:
                holders[uid].append((number, path))
    own: dict[int, set[str]] = defaultdict(set)
    for uid, places in holders.items():
        for number, _ in places:
            own[number].add(uid)
    refused = dict(_copies(series, holders))
    return [
        replace(
            files, repeated=frozenset(own[number]), refused=files.refused or refused.get(number, "")
        )
        for number, files in enumerate(series)
    ]


def _uids(series: SeriesFiles) -> Iterator[tuple[Path, str]]:
    for path in series.files:
        if series.series_uid and not series.refused and not is_nifti(path):
            try:
                header = read_dataset(
                    path, pixels=False, tags=["SOPInstanceUID"], limit_bytes=MAX_MULTIFRAME_BYTES
                )
            except CvsctError:  # told when the series is read
                continue
            yield path, text(header, "SOPInstanceUID")


def _copies(
    series: Sequence[SeriesFiles], holders: dict[str, list[tuple[int, Path]]]
) -> Iterator[tuple[int, str]]:
    """Numbers of series that hold the same image as another, and why each is refused.

    Copies within one series lie at one position, which reading it refuses.
    """
    for places in holders.values():
        if len({number for number, _ in places}) < 2:
            continue
        seen: dict[tuple[str, str], tuple[int, Path]] = {}
        for number, path in places:
            for image in _images(series[number], path):
                other_number, other = seen.setdefault(image, (number, path))
                if other_number != number:
                    yield number, _refusal(path, other)
                    yield other_number, _refusal(other, path)


def _images(series: SeriesFiles, path: Path) -> Iterator[tuple[str, str]]:
    """Position and hash of stored values of each image in a file."""
    try:
        volume = open_series(replace(series, files=(path,))).read()
        for i, header in enumerate(volume.headers):
            yield position_mm(header), stored_sha256(volume, i)
    except CvsctError:  # told when the series is read
        return


def _refusal(path: Path, other: Path) -> str:
    return (
        f"{label(path)}: the same image as {label(other)} of another series (equal SOP Instance "
        "UID, position and pixels); remove one of them"
    )
