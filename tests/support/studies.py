"""A small study on disk: three scanners with masks of three kinds, and what lies about besides."""

from __future__ import annotations

import csv
import gzip
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from scipy import ndimage

from cvsct.core.volume import CTVolume
from cvsct.io.dicom.simulated_masks import write_segmentation
from cvsct.io.dicom.write import write_derived
from cvsct.io.nifti.write import write_label_map
from cvsct.io.read import find_series, read_series
from cvsct.study.plan import StudyPlan
from cvsct.study.run import StudyResult
from tests.support.dicom_files import DERIVATION, INTERCEPT, write_series
from tests.support.nifti_files import write_converted
from tests.support.structure_sets import rings, save_structures

SIZE_PX, PIXEL_MM, TRUNK_MM = 192, 0.7, 18.0
LESION_CENTER, LESION_PX, LESION_MM = (138, 96), 12.0, (4.0, 14.0)
YAML = "setting:\n  binWidth: 25\nfeatureClass:\n  firstorder:\n  glcm:\n"
"""Parameter file of few features."""


@dataclass(frozen=True)
class Scanner:
    """A scanner of a study: what its headers say, and how it sees.

    Args:
        blur_px, noise_hu: width of its point spread, and standard deviation of its noise.
    """

    site: str
    manufacturer: str
    model: str
    kernel: str
    thickness_mm: float = 3.0
    blur_px: float = 0.5
    noise_hu: float = 30.0
    kvp: float = 120.0


SIEMENS = Scanner("Klinik Süd", "SIEMENS", "SOMATOM Force", "Br40", blur_px=0.6, noise_hu=30.0)
GE = Scanner("Centre Nord", "GE MEDICAL SYSTEMS", "Revolution CT", "STANDARD", thickness_mm=1.5,
             blur_px=0.4, noise_hu=50.0)  # fmt: skip
PHILIPS = Scanner("nifti site", "Philips", "iCT 256", "B", blur_px=0.8, noise_hu=24.0)


@cache
def trunk_hu(seed: int, blur_px: float, noise_hu: float, slices: int) -> np.ndarray:
    """A trunk with lungs, tissue and noise of its own, seen by one scanner, in whole HU.

    Args:
        seed: of the body; other scanners of one body have other noise.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SIZE_PX * 1j, -1 : 1 : SIZE_PX * 1j]
    fine = 12
    blobs = ndimage.gaussian_filter(rng.normal(0, 1, (fine, SIZE_PX, SIZE_PX)), (2, 6, 6))
    blobs = np.repeat(blobs / blobs.std(), slices // np.gcd(slices, fine), axis=0)
    blobs = blobs[:: len(blobs) // slices][:slices]
    hu = np.full((slices, SIZE_PX, SIZE_PX), -1000.0)
    width, height = rng.uniform(0.88, 0.95), rng.uniform(0.75, 0.85)
    inside = (x / width) ** 2 + (y / height) ** 2 < 1
    hu[:, inside] = 30 + rng.uniform(15, 25) * blobs[:, inside]
    for side in (-1, 1):
        hu[:, ((x - side * 0.5) / 0.2) ** 2 + ((y + 0.35) / 0.22) ** 2 < 1] = -820
    own = np.random.default_rng([seed, int(100 * blur_px), int(noise_hu)])
    noise = ndimage.gaussian_filter(own.normal(0, 1, hu.shape), (0, 0.6, 0.6))
    seen = ndimage.gaussian_filter(hu, (0, blur_px, blur_px))
    grain = ndimage.gaussian_filter(noise, (0, blur_px, blur_px))
    return np.maximum(np.rint(seen + noise_hu * grain / grain.std()), -1024)


def write_scan(
    folder: Path,
    scanner: Scanner,
    patient: str,
    number: int,
    *,
    seed: int = 0,
    series: str = "",
    trunk_mm: float = TRUNK_MM,
    change: Callable[[Dataset, int], None] | None = None,
) -> Path:
    """Write a DICOM series of a patient.

    Args:
        number: gives UIDs, and body and noise where `seed` does not.
    """
    uid = f"1.2.826.9.{number}"
    slices = round(trunk_mm / scanner.thickness_mm)
    hu = trunk_hu(seed or number, scanner.blur_px, scanner.noise_hu, slices)

    def describe(ds: Dataset, i: int) -> None:
        ds.PatientID, ds.PatientName = patient, f"{patient}^Planted"
        ds.InstitutionName = scanner.site
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.Manufacturer, ds.ManufacturerModelName = scanner.manufacturer, scanner.model
        ds.ConvolutionKernel, ds.KVP = scanner.kernel, f"{scanner.kvp:g}"
        ds.SliceThickness = scanner.thickness_mm
        ds.PixelSpacing = [PIXEL_MM, PIXEL_MM]
        ds.ImagePositionPatient = [-60, -60, (i + 0.5) * scanner.thickness_mm]
        ds.StudyInstanceUID, ds.FrameOfReferenceUID = f"{uid}.1", f"{uid}.2"
        if change is not None:
            change(ds, i)

    stored = (hu - INTERCEPT).astype("<u2")
    return write_series(folder, change=describe, stored=stored, series=series or f"{uid}.3")


def volume_in(folder: Path) -> CTVolume:
    """The only series in a folder."""
    (series,) = find_series(folder)
    return read_series(series)


def lesion(thickness_mm: float, radius_px: float = LESION_PX) -> np.ndarray:
    """A cylinder on the grid of a scanner of this slice thickness."""
    rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX]
    disk = (rows - LESION_CENTER[0]) ** 2 + (columns - LESION_CENTER[1]) ** 2 <= radius_px**2
    mask = np.zeros((round(TRUNK_MM / thickness_mm), SIZE_PX, SIZE_PX), dtype=bool)
    mask[lesion_slices(thickness_mm)] = disk
    return mask


def lesion_slices(thickness_mm: float) -> list[int]:
    """Slices whose centers lie in the lesion."""
    centers = (np.arange(round(TRUNK_MM / thickness_mm)) + 0.5) * thickness_mm
    low, high = LESION_MM
    return [int(i) for i in np.flatnonzero((centers > low) & (centers < high))]


def write_seg(path: Path, source: Path, thickness_mm: float = 3.0) -> Path:
    """The lesion as DICOM SEG; names of the series' files run against its slices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_segmentation(source, lesion(thickness_mm)[::-1], "lesion", path)
    return path


