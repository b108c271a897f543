"""Simulation of CT scans of virtual bodies on virtual scanners."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cvsct.core.errors import need_extra
from cvsct.core.files import refuse_unwritable
from cvsct.core.kinds import refuse_no_path, texts
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.settings import refuse_outside
from cvsct.io.dicom.simulated import write_simulated
from cvsct.simulation.benchmark import PARTS, STUDY, ScanMode, SimulationOptions
from cvsct.simulation.plan import plan, plan_patients
from cvsct.simulation.run import SimulationResult, expected_result, run_simulation
from cvsct.simulation.study_files import write_study_files


def simulate(
    out: Path | str,
    *,
    scale: str = "demo",
    parts: Sequence[str] = (),
    seed: int = 0,
    workers: int = 0,
    mas: float = 100,
    match_dose: bool = False,
    shift_px: float = 0,
    parenchyma: bool = False,
    emphysema: float = 0.0,
    fov_mm: float = 350,
    reconstructions: Sequence[str] = ("fbp",),
    table: bool = False,
    arms: str = "up",
    tube_current: bool = False,
    helical: bool = False,
    dry_run: bool = False,
    progress: Progress = silent,
    note: Note = log_note,
) -> SimulationResult:
    """Simulate CT scans of virtual bodies on virtual scanners, as DICOM.

    `docs/reference/virtual-scanners.md` describes physics and bodies. The same call continues a
    simulation that was interrupted.

    Args:
        out: folder to write.
        scale: number and size of the scans: `tiny`, `demo` or `paper`.
        parts: parts to simulate: `train`, `test`, `repeat`, `kernels`, `paired`, `pairs` or one of
            them (`pairs/dose`), `study`; empty for the default, which is the first four.
        seed: seed of bodies and noise.
        workers: number of processes; 0 for one per core.
        mas: tube current-time product of one rotation, in mAs, 1 to 1000.
        match_dose: give both scanners the same CTDIvol instead of the same mAs.
        shift_px: misregistration of the test pair, in pixels, -10 to 10.
        parenchyma: fill the lungs with tissue instead of air.
        emphysema: share of the lung that emphysema has destroyed in the patients of `pairs`, at
            about -980 HU, to .6; 0 for what their seeds give.
        fov_mm: reconstructed field of view, in mm, 100 to 350.
        reconstructions: reconstructions of each acquisition: `fbp`, `iterative-1` to `iterative-5`,
            `denoised-1` to `denoised-3`; all but `fbp` add their names to the folders of their
            series.
        table: lay the bodies on a table.
        arms: position of the arms: `up` is out of the scan, `side` along the body.
        tube_current: let the tube current follow the attenuation; needs a scanner whose definition
            has a section `tube_current`.
        helical: simulate a helical scan; needs a definition with a section `helical`.
        dry_run: count the scans and images without making them.
        progress: called with `(task, done, total)` as the work proceeds.
        note: called with each remark that the user should read.

    Returns:
        A `SimulationResult`: numbers of images (`n_images`; `n_new` of them from this call),
        `n_series` and `n_bodies`, and `failed`, the reason of each scan that failed.

    Raises:
        UsageError: if a scale, a part or a position of the arms does not exist, a scanner lacks
            what is asked for, a number lies outside its range, or `out` holds something else or
            cannot be written.
        MissingExtraError: if the extra `simulate` is not installed.
        SimulationError: if the simulation cannot start.

    Example:
        >>> result = cvsct.simulate(out, scale="tiny", parts=["test"], workers=1)
        >>> result.n_images > 0, result.failed
        (True, {})
    """
    refuse_no_path(out=out)
    refuse_outside(0, seed=seed, workers=workers)
    refuse_outside(1, 1000, mas=mas)
    refuse_outside(-10, 10, shift_px=shift_px)
    refuse_outside(0, 0.6, emphysema=emphysema)
    refuse_outside(100, 350, fov_mm=fov_mm)
    options = SimulationOptions(
        float(mas), match_dose, float(shift_px), parenchyma, float(fov_mm), texts(reconstructions),
        ScanMode(table, arms, tube_current, helical), float(emphysema),
    )  # fmt: skip
    named_parts = texts(parts)
    need_extra("simulate", "simulate")
    refuse_unwritable(Path(out), grows=True)
    scans = plan(scale, seed, options, named_parts or PARTS)
    finish = None
    if any(scan.part == STUDY for scan in scans):
        need_extra("evaluate", "the masks of a simulated study")
        finish = partial(write_study_files, patients=plan_patients(scale, seed))
    if dry_run:
        return expected_result(scans)
    return run_simulation(
        scans,
        {"scale": scale, "seed": seed, "parts": ",".join(named_parts) or "all", **options.record()},
        Path(out),
        write_simulated,
        workers,
        progress,
        note=note,
        finish=finish,
    )
