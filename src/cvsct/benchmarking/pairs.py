"""What of a benchmark's scans can be paired, told from headers before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cvsct.core.errors import CvsctError, GeometryError
from cvsct.core.pairing import are_other_patients, pair_volumes, unpaired_reason
from cvsct.core.progress import Note
from cvsct.io.read import find_series
from cvsct.io.series import Opened, open_series


def unpaired_because(folder: Path, names: tuple[str, str], failure: Note) -> str:
    """Why no series of one scanner shows slices of the other's; empty where some does.

    Args:
        folder: holds a folder for each of the names.
        failure: told why series must be refused, but for the first, which the error tells.

    Raises:
        CvsctError: if a series must be refused, all of which are told; or if series meet that
            cannot be paired.
    """
    a, b = (_opened(folder / name, failure) for name in names)
    misfits: list[GeometryError] = []
    others_patient = False
    for volume in a:
        others = [other for other in b if not are_other_patients(volume.patient, other.patient)]
        try:
            if pair_volumes([volume], others):
                return ""
            others_patient |= len(others) < len(b) and bool(pair_volumes([volume], b))
        except GeometryError as error:
            misfits.append(error)
    if others_patient:
        return "series at the same place are of different patients"
    if misfits:
        raise CvsctError(f"{folder.name}/{names[0]} and {folder.name}/{names[1]}: {misfits[0]}")
    return unpaired_reason(a, b, names=names)


def _opened(folder: Path, failure: Note) -> Sequence[Opened]:
    """Every series of a folder, its headers checked.

    Raises:
        CvsctError: if any must be refused.
    """
    found, refused = [], []
    for number, series in enumerate(find_series(folder), 1):
        try:
            found.append(open_series(series))
        except CvsctError as error:
            refused.append(f"{folder.parent.name}/{folder.name}, series {number}: {error}")
    if refused:
        for reason in refused[1:]:
            failure(reason)
        more = f" (and {len(refused) - 1} more, listed before)" if len(refused) > 1 else ""
        raise CvsctError(f"{refused[0]}{more}")
    return found