def write_rtstruct(path: Path, source: Path, number: int, thickness_mm: float) -> Path:
    """The lesion as an RT structure set."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def change(ds: Dataset) -> None:
        ds.SOPInstanceUID = f"1.2.826.9.{number}.88"

    contours = rings(lesion_slices(thickness_mm), *LESION_CENTER, LESION_PX + 0.1)
    return save_structures(path, volume_in(source), {"lesion": contours}, change=change)


def write_nifti_scan(path: Path, scanner: Scanner, number: int, workplace: Path) -> Path:
    """A scan as a `.nii.gz`, or as a `.nii` if the name ends so, that nothing tells is ours."""
    dicom = write_scan(workplace / f"nifti-{number}", scanner, "converted", number)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(path.name.removesuffix(".gz") + ".gz")
    write_converted(dicom, whole)
    if path.suffix != ".gz":
        path.write_bytes(gzip.decompress(whole.read_bytes()))
        whole.unlink()
    return path


def write_nifti_mask(path: Path, scanner: Scanner, number: int, workplace: Path) -> Path:
    """The lesion as a NIfTI label map on the grid of `write_nifti_scan`."""
    geometry = volume_in(workplace / f"nifti-{number}").geometry
    write_label_map(geometry, lesion(scanner.thickness_mm).astype(np.uint8), path)
    return path


@dataclass(frozen=True)
class Places:
    """Where the parts of a study lie.

    Args:
        root: folder of everything.
        scans: scans of all scanners, with their DICOM masks.
        masks: NIfTI masks.
        table: scanners of NIfTI scans.
        patients: ages and outcomes.
        settings: parameter file of the features.
        ids: identifiers that must stay out of all that is shared.
    """

    root: Path
    scans: Path
    masks: Path
    table: Path
    patients: Path
    settings: Path
    ids: tuple[str, ...]

    @property
    def plan_words(self) -> dict[str, Any]:
        """Arguments of `plan_study` beside `scans` and `out`."""
        return {
            "masks": [self.scans / SIEMENS.site, self.scans / GE.site, self.masks],
            "table": self.table, "patients": self.patients, "workers": 1,
            "rules": {"features": {"settings": str(self.settings), "label_names": {"1": "lesion"}},
                      "combat": {"covariates": ["age"]}},
        }  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """A plan and what was said while it was made.

    Args:
        plan: the plan.
        notes: remarks.
    """

    plan: StudyPlan
    notes: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.plan.folder


@dataclass(frozen=True)
class Done:
    """A study that was run without a disturbance.

    Args:
        folder: the study's folder.
        result: result of the run.
        notes: remarks.
    """

    folder: Path
    result: StudyResult
    notes: tuple[str, ...]


def copy_study(folder: Path, to: Path) -> Path:
    """A copy of a study's folder; links stay links."""
    shutil.copytree(folder, to, symlinks=True)
    return to


