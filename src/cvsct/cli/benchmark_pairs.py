"""What of a benchmark's scans can be paired, told from headers before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cvsct.cli.words import complain
from cvsct.errors import CvsctError, GeometryError

if TYPE_CHECKING:
    from cvsct.io.series import Opened


def unpaired_because(folder: Path, names: tuple[str, str]) -> str:
    """Why no series of one scanner shows slices of the other's; empty where some does.

    Args:
        folder: holds a folder for each of the names.

    Raises:
        CvsctError: if a series must be refused, all of which are told; or if series meet that
            cannot be paired.
    """
    from cvsct.pairing import pair_volumes, unpaired_reason

    a, b = (_opened(folder / name) for name in names)
    misfits: list[GeometryError] = []
    others_patient = False
    for volume in a:
        others = [other for other in b if not _other_patient(volume, other)]
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


def _other_patient(a: Opened, b: Opened) -> bool:
    return bool(a.patient and b.patient and a.patient != b.patient)


def _opened(folder: Path) -> Sequence[Opened]:
    """Every series of a folder, its headers checked.

    Raises:
        CvsctError: if any must be refused.
    """
    from cvsct.io.dicom import find_series
    from cvsct.io.series import open_series

    found, refused = [], []
    for number, series in enumerate(find_series(folder), 1):
        try:
            found.append(open_series(series))
        except CvsctError as error:
            refused.append(f"{folder.parent.name}/{folder.name}, series {number}: {error}")
    if refused:
        for reason in refused[1:]:
            complain(reason)
        more = f" (and {len(refused) - 1} more, listed before)" if len(refused) > 1 else ""
        raise CvsctError(f"{refused[0]}{more}")
    return found
