r"""Simulated CT written as valid CT Image Storage (DICOM PS3.3 A.3), one file a slice.

The header says what a scanner would say (maker, tube, exposure, kernel) and, in several places,
that no patient was scanned: Synthetic Data YES (PS3.3 C.12.1), the patient's name, the study's and
the series' description. Nothing depends on the time, so the same scan gives the same bytes.

Values are stored as both vendors store them: rounded to whole HU and clipped to -1024..3071, the
range of a 12-bit CT number, in 16 bits signed with slope 1 and intercept -1024.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from pydicom import Dataset

from cvsct import __version__
from cvsct.core.errors import SeriesError
from cvsct.core.files import write_atomic
from cvsct.core.volume import CTVolume, SimulatedStudy
from cvsct.io.dicom.header import CT_IMAGE
from cvsct.io.dicom.rewrite import decimal, file_bytes
from cvsct.io.dicom.uids import file_meta, uid_of

INTERCEPT_HU = -1024
HU_RANGE = (-1024, 3071)

DATE, TIME = "20000101", "000000"
"""Of every simulated object, so that nothing depends on the time."""
_WINDOWS = {"LUNG": (-600, 1500), "MEDIASTINUM": (40, 400)}
_RESEARCH = "Simulated, research use only"


def write_simulated(
    volume: CTVolume, folder: Path, study: SimulatedStudy, first: int = 1
) -> tuple[Path, ...]:
    """Write slices of one simulated series, named by slice number.

    The frame of reference is the body's, so two scans of one body are paired by construction.

    Args:
        volume: one or more slices in HU.
        folder: made where absent; files of an earlier identical run are replaced.
        first: number of the volume's first slice, for a series written piece by piece.

    Raises:
        SeriesError: if a value is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i, hu in enumerate(volume.hu):
        if not np.isfinite(hu).all():
            raise SeriesError(
                f"slice {first + i} of {study.body}: {int((~np.isfinite(hu)).sum())} values are "
                "not finite, expected HU everywhere; check the scanner's definition"
            )
        dataset = _header(volume, i, study, first + i)
        dataset.Rows, dataset.Columns = hu.shape
        dataset.add_new("PixelData", "OW", _stored(hu).tobytes())
        files.append(folder / study.file_name(first + i))
        write_atomic(files[-1], file_bytes(dataset, file_meta(dataset.SOPInstanceUID)))
    return tuple(files)


def _stored(hu: Float[np.ndarray, "rows columns"]) -> np.ndarray:
    return (np.rint(hu.astype(np.float64)).clip(*HU_RANGE) - INTERCEPT_HU).astype("<i2")


def _header(volume: CTVolume, i: int, study: SimulatedStudy, instance: int) -> Dataset:
    """Everything but the pixels, module by module (PS3.3 table A.3-1)."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    _set_body(ds, study)
    _set_series(ds, volume, study)
    _set_image(ds, volume, study, instance)
    _set_plane(ds, volume, i, study)
    _set_exposure(ds, volume, study)
    return ds


def _set_body(ds: Dataset, study: SimulatedStudy) -> None:
    """Patient, General Study and Frame of Reference (C.7.1.1, C.7.2.1, C.7.4.1)."""
    ds.PatientName = f"VIRTUAL^{study.body}"
    ds.PatientID = f"cvsct-{study.body}"
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.StudyInstanceUID = uid_of("study", study.body)
    ds.StudyDate, ds.StudyTime = DATE, TIME
    ds.StudyID = "1"
    ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.StudyDescription = _RESEARCH
    ds.FrameOfReferenceUID = uid_of("frame of reference", study.body)
    ds.PositionReferenceIndicator = ""


def _set_series(ds: Dataset, volume: CTVolume, study: SimulatedStudy) -> None:
    """General Series and General Equipment (C.7.3.1, C.7.5.1)."""
    made_by = volume.acquisition
    ds.Modality = "CT"
    ds.SeriesInstanceUID = _series_uid(volume, study)
    ds.SeriesNumber = study.series_number
    ds.SeriesDate, ds.SeriesTime = DATE, TIME
    what = f"{made_by.kernel} {made_by.kvp:g} kVp {volume.geometry.thickness_mm:g} mm"
    if study.reconstruction:
        what += f" {study.reconstruction}"
    ds.SeriesDescription = f"{_RESEARCH}: {what}"[:64]
    ds.ProtocolName = f"Virtual thorax, {'axial' if study.pitch is None else 'helical'}"
    ds.BodyPartExamined = "CHEST"
    ds.PatientPosition = "HFS"
    ds.Manufacturer = made_by.manufacturer
    ds.ManufacturerModelName = made_by.model
    ds.InstitutionName = study.institution
    ds.DeviceSerialNumber = "VIRTUAL"
    ds.SoftwareVersions = f"cvsct {__version__}"


def _set_image(ds: Dataset, volume: CTVolume, study: SimulatedStudy, instance: int) -> None:
    """General Image, CT Image's pixels and SOP Common (C.7.6.1, C.8.2.1, C.12.1)."""
    ds.SOPClassUID = CT_IMAGE
    ds.SOPInstanceUID = uid_of("instance", _series_uid(volume, study), instance)
    ds.SyntheticData = "YES"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.AcquisitionDate = ds.ContentDate = DATE
    ds.AcquisitionTime = ds.ContentTime = TIME
    ds.AcquisitionNumber = 1
    ds.InstanceNumber = instance
    ds.LossyImageCompression = "00"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(INTERCEPT_HU), "1", "HU"
    ds.WindowCenter, ds.WindowWidth = (
        [str(window[part]) for window in _WINDOWS.values()] for part in (0, 1)
    )
    ds.WindowCenterWidthExplanation = list(_WINDOWS)