TRAVELER = "TRAVELER-1"
COUNT = 5


def write_study(root: Path) -> Places:
    """Write a study of three scanners of five patients each, of whom one was on two scanners."""
    scans, masks, workplace = root / "scans", root / "masks für alle", root / "workplace"
    ids = [TRAVELER]
    for number in range(1, COUNT + 1):
        patient = TRAVELER if number == 1 else f"SUED-{number:03d}"
        folder = write_scan(scans / SIEMENS.site / patient / "ct", SIEMENS, patient, number)
        write_seg(scans / SIEMENS.site / patient / "seg" / "mask.dcm", folder)
        ids.append(patient)
    for number in range(11, 11 + COUNT):
        patient = TRAVELER if number == 11 else f"NORD-{number:03d}"
        seed = 1 if number == 11 else 0
        folder = write_scan(scans / GE.site / patient / "ct", GE, patient, number, seed=seed)
        write_rtstruct(scans / GE.site / patient / "rt" / "mask.dcm", folder, number, 1.5)
        ids.append(patient)
    rows = []
    for number in range(21, 21 + COUNT):
        patient = f"DOE-{number}"
        name = f"{patient}.nii" if number == 21 else f"{patient}.nii.gz"
        write_nifti_scan(scans / PHILIPS.site / name, PHILIPS, number, workplace)
        write_nifti_mask(masks / f"{patient}_gtv.nii.gz", PHILIPS, number, workplace)
        rows.append({
            "path": f"{PHILIPS.site}/{name}", "manufacturer": PHILIPS.manufacturer,
            "model": PHILIPS.model, "kernel": PHILIPS.kernel, "kvp": "120", "thickness_mm": "3",
        })  # fmt: skip
        ids.append(patient)
    _write_distractors(scans)
    (root / "params.yaml").write_text(YAML, encoding="utf-8")
    unique = tuple(dict.fromkeys(ids))
    people = [
        {"patient": patient, "age": 50 + 3 * i, "relapse": i % 2}
        for i, patient in enumerate(unique)
    ]
    return Places(
        root, scans, masks, write_table(root / "scanners.csv", rows),
        write_table(root / "patients.csv", people), root / "params.yaml", unique,
    )  # fmt: skip


def _write_distractors(scans: Path) -> None:
    """A scout, a second series of a patient, a derived series, a broken file, and a text file."""
    first = scans / SIEMENS.site / "SUED-002"

    def scout(ds: Dataset, i: int) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        ds.StudyInstanceUID, ds.FrameOfReferenceUID = "1.2.826.9.2.1", "1.2.826.9.2.2"
        ds.PatientID = "SUED-002"

    write_series(first / "scout", 1, change=scout, series="1.2.826.9.2.4")

    def sharp(ds: Dataset, _: int) -> None:
        ds.ConvolutionKernel = "Bl64"

    write_scan(first / "sharp", SIEMENS, "SUED-002", 2, series="1.2.826.9.2.5", change=sharp)
    volume = volume_in(scans / SIEMENS.site / "SUED-003" / "ct")
    write_derived(volume, volume.hu, scans / SIEMENS.site / "SUED-003" / "derived", DERIVATION)
    (first / "broken.dcm").write_bytes((first / "ct" / "001.dcm").read_bytes()[:700])
    (first / "readme.txt").write_text("SUED-002 came late\n", encoding="utf-8")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A CSV file of rows by column."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file by column."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def made(folder: Path, *tops: str) -> dict[str, bytes]:
    """Images, maps of UIDs and masks that a run made, by their paths, with their bytes."""
    names = tops or ("prepared", "harmonized", "masks")
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for top in names
        for path in sorted((folder / top).rglob("*"))
        if path.is_file() and _is_product(path)
    }


def mtimes(folder: Path) -> dict[Path, int]:
    """When each image, map and mask was made."""
    return {
        path.relative_to(folder): path.lstat().st_mtime_ns
        for top in ("prepared", "harmonized", "masks")
        for path in sorted((folder / top).rglob("*"))
        if path.is_file() and _is_product(path)
    }


def _is_product(path: Path) -> bool:
    return path.name == "uid_map.json" or path.name.endswith((".dcm", ".nii", ".nii.gz"))


def set_option(folder: Path, before: str, after: str) -> None:
    """Change the text of `plan.toml`."""
    path = folder / "plan.toml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def edit_plan(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    """Change rows of `plan.csv`."""
    rows = read_rows(folder / "plan.csv")
    for row in rows:
        change(row)
    write_table(folder / "plan.csv", rows)
