"""Folders of a benchmark: its test and training scans, their pairing, models and reports."""

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
"""Folders of the data, each with one folder for each scanner."""


def scanner_names(data: Path) -> tuple[str, str]:
    """Names of the two scanners (or kernels) that have training and test scans.

    Raises:
        UsageError: if there are not two.
    """
    scanners = {
        part: {folder.name for folder in (data / part).iterdir() if folder.is_dir()}
        if (data / part).is_dir()
        else set()
        for part in (TRAIN, TEST)
    }
    both = sorted(name for name in scanners[TRAIN] & scanners[TEST] if not name.startswith("."))
    if len(both) != 2:
        contents = [
            f"{part}/: {', '.join(sorted(names)) or 'none'}" for part, names in scanners.items()
        ]
        raise UsageError(
            f"{data}: expected the same two scanners under {TRAIN}/ and {TEST}/, found "
            f"{'; '.join(contents)}; lay the scans out as {TRAIN}/A, {TRAIN}/B, {TEST}/A, "
            f"{TEST}/B, and {REPEAT}/A, {REPEAT}/B where a target was scanned twice"
        )
    return both[0], both[1]


def training_part(data: Path, names: Sequence[str], kind: str) -> str:
    """Folder of the data that methods of a kind train on: `paired` for paired ones if it exists.

    Args:
        data: folder of the data.
        names: names of the two scanners.
        kind: kind of the methods.

    Raises:
        UsageError: if the folder exists, but not for both scanners.
    """
    if kind != "paired" or not (data / PAIRED).is_dir():
        return TRAIN
    missing = [name for name in names if not (data / PAIRED / name).is_dir()]
    if missing:
        raise UsageError(
            f"{data / PAIRED}: holds no {' and no '.join(missing)}; lay the paired scans out as "
            f"{PAIRED}/{names[0]} and {PAIRED}/{names[1]}, or remove the folder to train on "
            f"{TRAIN}/"
        )
    return PAIRED


def unpaired_because(folder: Path, names: tuple[str, str], failure: Note) -> str:
    """Why no series of one scanner shows slices of the other's; empty where some series does.

    Only headers are read, so that this is known before anything is trained.

    Args:
        folder: folder with a folder for each scanner.
        names: names of the two scanners.
        failure: called with the reason of every refused series but the first, whose reason is in
            the error.

    Raises:
        CvsctError: if a series must be refused, or series overlap that cannot be paired.
    """
    a, b = (_opened(folder / name, failure) for name in names)
    errors: list[GeometryError] = []
    patients_differ = False
    for volume in a:
        candidates = [other for other in b if not are_other_patients(volume.patient, other.patient)]
        try:
            if pair_volumes([volume], candidates):
                return ""
            patients_differ |= len(candidates) < len(b) and bool(pair_volumes([volume], b))
        except GeometryError as error:
            errors.append(error)
    if patients_differ:
        return "series at the same place are of different patients"
    if errors:
        raise CvsctError(f"{folder.name}/{names[0]} and {folder.name}/{names[1]}: {errors[0]}")
    return unpaired_reason(a, b, names=names)


def _opened(folder: Path, failure: Note) -> Sequence[Opened]:
    """Every series of a folder, with its headers checked.

    Raises:
        CvsctError: if any must be refused.
    """
    opened, refused = [], []
    for number, series in enumerate(find_series(folder), 1):
        try:
            opened.append(open_series(series))
        except CvsctError as error:
            refused.append(f"{folder.parent.name}/{folder.name}, series {number}: {error}")
    if refused:
        for reason in refused[1:]:
            failure(reason)
        more = f" (and {len(refused) - 1} more, listed before)" if len(refused) > 1 else ""
        raise CvsctError(f"{refused[0]}{more}")
    return opened


def count_files(data: Path, parts: Sequence[str]) -> dict[str, Any]:
    """Number of files and bytes of each part of the data, to notice that the data has changed."""
    counts = {}
    for part in parts:
        files = [file for file in (data / part).rglob("*") if file.is_file()]
        counts[part] = [len(files), sum(file.stat().st_size for file in files)]
    return counts


def read_manifest(folder: Path) -> dict[str, Any]:
    """The `manifest.json` that a command wrote into its output folder."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def training_s(model: Path) -> float:
    """Duration of a model's training in seconds, including interrupted runs of it."""
    manifest = read_manifest(model)
    return float(max(manifest["timings_s"]["training"], 60 * manifest["figures"].get("minutes", 0)))


def model_mb(model: Path) -> float:
    """Size of a model in MB: the files that SHA256SUMS lists, without checkpoints and logs."""
    names = [
        line.partition("  ")[2]
        for line in (model / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    ]
    return sum((model / name).stat().st_size for name in names) / 1e6


def failed_series(folder: Path) -> int | None:
    """Number of series of a harmonized folder that failed; None where the run is not finished."""
    try:
        figures = read_manifest(folder)["figures"]
    except (OSError, ValueError, KeyError):
        return None
    return int(figures.get("n_failed", 0)) + int(figures.get("n_quarantined", 0))


def is_report(folder: Path) -> bool:
    """Whether a folder holds a complete report; an incomplete one is removed."""
    try:
        json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        shutil.rmtree(folder, ignore_errors=True)
        return False
    return True


def remove_unstarted_training(model: Path) -> None:
    """Remove a model's folder that holds logs only, so that its training can start again."""
    paths = list(model.iterdir()) if model.is_dir() else []
    if paths and all(path.is_file() and path.suffix == ".jsonl" for path in paths):
        shutil.rmtree(model)
