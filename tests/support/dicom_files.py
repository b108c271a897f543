"""Synthetic CT series on disk, with knobs for everything a test wants to be odd."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
from openjpeg.utils import encode_array
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from cvsct.core.volume import CTVolume
from cvsct.io.dicom.write import Derivation
from cvsct.io.read import read_all

ROWS, COLUMNS, SPACING_MM = 40, 36, 5.0
INTERCEPT = -1024

Change = Callable[[Dataset, int], None]


DERIVATION = Derivation(
    method="cvsct",
    target="GE MEDICAL SYSTEMS LightSpeed VCT, kernel STANDARD, 120 kVp",
    model_name="demo",
    model_version="1",
    model_sha256="ab" * 32,
    config_sha256="cd" * 32,
)
"""What a derived series of a test says it was made by."""


def stored_values(n_slices: int, low: int = 24, high: int = 2000) -> np.ndarray:
    """Seeded stored values, none of which is padding."""
    rng = np.random.default_rng(7)
    return rng.integers(low, high, size=(n_slices, ROWS, COLUMNS))


def slice_dataset(i: int, stored: np.ndarray, *, series: str = "1.2.3.4") -> Dataset:
    """One axial slice of 12 bits unsigned at z = 5 mm times `i`, complete for its IOD."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds.SOPInstanceUID = f"{series}.{i + 1}"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20200102"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101112"
    ds.InstanceCreationDate, ds.InstanceCreationTime = "20200102", "101113"
    ds.AccessionNumber = "A1"
    ds.Modality = "CT"
    ds.Manufacturer = "Maker"
    ds.InstitutionName = "Hospital"
    ds.ReferringPhysicianName = ""
    ds.StationName = "CT1"
    ds.SeriesDescription = "Thorax"
    ds.ManufacturerModelName = "Scanner"
    ds.PatientName = "Müller^Anna"
    ds.PatientID = "P1"
    ds.PatientBirthDate = "19600101"
    ds.PatientSex = "F"
    ds.BodyPartExamined = "CHEST"
    ds.SliceThickness = SPACING_MM
    ds.KVP = "120"
    ds.DeviceSerialNumber = "42"
    ds.SoftwareVersions = "v1"
    ds.ConvolutionKernel = "K1"
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID = "1.2.3"
    ds.SeriesInstanceUID = series
    ds.StudyID = "1"
    ds.SeriesNumber = 2
    ds.AcquisitionNumber = 1
    ds.InstanceNumber = 900 - i
    ds.ImagePositionPatient = [-100, -120, i * SPACING_MM]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.FrameOfReferenceUID = "1.2.3.9"
    ds.PositionReferenceIndicator = ""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape
    ds.PixelSpacing = [0.7, 0.7]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = 0
    ds.WindowCenter, ds.WindowWidth = "40", "400"
    ds.RescaleIntercept, ds.RescaleSlope = str(INTERCEPT), "1"
    ds.PixelData = stored.astype(stored.dtype if stored.dtype.itemsize == 2 else "<u2").tobytes()
    return ds


def write_slice(path: Path, ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a data set as a DICOM file; pixels are encoded when the syntax asks for it."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2")
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    elif syntax in (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        pass
    elif syntax == JPEG2000Lossless:  # pydicom's own encoder needs a package we do not
        values = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
        ds.PixelData = encapsulate([encode_array(values, bits_stored=ds.BitsStored)])
    elif syntax != ExplicitVRLittleEndian:
        ds.compress(syntax, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = syntax
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, ds, enforce_file_format=True, overwrite=True)
    return path


def behead(path: Path, *, meta: bool = False) -> Path:
    """Take preamble and mark away, and the file meta group unless it is to stay."""
    content = path.read_bytes()
    end = 144 + int.from_bytes(content[140:144], "little")
    path.write_bytes(content[132 if meta else end :])
    return path


def write_series(
    folder: Path,
    n_slices: int = 4,
    *,
    change: Change | None = None,
    stored: np.ndarray | None = None,
    syntax: str = ExplicitVRLittleEndian,
    series: str = "1.2.3.4",
) -> Path:
    """Write a series whose file names and Instance Numbers run against the positions.

    Args:
        change: alters the data set of slice `i` before it is written.
        stored: stored values; seeded ones where not given.
    """
    values = stored_values(n_slices) if stored is None else stored
    for i in range(len(values)):
        ds = slice_dataset(i, values[i], series=series)
        if change is not None:
            change(ds, i)
        write_slice(folder / f"{len(values) - i:03d}.dcm", ds, syntax)
    return folder


def only(path: Path) -> CTVolume:
    """The one volume under a path."""
    volumes = read_all(path)
    assert len(volumes) == 1
    return volumes[0]


def signed(ds: Dataset, values: np.ndarray) -> None:
    """Make a slice 16 bits signed, as GE writes it."""
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 15, 1
    ds.PixelData = values.astype("<i2").tobytes()


def today() -> str:
    """Today as a DICOM date, which no derived file may hold."""
    return datetime.date.today().strftime("%Y%m%d")
