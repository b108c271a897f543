"""Sound files to be damaged: synthetic ones, pydicom's own, and those of `../shared/odd_dicom`."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from tests.faults.finding import ROOT
from tests.faults.planted import IDENTIFIERS, plant, spoil
from tests.io.test_enhanced import enhanced
from tests.support.compressed_files import HT_FRAME, LOSSLESS, VALUES, write_compressed
from tests.support.dicom_files import behead, slice_dataset, write_slice
from tests.support.nifti_files import write_scan

ODD = Path(os.environ.get("CVSCT_SHARED", ROOT.parent / "shared")) / "odd_dicom"
"""Where there is such a folder; `CVSCT_SHARED` names it for a clone that lies elsewhere."""
PYDICOMS = ("CT_small.dcm", "image_dfl.dcm", "badVR.dcm", "nested_priv_SQ.dcm")
LARGEST_BYTES = 2**20
PLAIN = (
    *(ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian),
    DeflatedExplicitVRLittleEndian,
)
_TEXTS = ("PN", "LO", "SH", "LT", "ST", "UT", "DA", "UI", "AE")
SHORTEST = 6
"""Characters of a value that a message could not hold by chance."""


@dataclass(frozen=True)
class Seed:
    """A sound file.

    Args:
        values: of its attributes, which no message may tell.
    """

    path: Path
    name: str
    content: bytes
    values: frozenset[str]

    @property
    def suffix(self) -> str:
        """With both parts of `.nii.gz`."""
        return "".join(self.path.suffixes[-2:]) if ".nii" in self.path.name else self.path.suffix


def write_synthetic(folder: Path) -> Path:
    """Every transfer syntax that is read, multi-frame files and NIfTI, with identifiers planted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is planted
        _write_dicom(folder)
    write_scan(folder / "whole.nii")
    write_scan(folder / "floats.nii", "RAI", dtype=">f4", version=2)
    write_scan(folder / "packed.nii.gz", scaling=(0.5, -100))
    return folder


def _write_dicom(folder: Path) -> None:
    for syntax in PLAIN:
        ds = slice_dataset(0, VALUES)
        plant(ds)
        path = write_slice(folder / f"plain-{syntax}.dcm", ds, syntax)
        spoil(path)
        for name, meta in (("meta", True), ("bare", False)):
            if meta or syntax != DeflatedExplicitVRLittleEndian:
                behead(shutil.copy(path, folder / f"{name}-{syntax}.dcm"), meta=meta)
    for syntax in LOSSLESS:
        write_compressed(folder / f"packed-{syntax}.dcm", syntax, change=plant)
    write_compressed(
        folder / "packed-htj2k.dcm", "1.2.840.10008.1.2.4.201", HT_FRAME, (16, 12), change=plant
    )
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless):
        ds = enhanced()
        plant(ds)
        write_slice(folder / f"frames-{syntax}.dcm", ds, syntax)


@functools.cache
def seeds(synthetic: Path) -> tuple[Seed, ...]:
    """All there are, the synthetic ones thrice: they are small and hold identifiers."""
    ours = sorted(synthetic.iterdir())
    own = Path(pydicom.__file__).parent / "data" / "test_files"
    theirs = [own / name for name in PYDICOMS if (own / name).is_file()]
    odd = sorted(ODD.glob("*/*.dcm")) if ODD.is_dir() else []
    others = [path for path in (*theirs, *odd) if path.stat().st_size <= LARGEST_BYTES]
    return tuple(map(_seed, (*ours * 3, *others)))


@functools.cache
def _seed(path: Path) -> Seed:
    values: set[str] = set()
    with contextlib.suppress(Exception):
        _gather(dcmread(path, stop_before_pixels=True), values)
    return Seed(path, path.name, path.read_bytes(), frozenset(values))


def _gather(dataset: Dataset, values: set[str]) -> None:
    for element in dataset.iterall():
        if element.VR in _TEXTS:
            parts = str(element.value).replace("^", "\\").split("\\")
            values.update(part for part in map(str.strip, parts) if len(part) >= SHORTEST)


def is_told(seed: Seed, said: str) -> str:
    """The first of a file's values that is among what was said; empty where none is."""
    planted = next((value for value in IDENTIFIERS if value in said), "")
    return planted or next((value for value in seed.values if value in said), "")
