"""A simulated study of five hospitals, brought to one reference by two commands.

    python notebook/scripts/multicentre_study.py simulate --work WORK [--patients 60] [--seed 1]
    python notebook/scripts/multicentre_study.py simulate --work WORK --everybody centre
    python notebook/scripts/multicentre_study.py lay-out --work WORK
    cvsct study plan WORK/study/scans --masks WORK/study/masks --table WORK/study/scanners.csv
           --patients WORK/scans/study/outcomes.csv --out WORK/out
    cvsct study run WORK/out && cvsct study report WORK/out --outcome outcome
    python notebook/scripts/multicentre_study.py truth --work WORK
    python notebook/scripts/multicentre_study.py thickness --work WORK
    python notebook/scripts/multicentre_study.py masks --work WORK
    python notebook/scripts/multicentre_study.py many --work WORK --series 250

`simulate` makes the study of `docs/reference/virtual-scanners.md` with any number of patients in
WORK/scans; with `--everybody` all of its patients on the usual protocol of one hospital, in
WORK/everybody, which shows what features are worth when no scanner confounds them. `lay-out` links
it as hospitals would send it: DICOM with SEG or RTSTRUCT, and one hospital as NIfTI with masks and
a table of its scanners. `truth` compares the outcome's area under the ROC curve in the study with
that of everybody on one scanner. `thickness` scans one body in slices of 1 and of 5 mm and compares
the average of the thin ones with the thick ones. `masks` compares masks carried to thicker slices
with the lesions' own surfaces there. `many` makes small series of two scanners, and plans and runs
a study of them, with time and memory of each step.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom import dcmread
from pydicom.uid import generate_uid
from scipy import ndimage

import cvsct
from cvsct.core.mask_average import HALF, mask_fraction
from cvsct.core.thick_slices import plan_average
from cvsct.evaluation.cohort_table import read_table
from cvsct.evaluation.groups.pooled_outcome import pooled_outcome
from cvsct.evaluation.report.write import write_report
from cvsct.io.dicom.simulated import write_simulated
from cvsct.io.resample import resample_volume
from cvsct.simulation.benchmark import ImageSize, SimulationOptions, Subject
from cvsct.simulation.pairs import Technique
from cvsct.simulation.phantom.lesion import Lesion
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
AS_NIFTI = "south"
"""Hospital that sends NIfTI."""

FEW_FEATURES = "imageType:\n  Original: {}\nfeatureClass:\n  firstorder: [Mean, Entropy]\n"


def simulate(work: Path, patients: int, seed: int, everybody: str, workers: int) -> None:
    """Simulate the study, or all of its patients at one hospital."""
    drawn = draw_patients(patients, seed)
    out = work / "scans"
    if everybody:
        drawn, out = at_one_hospital(drawn, everybody), work / "everybody"
    size = StudySize(patients, LENGTH_MM)
    scans = study_scans(drawn, size, seed, SimulationOptions(), ImageSize())
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


def lay_out(work: Path) -> None:
    """Lay the study out as hospitals would send it, in WORK/study."""
    source, out = work / "scans" / "study", work / "study"
    shutil.rmtree(out, ignore_errors=True)
    (out / "scans").mkdir(parents=True)
    (out / "masks").symlink_to((source / "masks").absolute())
    rows = []
    for hospital in HOSPITALS:
        if hospital.name != AS_NIFTI:
            (out / "scans" / hospital.name).symlink_to((source / hospital.name).absolute())
            continue
        (out / "scans" / hospital.name).mkdir()
        for folder in sorted((source / hospital.name).iterdir()):
            (series,) = cvsct.find_series(folder)
            path = out / "scans" / hospital.name / f"{folder.name}.nii.gz"
            _write_nifti(cvsct.read_series(series), path)
            header = dcmread(series.files[0], stop_before_pixels=True)
            kernel = header.ConvolutionKernel
            rows.append({
                "path": f"{hospital.name}/{path.name}", "patient": header.PatientID,
                "site": header.InstitutionName, "manufacturer": header.Manufacturer,
                "model": header.ManufacturerModelName,
                "kernel": kernel if isinstance(kernel, str) else " ".join(kernel),
                "kvp": header.KVP, "thickness_mm": header.SliceThickness, "contrast": "no",
            })  # fmt: skip
    with (out / "scanners.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"{out}: {len(rows)} series of {AS_NIFTI} as NIfTI")


def _write_nifti(volume: cvsct.CTVolume, path: Path) -> None:
    """Write a scan as other programs do."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine[:, [2, 1, 0, 3]]
    image = nib.Nifti1Image(np.rint(volume.hu.T).astype(np.int16), affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)


