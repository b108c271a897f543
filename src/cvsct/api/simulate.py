"""Virtual bodies scanned on two virtual scanners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cvsct.core.errors import need_extra
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.io.dicom.simulated import write_simulated
from cvsct.simulation.benchmark import PARTS, Options
from cvsct.simulation.plan import plan
from cvsct.simulation.render_task import load_simulator
from cvsct.simulation.run import Outcome, planned, run_campaign


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
    fov_mm: float = 350,
    dry_run: bool = False,
    reconstructions: Sequence[str] = ("fbp",),
    progress: Progress = silent,
    note: Note = log_note,
) -> Outcome:
    """Scan virtual bodies on two virtual scanners: a benchmark of CT as DICOM.

    The same call goes on where a killed one ended.

    Args:
        out: the folder to write; one begun before goes on.
        scale: `tiny`, `demo` or `paper`.
        parts: which of `train`, `test`, `repeat`, `kernels/...`, `paired`; empty for the default.
        seed: other bodies, other noise.
        workers: processes; 0 is one a core.
        mas: tube load of a rotation.
        match_dose: equal CTDIvol on both scanners instead of equal mAs.
        shift_px: misregistration of the test pair, in pixels.
        parenchyma: lung tissue in the phantom, not air alone.
        fov_mm: field of view.
        dry_run: count what would be made; write nothing.
        reconstructions: of each acquisition: `fbp`, `iterative-1` to `iterative-5`, `denoised-1` to
            `denoised-3`; each but the first adds its name to its series' folders.

    Raises:
        UsageError: for a scale or part that does not exist, or an `out` that holds something else.
        SimulationError: if it cannot start; single scans that fail are in the outcome.

    Example:
        >>> outcome = cvsct.simulate(out, scale="tiny", parts=["test"], workers=1)
        >>> outcome.n_images > 0, outcome.failed
        (True, {})
    """
    options = Options(
        float(mas), match_dose, float(shift_px), parenchyma, float(fov_mm), tuple(reconstructions)
    )
    chosen = tuple(parts)
    need_extra("simulate", "simulate")
    scans = plan(scale, seed, options, chosen or PARTS)
    load_simulator()
    if dry_run:
        return planned(scans)
    return run_campaign(
        scans,
        {"scale": scale, "seed": seed, "parts": ",".join(chosen) or "all", **asdict(options)},
        Path(out),
        write_simulated,
        workers,
        progress,
        announce=note,
    )