def _set_plane(ds: Dataset, volume: CTVolume, i: int, study: SimulatedStudy) -> None:
    """Image Plane (C.7.6.2)."""
    where = volume.geometry
    ds.PixelSpacing = _decimals(*where.pixel_mm)
    ds.ImageOrientationPatient = _decimals(*where.row_direction, *where.column_direction)
    ds.ImagePositionPatient = _decimals(*where.positions_mm[i])
    ds.SliceLocation = decimal(where.z_mm[i])
    ds.SliceThickness = decimal(where.thickness_mm)
    ds.SpacingBetweenSlices = decimal(study.spacing_mm or where.spacing_mm)


def _set_exposure(ds: Dataset, volume: CTVolume, study: SimulatedStudy) -> None:
    """The acquisition part of CT Image (C.8.2.1)."""
    ds.ScanOptions = "AXIAL MODE" if study.pitch is None else "HELICAL MODE"
    if study.pitch is not None:
        ds.SpiralPitchFactor = study.pitch
    ds.KVP = decimal(volume.acquisition.kvp)
    # Reconstruction Algorithm (0018,9315) belongs to Enhanced CT's macros (C.8.15.3.6), not to this
    # IOD. Siemens tells the strength as the kernel's second value, which readers take for another
    # kernel, as they should; the other makers hide it in private groups.
    kernel = volume.acquisition.kernel
    ds.ConvolutionKernel = [kernel, study.reconstruction] if study.reconstruction else kernel
    ds.ExposureTime = round(study.rotation_s * 1000)
    ds.XRayTubeCurrent = round(study.mas / study.rotation_s)
    ds.Exposure = round(study.mas)
    ds.ExposureInuAs = round(study.mas * 1000)
    ds.ExposureModulationType = study.modulation
    ds.RevolutionTime = study.rotation_s
    ds.RotationDirection = "CW"
    ds.GantryDetectorTilt = ds.TableHeight = "0"
    ds.DataCollectionDiameter = decimal(study.collection_diameter_mm)
    ds.ReconstructionDiameter = decimal(volume.geometry.pixel_mm[1] * volume.hu.shape[2])
    ds.DistanceSourceToDetector = decimal(study.source_detector_mm)
    ds.DistanceSourceToPatient = decimal(study.source_isocentre_mm)
    ds.FocalSpots = decimal(study.focal_spot_mm)
    ds.FilterType = study.filter_type
    if study.collimation_mm:
        ds.SingleCollimationWidth = study.collimation_mm
    ds.CTDIvol = study.ctdi_vol_mgy
    phantom = Dataset()
    phantom.CodeValue, phantom.CodingSchemeDesignator = "113691", "DCM"
    phantom.CodeMeaning = "IEC Body Dosimetry Phantom"
    ds.CTDIPhantomTypeCodeSequence = [phantom]


def _series_uid(volume: CTVolume, study: SimulatedStudy) -> str:
    made_by = volume.acquisition
    scanner = made_by.manufacturer, made_by.model
    how = (study.reconstruction,) if study.reconstruction else ()
    return uid_of("series", study.body, study.identity, *scanner, made_by.kernel, made_by.kvp, *how)


def _decimals(*values: float) -> list[str]:
    return [decimal(value) for value in values]
