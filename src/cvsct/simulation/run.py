"""A benchmark carried out: resumable after any crash, in parallel, with the same bytes.

`plan.json` is written first and must be the same for a rerun to go on. Slices gather in a hidden
folder for each series, which gets its name when it is complete. At the end come `nodules.csv`, the
ground truth, and `manifest.json`.
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
from cvsct.core.progress import Progress, silent
from cvsct.core.resumable import locked_output
from cvsct.core.volume import SimulatedStudy
from cvsct.core.workers import work_through
from cvsct.simulation.benchmark import Scan, Series, Subject
from cvsct.simulation.ground_truth import gather
from cvsct.simulation.render_task import (
    REAL,
    Imaging,
    Physics,
    Piece,
    SeriesWriter,
    hidden,
    profile_of,
)

logger = logging.getLogger(__name__)

MAX_PIECE_IMAGES = 50
PIECES_A_WORKER = 8
"""Small enough that the workers end at about the same time."""
SPARE_BYTES = 64 * 2**20
"""Left free on the disk, for the file system and the manifest."""


@dataclass(frozen=True)
class Outcome:
    """What a campaign has made.

    Args:
        n_images: all there are now; `n_new` of them made by this run.
        failed: what went wrong, by scan; empty where the benchmark is complete.
    """

    n_images: int
    n_series: int
    n_bodies: int
    n_new: int
    images_per_s: float
    failed: dict[str, str] = field(default_factory=dict)


def run_campaign(
    scans: Sequence[Scan],
    config: Mapping[str, Any],
    out: Path,
    write: SeriesWriter,
    workers: int = 0,
    progress: Progress = silent,
    announce: Callable[[str], None] = logger.info,
    physics: Physics = REAL,
) -> Outcome:
    """Make every image of a plan that is not there yet.

    Args:
        scans: what `benchmark.plan` gave.
        config: the choices behind that plan, as the user made them (scale, seed and so on); a
            rerun with others is refused by these names.
        write: writes a slice as DICOM; picklable.
        workers: processes, 0 for one a core.
        announce: told the number of images and the need of disk before the work begins.

    Raises:
        UsageError: if `out` holds another benchmark, or something else.
        SimulationError: if the disk has too little space or every scan failed.
        StoppedError: on Ctrl-C; what is made is kept.
    """
    record = _record(scans, config)
    manifest = Manifest("simulate", record)
    with locked_output(out, record, "simulation"):
        missing = {scan: _missing(scan, out) for scan in scans}
        _announce_need(missing, out, announce)
        with manifest.timed("simulating"):
            n_new, failed = _make(missing, Imaging(out, write, physics), workers, progress)
        made = [scan for scan in scans if str(scan) not in failed]
        if not made:
            scan, why = next(iter(failed.items()))
            raise SimulationError(f"{scan}: {why} (and {len(failed) - 1} more scans failed)")
        with manifest.timed("checking"):
            sums = _sums(made, out, progress)
        seconds = manifest.timings_s["simulating"]
        outcome = Outcome(
            n_images=sum(scan.n_images for scan in made),
            n_series=len(sums),
            n_bodies=len({scan.body for scan in made}),
            n_new=n_new,
            images_per_s=round(n_new / seconds, 2) if n_new else 0.0,
            failed=failed,
        )
        bodies = gather(out, dict.fromkeys(scan.body for scan in scans))
        manifest.figures = {**asdict(outcome), "series_sha256": sums, "bodies": bodies}
        manifest.write(out)
    return outcome


def planned(scans: Sequence[Scan]) -> Outcome:
    """What `run_campaign` would make of a plan."""
    return Outcome(
        n_images=sum(scan.n_images for scan in scans),
        n_series=sum(len(scan.series()) for scan in scans),
        n_bodies=len({scan.body for scan in scans}),
        n_new=0,
        images_per_s=0.0,
    )


def _record(scans: Sequence[Scan], config: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that shapes the bytes, as plain JSON."""
    profiles = {scan.scanner: profile_of(scan.scanner) for scan in scans}
    record = {
        "cvsct": __version__,
        **config,
        "scanners": {name: each.record() for name, each in profiles.items()},
        "scans": [scan.record() for scan in scans],
    }
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def _missing(scan: Scan, out: Path) -> tuple[int, ...]:
    """Indices of the slices that lack a file.

    Raises:
        SimulationError: if a finished series has lost files.
    """
    missing: set[int] = set()
    for series in scan.series():
        folder = out / series.folder
        finished = folder.exists()
        there = folder if finished else hidden(out, series)
        lost = {i for i in range(scan.slices) if not _file(there, i).exists()}
        if finished and lost:
            raise SimulationError(
                f"{folder}: {len(lost)} of {scan.slices} slices are missing though the series was "
                "complete; remove this folder to have it made again"
            )
        missing |= lost
    return tuple(sorted(missing))


