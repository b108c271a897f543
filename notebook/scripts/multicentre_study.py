"""A simulated study of five hospitals, harmonized to one reference by two commands.

    python notebook/scripts/multicentre_study.py simulate --work WORK [--patients 60] [--seed 1]
    python notebook/scripts/multicentre_study.py simulate --work WORK --everybody centre

`simulate` makes the study of `docs/virtual_scanner.md` with any number of patients in WORK/scans;
with `--everybody` all of its patients on the usual protocol of one hospital, in WORK/everybody,
which shows what features are worth when no scanner confounds them. Both go on where they were
interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cvsct.io.dicom.simulated import write_simulated
from cvsct.simulation.benchmark import ImageSize, SimulationOptions
from cvsct.simulation.run import run_simulation
from cvsct.simulation.study import (
    HOSPITALS,
    StudyPatient,
    StudySize,
    Visit,
    draw_patients,
    study_scans,
)
from cvsct.simulation.study_files import write_study_files

LENGTH_MM = 40.0


def simulate(work: Path, patients: int, seed: int, everybody: str, workers: int) -> None:
    """Simulate the study, or all of its patients at one hospital."""
    drawn = draw_patients(patients, seed)
    out = work / "scans"
    if everybody:
        drawn, out = at_one_hospital(drawn, everybody), work / "everybody"
    scans = study_scans(
        drawn, StudySize(patients, LENGTH_MM), seed, SimulationOptions(), ImageSize()
    )
    config = {"patients": patients, "seed": seed, "everybody": everybody}
    finish = partial(write_study_files, patients=drawn)
    work.mkdir(parents=True, exist_ok=True)
    result = run_simulation(scans, config, out, write_simulated, workers, note=print, finish=finish)
    print(result)


def at_one_hospital(patients: Sequence[StudyPatient], name: str) -> tuple[StudyPatient, ...]:
    """The patients, each scanned once, by the usual protocol of one hospital."""
    (hospital,) = (hospital for hospital in HOSPITALS if hospital.name == name)
    visit = Visit(hospital, hospital.protocols[0])
    return tuple(replace(patient, visits=(visit,)) for patient in patients)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["simulate"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--everybody", default="", choices=["", *(h.name for h in HOSPITALS)])
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    simulate(given.work, given.patients, given.seed, given.everybody, given.workers)


if __name__ == "__main__":
    main()
