"""Tables and masks of a simulated study, written when its scans are complete.

`study/patients.csv` has a row for each scan, `study/outcomes.csv` the outcome of each patient, and
`study/masks/<hospital>/` a mask of the lesion for each scan, in the format that the hospital uses.
`study/truth.csv` holds what no study knows: the latent trait of each patient, and the lesion's
position, size and texture.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvsct.core.files import file_sha256
from cvsct.io.dicom.simulated_masks import write_segmentation, write_structure_set
from cvsct.io.nifti.write import write_label_map
from cvsct.simulation.benchmark import STUDY, Scan
from cvsct.simulation.ground_truth import BODIES, write_table
from cvsct.simulation.phantom.lesion import Lesion
from cvsct.simulation.physics.definition import load_definition
from cvsct.simulation.render_task import slice_geometry
from cvsct.simulation.study import StudyPatient

MASKS = "masks"
LABEL = "lesion"
SUFFIXES = {"seg": ".dcm", "rtstruct": ".dcm", "nifti": ".nii.gz"}
"""File name suffix of each mask format."""


def write_study_files(
    out: Path, scans: Collection[Scan], patients: Sequence[StudyPatient]
) -> dict[str, str]:
    """Write tables and masks of a study's complete scans.

    Args:
        out: folder of the simulation.
        scans: complete scans, of any part.
        patients: patients of the study.

    Returns:
        SHA-256 of each file, by its path relative to `out`; no file is written if no scan of the
        study is complete.

    Raises:
        MissingExtraError: if highdicom, which writes segmentations, is not installed.
    """
    complete = {(scan.body, scan.side): scan for scan in scans if scan.part == STUDY}
    rows, truth, written = [], [], []
    for patient in patients:
        visits = [
            visit for visit in patient.visits if (patient.body, visit.hospital.name) in complete
        ]
        if not visits:
            continue
        about = json.loads((out / BODIES / f"{patient.body.name}.json").read_text(encoding="utf-8"))
        lesion = Lesion.from_record(about["lesion"])
        truth.append(_truth(patient, lesion))
        for visit in visits:
            scan = complete[patient.body, visit.hospital.name]
            mask = _mask_path(scan, visit.hospital.mask_format)
            middle_mm = sum(about["z_range_mm"]) / 2
            _write_mask(out, scan, lesion, middle_mm, visit.hospital.mask_format, out / mask)
            written.append(mask)
            rows.append(_row(patient, scan, mask))
    if not rows:
        return {}
    outcomes = [{"patient": row["patient"], "outcome": row["outcome"]} for row in truth]
    for name, table in (("patients", rows), ("outcomes", outcomes), ("truth", truth)):
        path = Path(STUDY) / f"{name}.csv"
        write_table(out / path, list(table[0]), table)
        written.append(path)
    return {path.as_posix(): file_sha256(out / path) for path in written}


def _mask_path(scan: Scan, mask_format: str) -> Path:
    (series,) = scan.series()
    name = Path(series.folder).name
    return Path(STUDY) / MASKS / scan.side / f"{name}{SUFFIXES[mask_format]}"


def _write_mask(
    out: Path, scan: Scan, lesion: Lesion, middle_mm: float, mask_format: str, path: Path
) -> None:
    (series,) = scan.series()
    folder = out / series.folder
    geometry = slice_geometry(scan, [middle_mm + scan.z_mm(i) for i in range(scan.slices)])
    if mask_format == "rtstruct":
        outlines = {i: lesion.contour_mm(float(z)) for i, z in enumerate(geometry.z_mm)}
        contours = {i: outline for i, outline in outlines.items() if outline is not None}
        write_structure_set(folder, contours, LABEL, path)
        return
    columns_mm, rows_mm = (
        first_mm + geometry.pixel_mm[0] * np.arange(scan.matrix_px)
        for first_mm in geometry.positions_mm[0, :2]
    )
    mask = lesion.mask(columns_mm, rows_mm, geometry.z_mm)
    if mask_format == "seg":
        write_segmentation(folder, mask, LABEL, path)
    else:
        write_label_map(geometry, mask.astype(np.uint8), path)


def _row(patient: StudyPatient, scan: Scan, mask: Path) -> dict[str, Any]:
    """Row of `patients.csv`."""
    (series,) = scan.series()
    definition = load_definition(scan.scanner)
    return {
        "patient": f"cvsct-{patient.body.name}",
        "hospital": scan.side,
        "scanner": f"{definition.manufacturer} {definition.model}",
        "kernel": series.kernel,
        "reconstruction": series.reconstruction,
        "kvp": f"{series.kvp:g}",
        "mas": f"{series.mas:g}",
        "thickness_mm": f"{scan.thickness_mm:g}",
        "folder": series.folder,
        "mask": mask.as_posix(),
    }


def _truth(patient: StudyPatient, lesion: Lesion) -> dict[str, Any]:
    """Row of `truth.csv`."""
    x, y, z = lesion.centre_mm
    traits = lesion.traits
    return {
        "patient": f"cvsct-{patient.body.name}",
        "outcome": int(patient.outcome),
        "latent": f"{patient.latent:.4f}",
        "x_mm": x,
        "y_mm": y,
        "z_mm": z,
        "diameter_mm": traits.diameter_mm,
        "hu": traits.hu,
        "heterogeneity_hu": traits.heterogeneity_hu,
        "grain_mm": traits.grain_mm,
    }
