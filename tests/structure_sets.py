"""RT structure sets for tests, as planning systems and converters write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset

from cvsct.io.space import volume_affine
from cvsct.volume import CTVolume

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"


@dataclass(frozen=True)
class Contour:
    """Corners as slice, row and column, or numbers as they are written; and what it names."""

    corners: np.ndarray | Sequence[str]
    kind: str = "CLOSED_PLANAR"
    image: str = ""
    points: int | None = None


def ring(plane: float, row: float, column: float, radius: float, corners: int = 200) -> np.ndarray:
    """A circle in one plane."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack(
        [
            np.full(corners, plane),
            row + radius * np.sin(angle),
            column + radius * np.cos(angle),
        ],
        axis=1,
    )


def rings(planes: Sequence[float], row: float, column: float, radius: float) -> list[Contour]:
    """A circle in each of several planes."""
    return [Contour(ring(plane, row, column, radius)) for plane in planes]


def save_structures(
    path: Path,
    volume: CTVolume,
    structures: dict[str, Sequence[Contour] | None],
    frame: str | None = None,
    change: Callable[[Dataset], None] | None = None,
) -> Path:
    """A structure set drawn on a volume; `None` stands for a structure without contours."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = RTSTRUCT, "1.2.3.88", "RTSTRUCT"
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    affine = volume_affine(volume)
    for number, (name, contours) in enumerate(structures.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        own = volume.geometry.frame_of_reference
        roi.ReferencedFrameOfReferenceUID = own if frame is None else frame
        ds.StructureSetROISequence.append(roi)
        drawn.ReferencedROINumber = number
        if contours is not None:
            drawn.ContourSequence = [_contour(each, affine) for each in contours]
        ds.ROIContourSequence.append(drawn)
    if change is not None:
        change(ds)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def _contour(about: Contour, affine: np.ndarray) -> Dataset:
    contour = Dataset()
    contour.ContourGeometricType = about.kind
    if isinstance(about.corners, np.ndarray):
        mm = about.corners @ affine[:3, :3].T + affine[:3, 3]
        data = [f"{value:.6g}" for value in mm.ravel()]
    else:
        data = list(about.corners)
    contour.NumberOfContourPoints = len(data) // 3 if about.points is None else about.points
    contour.ContourData = data
    if about.image:
        image = Dataset()
        image.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        image.ReferencedSOPInstanceUID = about.image
        contour.ContourImageSequence = [image]
    return contour
