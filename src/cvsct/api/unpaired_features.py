"""Features of every patient of an evaluation whose scans do not pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cvsct.api.features import Scan, extract_features
from cvsct.core.errors import EvaluationError
from cvsct.core.progress import Note, Progress
from cvsct.evaluation.groups.evaluate_groups import evaluate_groups

SIDES = ("source", "harmonized", "target")
"""Sides whose scans are measured; the target's are rows of the stage `source` too."""


def write_unpaired_features(
    sides: Mapping[str, Scan | Sequence[Scan]],
    masks: Sequence[Path],
    folder: Path,
    *,
    structures: Sequence[str],
    seed: int,
    workers: int,
    cache: bool,
    progress: Progress,
    note: Note,
) -> None:
    """Write the table of all patients, and the comparison of their scanners.

    The table is that of `cvsct features` with PyRadiomics' bins, as in a paired evaluation. The
    comparison needs a source; without enough patients its page says so.

    Args:
        sides: scans of each side: a path with any number of them, or volumes in memory.
        masks: masks of any of these scans; without masks, blocks of soft tissue and the lungs are
            measured.
        folder: folder of the evaluation, to write to.
        structures: names or patterns of the masks' labels.
        seed: seed of the positions of the blocks.
        workers: number of processes; 0 for one per core.
        cache: keep features in the user's cache folder and reuse them.
        progress: called with `(task, done, total)` as the work proceeds.
        note: called with each remark.

    Raises:
        CvsctError: as `extract_features`.
    """
    scans: list[Scan] = []
    for side in SIDES:
        side_scans = sides.get(side, ())
        scans += [side_scans] if isinstance(side_scans, Scan) else side_scans
    table = extract_features(
        scans, masks, structures=structures, binning="pyradiomics", seed=seed, workers=workers,
        cache=cache, progress=progress, note=note,
    )  # fmt: skip
    table.write(folder)
    if table.failed:
        note(f"{len(table.failed)} of {len(table)} rows of features_wide.csv have no features")
    if "source" not in sides:
        return
    try:
        evaluation = evaluate_groups(table, "scanner", progress=progress)
    except EvaluationError as error:
        note(f"scanners are not compared: {error}")
        return
    evaluation.write(folder)