def _file(folder: Path, i: int) -> Path:
    return folder / SimulatedStudy.file_name(i + 1)


def _announce_need(
    missing: Mapping[Scan, tuple[int, ...]], out: Path, announce: Callable[[str], None]
) -> None:
    """Tell what is to be done, and refuse what the disk cannot hold."""
    total = sum(scan.n_images for scan in missing)
    images = sum(scan.n_images * len(todo) // scan.slices for scan, todo in missing.items())
    need = sum(scan.n_bytes * len(todo) // scan.slices for scan, todo in missing.items())
    free = shutil.disk_usage(out).free
    space = f"needs {_size(need)}, {_size(free)} free"
    if need + SPARE_BYTES > free:
        raise SimulationError(
            f"{out}: {images} images, {space}; free some space, or name a folder elsewhere"
        )
    there = f", {total - images} of them there already" if images < total else ""
    announce(f"{total} images{there}: {space}")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _make(
    missing: Mapping[Scan, tuple[int, ...]], imaging: Imaging, workers: int, progress: Progress
) -> tuple[int, dict[str, str]]:
    """Make what is missing; gives the images made and what went wrong, by scan."""
    workers = workers or cores()
    pieces = _pieces(missing, workers)
    open_pieces = Counter(piece.scan for piece in pieces)
    for scan in missing:
        if not open_pieces[scan]:
            _publish(scan, imaging.out)  # an earlier run may have been killed just before
    done = before = sum(s.n_images * (s.slices - len(m)) // s.slices for s, m in missing.items())
    total = sum(scan.n_images for scan in missing)
    failed: dict[str, str] = {}
    progress("images", done, total)
    with contextlib.closing(work_through(pieces, imaging, workers, _body_of)) as reports:
        try:
            for report in reports:
                scan = report.item.scan
                done += report.amount
                if report.kind == "step":
                    progress("images", done, total)
                elif report.kind == "done":
                    open_pieces[scan] -= 1
                    if not open_pieces[scan]:
                        _publish(scan, imaging.out)
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


def _pieces(missing: Mapping[Scan, tuple[int, ...]], workers: int) -> list[Piece]:
    """Scans cut into pieces; the bodies with the most left to do first, each in one go."""
    images = {scan: len(todo) * scan.n_images // scan.slices for scan, todo in missing.items()}
    of_body: Counter[Subject] = Counter()
    for scan, count in images.items():
        of_body[scan.body] += count
    even = sum(images.values()) // (workers * PIECES_A_WORKER)
    pieces = []
    for scan in missing:
        todo = missing[scan]
        step = max(1, min(MAX_PIECE_IMAGES, even) * scan.slices // scan.n_images)
        pieces += [Piece(scan, todo[i : i + step]) for i in range(0, len(todo), step)]
    return sorted(pieces, key=partial(_place_in_queue, of_body))


def _place_in_queue(of_body: Mapping[Subject, int], piece: Piece) -> tuple[Any, ...]:
    """Bodies by their work; a slice and its repeat together, so that one projection serves both."""
    scan = piece.scan
    body = (-of_body[scan.body], scan.body.seed)
    return (*body, scan.scanner, scan.thickness_mm, piece.indices[0], scan.number)


def _body_of(piece: Piece) -> Subject:
    return piece.scan.body


def _publish(scan: Scan, out: Path) -> None:
    """Give complete series their names."""
    for series in scan.series():
        partial, folder = hidden(out, series), out / series.folder
        if not partial.exists():
            continue
        expected = {_file(partial, i) for i in range(scan.slices)}
        for stray in set(partial.iterdir()) - expected:  # of a process killed while it wrote
            stray.unlink()
        rename(partial, folder)
        sync_folder(folder.parent)


def _sums(scans: Sequence[Scan], out: Path, progress: Progress) -> dict[str, str]:
    """sha256 of every series: of its files' bytes, in the order of their slices."""
    found: dict[str, str] = {}
    todo: list[tuple[Scan, Series]] = [(scan, each) for scan in scans for each in scan.series()]
    for scan, series in todo:
        digest = hashlib.sha256()
        for i in range(scan.slices):
            digest.update(_file(out / series.folder, i).read_bytes())
        found[series.folder] = digest.hexdigest()
        progress("checking", len(found), len(todo))
    return found
