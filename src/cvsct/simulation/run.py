"""Run of a simulation plan: parallel, resumable after any crash, with reproducible bytes.

The run first writes `plan.json`; a rerun continues only with an equal plan. The slices of a series
collect in a hidden folder, which is renamed when the series is complete. At the end the run writes
`nodules.csv`, the ground truth, and `manifest.json`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cvsct import __version__
from cvsct.core.errors import SimulationError, StoppedError
from cvsct.core.manifest import Manifest
from cvsct.core.platform import cores, rename, sync_folder
from cvsct.core.progress import Note, Progress, silent
from cvsct.core.resumable import locked_output
from cvsct.core.text import counted
from cvsct.core.volume import SimulatedStudy
from cvsct.core.workers import work_through
from cvsct.simulation.benchmark import PlannedSeries, Scan, Subject
from cvsct.simulation.ground_truth import write_nodule_table
from cvsct.simulation.render_task import (
    DEFAULT_BUILDERS,
    Builders,
    RenderTask,
    SeriesWriter,
    SliceRenderer,
    definition_record,
    partial_folder,
)

logger = logging.getLogger(__name__)

Finish = Callable[[Path, Sequence[Scan]], dict[str, str]]
"""Writes files beside complete scans; returns the SHA-256 of each by its path."""

MAX_TASK_IMAGES = 50
"""Largest number of images of a render task."""
TASKS_PER_WORKER = 8
"""Number of tasks per worker that a run is divided into, so that workers end at similar times."""
SPARE_BYTES = 64 * 2**20
"""Space that must stay free on the disk, for the file system and the manifest."""


@dataclass(frozen=True)
class SimulationResult:
    """Result of a simulation run: numbers of images, series and bodies, and scans that failed.

    Args:
        n_images: number of images of all complete scans in the folder.
        n_series: number of their series.
        n_bodies: number of their bodies.
        n_new: number of images that this run has added.
        images_per_s: rate of this run; 0 if it has added nothing.
        failed: reason of each failure, by scan; empty if the benchmark is complete.
    """

    n_images: int
    n_series: int
    n_bodies: int
    n_new: int
    images_per_s: float
    failed: dict[str, str] = field(default_factory=dict)


def run_simulation(
    scans: Sequence[Scan],
    config: Mapping[str, Any],
    out: Path,
    write: SeriesWriter,
    workers: int = 0,
    progress: Progress = silent,
    note: Note = logger.info,
    builders: Builders = DEFAULT_BUILDERS,
    finish: Finish | None = None,
) -> SimulationResult:
    """Simulate every image of a plan that the folder does not hold yet.

    Args:
        scans: scans of the plan, from `plan.plan`.
        config: options that the plan was made from (scale, seed and so on), by the names that a
            refusal of a different plan mentions.
        out: folder of the benchmark.
        write: function that writes a slice as DICOM; it must be picklable.
        workers: number of processes; 0 for one per core.
        progress: called with `(task, done, total)` as the work proceeds.
        note: called with the number of images and the disk space needed before the work begins.
        builders: functions that build phantoms and scanners.
        finish: writes the files that belong to the complete scans, such as the masks of a study.

    Returns:
        Numbers of images, series and bodies, and the scans that failed.

    Raises:
        UsageError: if `out` holds another benchmark or something else.
        SimulationError: if the disk has too little space, a complete series has lost files, or
            every scan failed.
        StoppedError: on Ctrl-C; images written so far are kept.
    """
    record = _record(scans, config)
    manifest = Manifest("simulate", record)
    with locked_output(out, record, "simulation"):
        missing = {scan: _missing(scan, out) for scan in scans}
        _check_disk_space(missing, out, note)
        with manifest.timed("simulating"):
            renderer = SliceRenderer(out, write, builders)
            n_new, failed = _render(missing, renderer, workers, progress)
        complete = [scan for scan in scans if str(scan) not in failed]
        if not complete:
            scan, reason = next(iter(failed.items()))
            raise SimulationError(f"{scan}: {reason} (and {len(failed) - 1} more scans failed)")
        with manifest.timed("checking"):
            checksums = _checksums(complete, out, progress)
        seconds = manifest.timings_s["simulating"]
        result = SimulationResult(
            n_images=sum(scan.n_images for scan in complete),
            n_series=len(checksums),
            n_bodies=len({scan.body for scan in complete}),
            n_new=n_new,
            images_per_s=round(n_new / seconds, 2) if n_new else 0.0,
            failed=failed,
        )
        bodies = write_nodule_table(out, dict.fromkeys(scan.body for scan in scans))
        manifest.figures = {**asdict(result), "series_sha256": checksums, "bodies": bodies}
        if finish is not None:
            manifest.figures["files_sha256"] = finish(out, complete)
        manifest.write(out)
    return result


def expected_result(scans: Sequence[Scan]) -> SimulationResult:
    """Result that `run_simulation` is expected to give for a plan; nothing is simulated."""
    return SimulationResult(
        n_images=sum(scan.n_images for scan in scans),
        n_series=sum(len(scan.series()) for scan in scans),
        n_bodies=len({scan.body for scan in scans}),
        n_new=0,
        images_per_s=0.0,
    )


def _record(scans: Sequence[Scan], config: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that shapes the bytes of the images, as plain JSON."""
    scanners: dict[str, dict[str, Any]] = {}
    for scan in scans:
        values = definition_record(scan, scan.reconstructions)
        scanners.setdefault(scan.scanner, {}).update(values)
    record = {
        "cvsct": __version__,
        **config,
        "scanners": scanners,
        "scans": [scan.record() for scan in scans],
    }
    plain_record: dict[str, Any] = json.loads(json.dumps(record))
    return plain_record


