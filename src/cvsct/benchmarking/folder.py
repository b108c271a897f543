"""Folders of `cvsct benchmark`: the scans it takes, what of them pairs, and its models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cvsct.core.errors import CvsctError, GeometryError, UsageError
from cvsct.core.pairing import are_other_patients, pair_volumes, unpaired_reason
from cvsct.core.progress import Note
from cvsct.io.read import find_series
from cvsct.io.series import Opened, open_series
from cvsct.model.bundle import SUMS_FILE

MODELS = "models"
MINUTES_KEY = "minutes_a_direction"
"""Key of the stored plan: minutes that each training may take for one direction."""
DATA_PARTS = TRAIN, TEST, REPEAT, PAIRED = "train", "test", "repeat", "paired"


def scanner_names(data: Path) -> tuple[str, str]:
    """Names of the two scanners (or kernels) that are both trained on and tested.

    Raises:
        UsageError: if the folder is laid out otherwise.
    """
    held = {
        part: {each.name for each in (data / part).iterdir() if each.is_dir()}
        if (data / part).is_dir()
        else set()
        for part in (TRAIN, TEST)
    }
    both = sorted(name for name in held[TRAIN] & held[TEST] if not name.startswith("."))
    if len(both) != 2:
        shown = [f"{part}/: {', '.join(sorted(each)) or 'none'}" for part, each in held.items()]
        raise UsageError(
            f"{data}: expected the same two scanners under {TRAIN}/ and {TEST}/, found "
            f"{'; '.join(shown)}; lay the scans out as {TRAIN}/A, {TRAIN}/B, {TEST}/A, {TEST}/B, "
            f"and {REPEAT}/A, {REPEAT}/B where a target was scanned twice"
        )
    return both[0], both[1]


def training_part(data: Path, names: Sequence[str], kind: str) -> str:
    """The part that methods of a kind learn from: paired ones from PAIRED where it is there.

    Raises:
        UsageError: if it is there, but not for both scanners.
    """
    if kind != "paired" or not (data / PAIRED).is_dir():
        return TRAIN
    missing = [name for name in names if not (data / PAIRED / name).is_dir()]
    if missing:
        raise UsageError(
            f"{data / PAIRED}: holds no {' and no '.join(missing)}; lay the paired scans out as "
            f"{PAIRED}/{names[0]} and {PAIRED}/{names[1]}, or take the folder away to learn from "
            f"{TRAIN}/"
        )
    return PAIRED


def unpaired_because(folder: Path, names: tuple[str, str], failure: Note) -> str:
    """Why no series of one scanner shows slices of the other's; empty where some does.

    Headers tell, before anything is trained.

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


def count_files(data: Path, parts: Sequence[str]) -> dict[str, Any]:
    """How many files and bytes each part holds: enough to notice other data."""
    found = {}
    for part in parts:
        files = [file for file in (data / part).rglob("*") if file.is_file()]
        found[part] = [len(files), sum(file.stat().st_size for file in files)]
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """The `manifest.json` that a command wrote into its output folder."""
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


def fit_s(model: Path) -> float:
    """Seconds a training took; one that was interrupted counts its own minutes."""
    about = read_manifest(model)
    return float(max(about["timings_s"]["training"], 60 * about["figures"].get("minutes", 0)))


def model_mb(model: Path) -> float:
    """Size of what SHA256SUMS lists: checkpoints and logs are no part of a model."""
    names = [
        line.partition("  ")[2]
        for line in (model / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    ]
    return sum((model / name).stat().st_size for name in names) / 1e6


def failed_series(folder: Path) -> int | None:
    """How many series of a harmonized folder failed; None where it is not finished."""
    try:
        figures = read_manifest(folder)["figures"]
    except (OSError, ValueError, KeyError):
        return None
    return int(figures.get("n_failed", 0)) + int(figures.get("n_quarantined", 0))


def is_report(folder: Path) -> bool:
    """Whether a folder holds a whole report; what is no report is removed, to be made again."""
    try:
        json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        shutil.rmtree(folder, ignore_errors=True)
        return False
    return True


def remove_unstarted_training(model: Path) -> None:
    """Remove the logs of a training that ended before there was anything to go on with."""
    held = list(model.iterdir()) if model.is_dir() else []
    if held and all(each.is_file() and each.suffix == ".jsonl" for each in held):
        shutil.rmtree(model)
