"""Tiny scans for the tutorials: a trunk of tissue and lungs, seen by scanners that differ.

A scanner here is a blur and a level of noise. That is far less than a scanner is; `cvsct simulate`
knows rays, kernels and doses, and takes minutes.
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

PIXEL_MM, THICKNESS_MM, SLICES, PIXELS = 0.7, 3.0, 8, 192


@dataclass(frozen=True)
class TinyScanner:
    """A scanner by its headers, its blur in pixels and its noise in HU."""

    manufacturer: str
    model: str
    kernel: str
    blur_px: float
    noise_hu: float


def scan_hu(scanner, patient, repeat=0):
    """CT numbers of a patient on a scanner; the patient's number is the seed of the body."""
    body = np.random.default_rng(patient)
    y, x = np.mgrid[-1 : 1 : PIXELS * 1j, -1 : 1 : PIXELS * 1j]
    texture = gaussian_filter(body.normal(size=(SLICES, PIXELS, PIXELS)), (2, 6, 6))
    hu = np.full(texture.shape, -1000.0)
    inside = (x / body.uniform(0.88, 0.95)) ** 2 + (y / body.uniform(0.75, 0.85)) ** 2 < 1
    hu[:, inside] = 30 + body.uniform(15, 25) * texture[:, inside] / texture.std()
    for side in (-0.5, 0.5):
        hu[:, ((x - side) / 0.2) ** 2 + ((y + 0.35) / 0.22) ** 2 < 1] = -820
    chance = np.random.default_rng([patient, repeat, round(10 * scanner.noise_hu)])
    grain = chance.normal(size=hu.shape)
    grain = gaussian_filter(grain, (0, 0.6 + scanner.blur_px, 0.6 + scanner.blur_px))
    seen = gaussian_filter(hu, (0, scanner.blur_px, scanner.blur_px))
    return np.maximum(np.rint(seen + scanner.noise_hu * grain / grain.std()), -1024)


def write_scan(path, scanner, patient, repeat=0):
    """Write a scan as NIfTI, rows from front to back, slices from feet to head."""
    hu = scan_hu(scanner, patient, repeat).astype(np.int16)
    affine = np.diag([-PIXEL_MM, -PIXEL_MM, THICKNESS_MM, 1.0])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(hu.transpose(2, 1, 0), affine), path)


def scanner_row(path, scanner, patient, site):
    """What the table of scanners says of a NIfTI file, which has no headers for it."""
    return {
        "path": path, "patient": f"P{patient:03d}", "site": site,
        "manufacturer": scanner.manufacturer, "model": scanner.model, "kernel": scanner.kernel,
        "kvp": 120, "thickness_mm": THICKNESS_MM, "contrast": "no",
    }  # fmt: skip