def _missing(scan: Scan, out: Path) -> tuple[int, ...]:
    """Indices of the slices of a scan that lack a file in any series.

    Raises:
        SimulationError: if a complete series has lost files.
    """
    missing: set[int] = set()
    for series in scan.series():
        folder = out / series.folder
        is_complete = folder.exists()
        slice_folder = folder if is_complete else partial_folder(out, series)
        absent = {i for i in range(scan.slices) if not _slice_file(slice_folder, i).exists()}
        if is_complete and absent:
            raise SimulationError(
                f"{folder}: {len(absent)} of {scan.slices} slices are missing though the series "
                "was complete; remove this folder to have it made again"
            )
        missing |= absent
    return tuple(sorted(missing))


def _slice_file(folder: Path, i: int) -> Path:
    return folder / SimulatedStudy.file_name(i + 1)


def _check_disk_space(missing: Mapping[Scan, tuple[int, ...]], out: Path, note: Note) -> None:
    """Note the number of images and the space they need, and check that the disk has it.

    Raises:
        SimulationError: if the disk has too little space.
    """
    total = sum(scan.n_images for scan in missing)
    n_new = sum(scan.n_images * len(slices) // scan.slices for scan, slices in missing.items())
    needed = sum(scan.n_bytes * len(slices) // scan.slices for scan, slices in missing.items())
    free = shutil.disk_usage(out).free
    space = f"needs {_size(needed)}, {_size(free)} free"
    if needed + SPARE_BYTES > free:
        raise SimulationError(
            f"{out}: {counted(n_new, 'image')}, {space}; free some space, or name a folder "
            "elsewhere"
        )
    existing = f", {total - n_new} of them there already" if n_new < total else ""
    note(f"{counted(total, 'image')}{existing}: {space}")


def _size(n_bytes: int) -> str:
    """Number of bytes as text with a unit."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _render(
    missing: Mapping[Scan, tuple[int, ...]],
    renderer: SliceRenderer,
    workers: int,
    progress: Progress,
) -> tuple[int, dict[str, str]]:
    """Render the missing slices.

    Returns:
        Number of images written, and the reason of each failure by scan.

    Raises:
        SimulationError: if going on is of no use.
        StoppedError: on Ctrl-C.
    """
    workers = workers or cores()
    tasks = _render_tasks(missing, workers)
    open_tasks = Counter(task.scan for task in tasks)
    for scan in missing:
        if not open_tasks[scan]:
            _publish(scan, renderer.out)  # an earlier run may have been killed just before
    done = before = sum(s.n_images * (s.slices - len(m)) // s.slices for s, m in missing.items())
    total = sum(scan.n_images for scan in missing)
    failed: dict[str, str] = {}
    progress("images", done, total)
    with contextlib.closing(work_through(tasks, renderer, workers, _body_of)) as reports:
        try:
            for report in reports:
                scan = report.item.scan
                done += report.amount
                if report.kind == "step":
                    progress("images", done, total)
                elif report.kind == "done":
                    open_tasks[scan] -= 1
                    if not open_tasks[scan]:
                        _publish(scan, renderer.out)
                else:
                    logger.info("%s failed\n%s", scan, report.details)
                    failed.setdefault(str(scan), report.message)
                    if report.kind == "fatal":
                        raise SimulationError(
                            f"{scan}: {report.message}; {done} of {total} images are kept"
                        )
        except KeyboardInterrupt:
            raise StoppedError(
                f"stopped; {done} of {total} images are kept, the same command goes on from there"
            ) from None
    return done - before, failed


def _render_tasks(missing: Mapping[Scan, tuple[int, ...]], workers: int) -> list[RenderTask]:
    """Divide the missing slices into tasks, ordered by body; bodies with most images come first."""
    images = {scan: len(slices) * scan.n_images // scan.slices for scan, slices in missing.items()}
    body_images: Counter[Subject] = Counter()
    for scan, count in images.items():
        body_images[scan.body] += count
    equal_share = sum(images.values()) // (workers * TASKS_PER_WORKER)
    tasks = []
    for scan, slices in missing.items():
        step = max(1, min(MAX_TASK_IMAGES, equal_share) * scan.slices // scan.n_images)
        tasks += [RenderTask(scan, slices[i : i + step]) for i in range(0, len(slices), step)]
    return sorted(tasks, key=partial(_queue_key, body_images))


def _queue_key(body_images: Mapping[Subject, int], task: RenderTask) -> tuple[Any, ...]:
    """Sort key of a task, which puts a slice beside its repeat, so that they share a projection."""
    scan = task.scan
    body_key = (-body_images[scan.body], scan.body.seed)
    return (*body_key, scan.scanner, scan.thickness_mm, task.indices[0], scan.number)


def _body_of(task: RenderTask) -> Subject:
    return task.scan.body


def _publish(scan: Scan, out: Path) -> None:
    """Rename the hidden folders of a scan's complete series to their final names."""
    for series in scan.series():
        hidden_folder, folder = partial_folder(out, series), out / series.folder
        if not hidden_folder.exists():
            continue
        expected = {_slice_file(hidden_folder, i) for i in range(scan.slices)}
        for stray in set(hidden_folder.iterdir()) - expected:  # of a process killed while it wrote
            stray.unlink()
        rename(hidden_folder, folder)
        sync_folder(folder.parent)


def _checksums(scans: Sequence[Scan], out: Path, progress: Progress) -> dict[str, str]:
    """SHA-256 of every series over the bytes of its files in the order of its slices, by folder."""
    checksums: dict[str, str] = {}
    pairs: list[tuple[Scan, PlannedSeries]] = [(scan, s) for scan in scans for s in scan.series()]
    for scan, series in pairs:
        digest = hashlib.sha256()
        for i in range(scan.slices):
            digest.update(_slice_file(out / series.folder, i).read_bytes())
        checksums[series.folder] = digest.hexdigest()
        progress("checking", len(checksums), len(pairs))
    return checksums
