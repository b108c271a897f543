"""The scans that `cvsct benchmark` takes, and how their folders are laid out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cvsct.errors import UsageError

MODELS = "models"
TRAIN, TEST, REPEAT = "train", "test", "repeat"


def scanners_of(data: Path) -> tuple[str, str]:
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


def fingerprint(data: Path) -> dict[str, Any]:
    """How many files and bytes each part holds: enough to notice other data."""
    found = {}
    for part in (TRAIN, TEST, REPEAT):
        files = [file for file in (data / part).rglob("*") if file.is_file()]
        found[part] = [len(files), sum(file.stat().st_size for file in files)]
    return found