def truth(work: Path) -> None:
    """Areas under the ROC curve of the outcome, in the study and with everybody on one scanner."""
    outcomes = read_table(work / "scans" / "study" / "outcomes.csv")
    rows = []
    table = read_table(work / "out" / "features_wide.csv")
    whole = pooled_outcome(table, "outcome", region="lesion", patients=outcomes)
    rows += [("study", area) for area in whole.stages]
    everybody = work / "everybody" / "study"
    if everybody.is_dir():
        alone = cvsct.extract_features(
            everybody / "centre", everybody / "masks", out=work / "everybody_features"
        )
        one = pooled_outcome(alone, "outcome", region="lesion", group="scanner", patients=outcomes)
        rows += [("one scanner", area) for area in one.stages]
    print("| scans | stage | area | 95 % |\n|---|---|---|---|")
    for name, area in rows:
        print(f"| {name} | {area.stage} | {area.auc:.2f} | {area.low:.2f} to {area.high:.2f} |")


def thickness(work: Path, workers: int) -> None:
    """Slices of 1 mm averaged to 5 mm beside slices of 5 mm of the same body."""
    folder = work / "thickness"
    thin = Technique("thin", "siemens-definition-as", "Br44", thickness_mm=1.0, mas=150.0)
    thick = replace(thin, name="thick", thickness_mm=5.0)
    body = Subject("patient", 99001)
    scans = [
        technique.scan(part, number, body, slices, technique.thickness_mm, 7, SimulationOptions(),
                       ImageSize())
        for number, (part, technique, slices) in enumerate(
            (("pairs/thickness/test", thin, 40), ("pairs/thickness/test", thick, 8),
             ("pairs/thickness/repeat", thick, 8))
        )
    ]  # fmt: skip
    run_simulation(scans, {"study": "thickness"}, folder, write_simulated, workers, note=print)
    test = folder / "pairs" / "thickness" / "test"
    (source,), (target,) = cvsct.find_series(test / "thin"), cvsct.find_series(test / "thick")
    shutil.rmtree(folder / "averaged", ignore_errors=True)
    cvsct.resample_series(source, folder / "averaged", 5.0)
    _every_fifth(source.files, target.files, folder / "thinned")
    print("| against 5 mm | PSNR dB | CCC within | across | HU |\n|---|---|---|---|---|")
    compared = {
        "1 mm at the same places": folder / "thinned",
        "1 mm averaged": folder / "averaged",
        "5 mm again": folder / "pairs" / "thickness" / "repeat" / "thick",
    }
    for name, images in compared.items():
        shutil.rmtree(folder / "report", ignore_errors=True)
        (folder / "report").mkdir()
        write_report(cvsct.evaluate(images, test / "thick"), folder / "report")
        figures = json.loads((folder / "report" / "metrics.json").read_text(encoding="utf-8"))
        print(f"| {name} | {figures['psnr_db']:.1f} | {_mean(figures['ccc_within']):.2f} | "
              f"{_mean(figures['ccc_across']):.2f} | {figures['hu_bias']:.1f} |")  # fmt: skip


def _mean(by_class: dict[str, object]) -> float:
    values = [value if isinstance(value, float) else value["mean"]  # type: ignore[index]
              for value in by_class.values() if value is not None]  # fmt: skip
    return float(np.mean(values))


def _every_fifth(files: Sequence[Path], targets: Sequence[Path], out: Path) -> None:
    """Thin slices at the places of the thick ones, as a series of its own."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    headers = {path: dcmread(path, stop_before_pixels=True) for path in files}
    uid = generate_uid(entropy_srcs=["thinned"])
    for target in targets:
        z_mm = float(dcmread(target, stop_before_pixels=True).ImagePositionPatient[2])
        nearest = min(files, key=lambda p: abs(float(headers[p].ImagePositionPatient[2]) - z_mm))
        ds = dcmread(nearest)
        ds.SeriesInstanceUID = uid
        ds.save_as(out / nearest.name)


def masks(work: Path) -> None:
    """Masks of lesions averaged to slices of 5 mm beside the lesions' surfaces on these slices."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    with (work / "scans" / "study" / "patients.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if float(row["thickness_mm"]) < 5]
    for row in rows:
        volume = cvsct.read_series(work / "scans" / row["folder"])
        name = row["patient"].removeprefix("cvsct-")
        about = json.loads((work / "scans" / "bodies" / f"{name}.json").read_text("utf-8"))
        lesion, geometry = Lesion.from_record(about["lesion"]), volume.geometry
        columns, lines = (
            geometry.positions_mm[0, axis] + geometry.pixel_mm[1 - axis] * np.arange(count)
            for axis, count in ((0, volume.shape[2]), (1, volume.shape[1]))
        )
        thin = lesion.mask(columns, lines, geometry.z_mm)
        thick, average = resample_volume(volume, 5.0, 5.0), plan_average(geometry, 5.0, 5.0)
        made = np.stack([mask_fraction(thin, average, i) > HALF for i in range(len(average))])
        true = lesion.mask(columns, lines, thick.geometry.z_mm)
        overlap = 2 * (made & true).sum() / (made.sum() + true.sum())
        found.setdefault(row["thickness_mm"], []).append(
            (made.sum() / true.sum(), overlap, thick.hu[made].mean() - thick.hu[true].mean())
        )
    print("| mm | lesions | volume | overlap (Dice) | mean HU |\n|---|---|---|---|---|")
    for thickness_mm, figures in sorted(found.items()):
        (volume_mean, overlap, hu), (_, _, spread) = np.mean(figures, 0), np.std(figures, 0)
        print(f"| {thickness_mm} | {len(figures)} | {volume_mean:.3f} | {overlap:.3f} | "
              f"{hu:+.1f} (SD {spread:.1f}) |")  # fmt: skip


