"""Both domains of a training: compared before anything is read, then stored beside the model."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cvsct.core.errors import TrainingError, explain
from cvsct.core.locks import file_lock
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.volume import ScanFacts, Scans, facts_of
from cvsct.training.data.census import SIDES as NAMES
from cvsct.training.data.census import few_slices, median_over_slices, thickness_apart
from cvsct.training.data.patch_grid import PatchRule
from cvsct.training.data.store import Store, bytes_needed, is_current, open_store

CACHE = "cache"
"""Folder of the stores in a training's output folder."""

MAX_PIXEL_RATIO = 1.05
NOTED_PIXEL_RATIO = 1.005
MIN_SLICES = 2
FEW_BATCHES = 4
"""Number of batches below which the patches of a domain are noted as few."""


def open_domains(
    source: Scans,
    target: Scans,
    out: Path,
    rule: PatchRule,
    batch: int,
    resample_mm: float | None = None,
    progress: Progress = silent,
    note: Note = log_note,
) -> tuple[Store, Store]:
    """Store both domains in `out`, or open the stores that are there.

    Processes that open the same folder wait for the first, which writes. What is refused leaves
    nothing behind; `close_domains` removes the stores when the training has finished.

    Args:
        batch: patches of a batch; a domain with few more of them is noted.
        resample_mm: pixel size to which both domains are brought.

    Raises:
        TrainingError: if the domains' pixels differ, a domain shows too little, or the disk is
            too small.
        CvsctError: if a scan cannot be read.
    """
    facts = [facts_of(scans) for scans in (source, target)]
    for name, known in zip(NAMES, facts, strict=True):
        _check_slices(name, known, note)
    _check_pixels(facts, resample_mm, note)
    apart = thickness_apart(*facts)
    if apart:
        note(apart)
    cache = out / CACHE
    out.mkdir(parents=True, exist_ok=True)
    cache.mkdir(mode=0o700, exist_ok=True)  # it holds patients' images
    try:
        with _locked(cache):
            _check_disk(cache, facts, rule, resample_mm)
            a, b = (
                open_store(cache / name, scans, rule, resample_mm, progress, name)
                for name, scans in zip(NAMES, (source, target), strict=True)
            )
    except OSError as error:
        close_domains(out)
        raise TrainingError(f"cannot store the scans in {cache}: {explain(error)}") from error
    except Exception:
        close_domains(out)
        raise
    for name, store in zip(NAMES, (a, b), strict=True):
        places = int(store.counts.sum())
        if places < FEW_BATCHES * batch:
            note(
                f"the {name} has only {places} places for patches of {rule}; the batches of "
                f"{batch} will be much alike"
            )
    return a, b


def close_domains(out: Path) -> None:
    """Remove the stores, and the folder too where nothing else is in it."""
    shutil.rmtree(out / CACHE, ignore_errors=True)
    with contextlib.suppress(OSError):
        out.rmdir()


def _check_slices(name: str, facts: Sequence[ScanFacts], note: Note) -> None:
    slices = sum(scan.shape[0] for scan in facts)
    if slices < MIN_SLICES:
        raise TrainingError(
            f"the {name} holds {slices} slice{'s' * (slices != 1)}, of {MIN_SLICES} needed: the "
            "networks would learn that slice, not the scanner; give more scans"
        )
    few = few_slices(name, facts)
    if few:
        note(few)


def _check_pixels(
    facts: Sequence[Sequence[ScanFacts]], resample_mm: float | None, note: Note
) -> None:
    if resample_mm is not None:
        note(
            f"both domains are resampled to pixels of {resample_mm:g} mm, which changes their "
            "texture; the model is for scans of that pixel spacing"
        )
        return
    a, b = (
        median_over_slices([float(np.sqrt(np.prod(x.pixel_mm))) for x in side], side)
        for side in facts
    )
    ratio = max(a, b) / min(a, b)
    differ = f"pixel spacing differs: source {a:.4g} mm, target {b:.4g} mm (medians), "
    if ratio > MAX_PIXEL_RATIO:
        raise TrainingError(
            f"{differ}{ratio - 1:.0%} of {MAX_PIXEL_RATIO - 1:.0%} allowed: the networks would "
            "learn the pixel grid; give scans of one spacing, or resample both, for example with "
            f"--set resample_mm={max(a, b):.2g}"
        )
    if ratio > NOTED_PIXEL_RATIO:
        note(f"{differ}{ratio - 1:.1%}; the networks see pixels, not mm")


def _check_disk(
    cache: Path,
    facts: Sequence[Sequence[ScanFacts]],
    rule: PatchRule,
    resample_mm: float | None,
) -> None:
    needed = sum(
        bytes_needed(known, resample_mm)
        for name, known in zip(NAMES, facts, strict=True)
        if not is_current(cache / name, known, rule, resample_mm)
    )
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise TrainingError(
            f"{cache}: the voxels of the scans need {needed / 1e9:.2f} GB here, {free / 1e9:.2f} "
            "GB are free; free some space, or give an --out on a larger disk"
        )


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Hold the lock of a folder; it is released when the process that holds it ends."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # some network disks know no locks
            stack.enter_context(file_lock(cache / ".lock", wait=True))
        yield
