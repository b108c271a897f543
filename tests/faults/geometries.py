"""Series that are no volume, each refused by a named error: `python -m tests.faults.geometries`."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import numpy as np
from pydicom import Dataset

from cvsct.core.errors import GeometryError, SeriesError
from cvsct.io.read import read_all
from tests.faults.finding import Finding, script
from tests.support.dicom_files import COLUMNS, ROWS, Change, write_series


def setting(**values: object) -> Change:
    def change(ds: Dataset, i: int) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return change


def _set_third(**values: object) -> Change:
    def change(ds: Dataset, i: int) -> None:
        if i == 2:
            setting(**values)(ds, i)

    return change


def _without(keyword: str) -> Change:
    def change(ds: Dataset, i: int) -> None:
        if keyword in ds:
            delattr(ds, keyword)

    return change


def _tilt(ds: Dataset, i: int) -> None:
    tilt = math.radians(15)
    ds.GantryDetectorTilt = 15
    ds.ImageOrientationPatient = [1, 0, 0, 0, round(math.cos(tilt), 6), round(-math.sin(tilt), 6)]


def _smaller(ds: Dataset, i: int) -> None:
    if i == 2:
        ds.Rows = ROWS - 1
        ds.PixelData = ds.PixelData[: -2 * COLUMNS]


def _color(ds: Dataset, i: int) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = bytes(3 * ROWS * COLUMNS)


def _eight_bit(ds: Dataset, i: int) -> None:
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = bytes(ROWS * COLUMNS)


def _cut_pixels(ds: Dataset, i: int) -> None:
    ds.PixelData = ds.PixelData[: -2 * COLUMNS]


def _wide(ds: Dataset, i: int) -> None:
    ds.PixelData = np.full((ROWS, COLUMNS), 5000, "<u2").tobytes()


def _copy(ds: Dataset, i: int) -> None:
    if i == 2:
        ds.ImagePositionPatient = [-100, -120, 5]


def _gap(ds: Dataset, i: int) -> None:
    if i == 3:
        ds.ImagePositionPatient = [-100, -120, 20]


def _aside(ds: Dataset, i: int) -> None:
    ds.ImagePositionPatient = [-100 + i, -120, 5 * i]


GEOMETRIES = (
    *("gap", "duplicate", "orientation", "size", "pixel spacing", "thickness", "frame", "tilt"),
    *("sideways", "sagittal", "no position", "no orientation", "no spacing", "zero spacing"),
    *("skewed", "long vectors", "not a number", "far away", "wide spacing"),
)
"""Those of `REFUSED` that are about where slices lie."""

REFUSED: dict[str, tuple[Change, str]] = {
    "gap": (_gap, r"002\.dcm: gap of 10\.0 mm after instance 3 of 4 .*, expected 5\.0 mm"),
    "duplicate": (_copy, r"duplicate position, 0\.000 mm from 00\d\.dcm"),
    "orientation": (
        _set_third(ImageOrientationPatient=[1, 0, 0, 0, 0.96, 0.28]),
        r"mixed orientation .*16\.3 degrees",
    ),
    "size": (_smaller, r"mixed size .*39 x 36 voxels|mixed size .*40 x 36 voxels"),
    "pixel spacing": (_set_third(PixelSpacing=[0.8, 0.8]), r"mixed pixel spacing .*0\.8 x 0\.8"),
    "thickness": (_set_third(SliceThickness=2.5), r"mixed slice thickness .*2\.5 mm"),
    "frame": (_set_third(FrameOfReferenceUID="1.9"), "mixed frame of reference"),
    "kernel": (_set_third(ConvolutionKernel="K2"), "mixed convolution kernel"),
    "scanner": (_set_third(ManufacturerModelName="Other"), "mixed scanner model"),
    "tube voltage": (_set_third(KVP="80"), "mixed tube voltage"),
    "study": (_set_third(StudyInstanceUID="1.2.4"), "mixed study"),
    "tilt": (_tilt, r"gantry tilt of 15\.0 degrees"),
    "sideways": (_aside, r"slices shift sideways by 1\.0 mm in 5\.0 mm"),
    "sagittal": (setting(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "sagittal or coronal"),
    "no position": (_without("ImagePositionPatient"), "no usable ImagePositionPatient"),
    "no orientation": (_without("ImageOrientationPatient"), "no usable ImageOrientationPatient"),
    "no spacing": (_without("PixelSpacing"), "no usable PixelSpacing"),
    "zero spacing": (setting(PixelSpacing=[0, 0]), "expected more than 0 and at most 100"),
    "skewed": (setting(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not two unit vectors"),
    "long vectors": (
        setting(ImageOrientationPatient=[1e200, 0, 0, 0, 1e200, 0]),
        "not two unit vec",
    ),
    "not a number": (setting(ImagePositionPatient=["nan", "0", "0"]), "no usable ImagePosition"),
    "far away": (_set_third(ImagePositionPatient=[0, 0, 1e9]), "beyond any scanner's reach"),
    "wide spacing": (setting(PixelSpacing=[1e9, 1e9]), "expected more than 0 and at most 100"),
    "no rescale": (_without("RescaleSlope"), "no usable Rescale Slope and Intercept"),
    "steep slope": (setting(RescaleSlope="1e30"), "no usable Rescale Slope and Intercept"),
    "zero slope": (setting(RescaleSlope="0"), "no usable Rescale Slope and Intercept"),
    "not HU": (setting(RescaleType="MGML"), r"Rescale Type is not HU but MGML \(mg/ml\)"),
    "scout": (setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "4 scouts"),
    "dose page": (
        setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"),
        "4 secondary captures",
    ),
    "screen save": (setting(ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]), "4 screen saves"),
    "modality": (setting(Modality="PT"), "4 CT images of modality PT, not CT"),
    "enhanced": (setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1"), "multi-frame enhanced CT"),
    "frames": (setting(NumberOfFrames=2), "multi-frame image of 2 frames"),
    "color": (_color, r"color image or screen copy \(3 samples"),
    "8 bit": (_eight_bit, "8 of 8 bits stored"),
    "no pixels": (_without("PixelData"), "no pixel data"),
    "cut pixels": (_cut_pixels, "pixel data cut short at 2808 of 2880 bytes"),
    "huge": (setting(Rows=60000, Columns=60000), "declares 60000 x 60000 voxels"),
    "too wide": (_wide, "need more than the 12 bits"),
    "tissue padding": (
        setting(PixelPaddingValue=1064, PixelPaddingRangeLimit=1100),
        "a value tissue has",
    ),
    "hostile UID": (setting(SeriesInstanceUID="../../etc/x"), "no usable SeriesInstanceUID"),
    "no UID": (_without("SOPInstanceUID"), "no usable SOPInstanceUID"),
}


def wrong_with(folder: Path, kind: str) -> str:
    """What is wrong with the refusal of a kind; empty where it is as it should be."""
    change, expected = REFUSED[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # while the bad series is made
        write_series(folder, change=change)
    try:
        read_all(folder)
    except (SeriesError, GeometryError) as error:
        said = str(error)
        if not re.search(expected, said):
            return f"{kind}: refused as {said!r}, expected {expected!r}"
        if "; " not in said or "\n" in said:
            return f"{kind}: {said!r} must be one line and end with what to do"
        return ""
    except Exception as error:
        return f"{kind}: {type(error).__name__}"
    return f"{kind}: was read"


def geometries(folder: Path, count: int, seed: int) -> Finding:
    """Each bad geometry; a seed changes nothing."""
    found = [wrong_with(folder / kind, kind) for kind in GEOMETRIES[:count]]
    return Finding(
        "each bad geometry is refused by a named error",
        len(found),
        tuple(filter(None, found)),
    )


if __name__ == "__main__":
    script(geometries, len(GEOMETRIES))