def many(work: Path, count: int) -> None:
    """Plan and run a study of many small series, with time and memory of each step.

    The study of an earlier call goes on.
    """
    scans, out = work / f"many-{count}", work / f"many-{count}-out"
    if not scans.exists():
        _write_many(work / "scans" / "study" / "north", scans, count)
    settings = work / "few.yaml"
    settings.write_text(FEW_FEATURES, encoding="utf-8")
    before = 0.0
    for name, code in (
        ("plan", f"cvsct.plan_study({str(scans)!r}, {str(out)!r}, rules={{'features': "
                 f"{{'settings': {str(settings)!r}, 'rois': 1}}}}, workers=1)"),
        ("run", f"cvsct.run_study({str(out)!r}, workers=1)"),
        ("run again", f"cvsct.run_study({str(out)!r}, workers=1)"),
    ):  # fmt: skip
        program = f"import cvsct\nif __name__ == '__main__':\n    {code}\n"
        path = work / "step.py"
        path.write_text(program, encoding="utf-8")
        start = time.perf_counter()
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s, before = used.ru_utime + used.ru_stime - before, used.ru_utime + used.ru_stime
        print(f"| {count} | {name} | {seconds:.0f} s | {cpu_s:.0f} s of processor time | "
              f"{used.ru_maxrss / 1024:.0f} MB (largest so far) |", flush=True)  # fmt: skip
        if done.returncode:
            print(done.stderr[-2000:])
            return


def _write_many(source: Path, out: Path, count: int) -> None:
    """Small series of two scanners: crops of one series with noise of their own."""
    (series, *_) = cvsct.find_series(sorted(source.iterdir())[0])
    slices = [dcmread(path) for path in series.files[:6]]
    for i in range(count):
        rng = np.random.default_rng(i)
        folder = out / f"site-{i % 2}" / f"{i:05d}"
        folder.mkdir(parents=True)
        uid = generate_uid(entropy_srcs=[f"series {i}"])
        for k, first in enumerate(slices):
            ds = copy.deepcopy(first)
            stored = ds.pixel_array[128:384, 128:384]
            pixels = stored.astype(np.float64)
            pixels += rng.normal(0, 8, pixels.shape)
            if i % 2:
                pixels = ndimage.gaussian_filter(pixels, 1.0)
                ds.ConvolutionKernel = "Br40"
            ds.Rows = ds.Columns = 256
            ds.PixelData = np.rint(pixels).astype(stored.dtype).tobytes()
            ds.PatientID, ds.SeriesInstanceUID = f"many-{i:05d}", uid
            ds.StudyInstanceUID = generate_uid(entropy_srcs=[f"study {i}"])
            ds.FrameOfReferenceUID = generate_uid(entropy_srcs=[f"frame {i}"])
            ds.SOPInstanceUID = generate_uid(entropy_srcs=[f"image {i} {k}"])
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            ds.ManufacturerModelName = f"Scanner {i % 2}"
            ds.save_as(folder / f"{k:03d}.dcm")


STEPS = {
    "simulate": lambda given: simulate(
        given.work, given.patients, given.seed, given.everybody, given.workers
    ),
    "lay-out": lambda given: lay_out(given.work),
    "truth": lambda given: truth(given.work),
    "thickness": lambda given: thickness(given.work, given.workers),
    "masks": lambda given: masks(given.work),
    "many": lambda given: many(given.work, given.series),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=sorted(STEPS))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--series", type=int, default=250)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--everybody", default="", choices=["", *(h.name for h in HOSPITALS)])
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    STEPS[given.command](given)


if __name__ == "__main__":
    main()
