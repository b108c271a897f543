"""Enhanced multi-frame CT: the same volume as classic CT, the same refusals, valid derived."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, Sequence, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from cvsct.core.errors import CvsctError
from cvsct.io.dicom.write import write_derived
from cvsct.io.read import find_series, read_facts
from cvsct.io.series import open_series
from tests.support.commands import Run
from tests.support.dicom_files import (
    COLUMNS,
    DERIVATION,
    ROWS,
    SPACING_MM,
    only,
    slice_dataset,
    stored_values,
    write_series,
    write_slice,
)

FRAMES = 5
ORDER = (3, 0, 4, 1, 2)
"""Where each frame lies in the stack: not in order."""


def _group(**sequences: dict[str, object]) -> Dataset:
    group = Dataset()
    for keyword, attributes in sequences.items():
        item = Dataset()
        for name, value in attributes.items():
            setattr(item, name, value)
        setattr(group, keyword, Sequence([item]))
    return group


def enhanced(kvp: float = 120.0) -> Dataset:
    """The classic series of the other tests as one file of frames out of order."""
    values = stored_values(FRAMES)
    ds = slice_dataset(0, values[0])
    ds.SOPClassUID, ds.NumberOfFrames = "1.2.840.10008.5.1.4.1.1.2.1", FRAMES
    ds.AcquisitionDateTime, ds.ContentQualification = "20200102101112", "PRODUCT"
    ds.PixelPresentation, ds.VolumetricProperties = "MONOCHROME", "VOLUME"
    ds.VolumeBasedCalculationTechnique, ds.PresentationLUTShape = "NONE", "IDENTITY"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    for keyword in (
        "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "KVP",
        "RescaleSlope", "RescaleIntercept", "ConvolutionKernel", "WindowCenter", "WindowWidth",
        "AcquisitionNumber",
    ):  # fmt: skip
        delattr(ds, keyword)
    shared = _group(
        PixelMeasuresSequence={"PixelSpacing": [0.7, 0.7], "SliceThickness": SPACING_MM},
        PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        CTReconstructionSequence={"ConvolutionKernel": "K1"},
        CTXRayDetailsSequence={"KVP": kvp},
        FrameVOILUTSequence={"WindowCenter": 40, "WindowWidth": 400},
        CTImageFrameTypeSequence={"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]},
    )
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence(
        _group(
            PlanePositionSequence={"ImagePositionPatient": [-100, -120, SPACING_MM * place]},
            PixelValueTransformationSequence={
                "RescaleIntercept": -1024, "RescaleSlope": 1, "RescaleType": "HU",
            },
            CTExposureSequence={"ExposureTimeInms": 500.4, "XRayTubeCurrentInmA": 200.0 + place},
            FrameContentSequence={"FrameAcquisitionNumber": 3},
        )
        for place in ORDER
    )  # fmt: skip
    ds.PixelData = values[list(ORDER)].astype("<u2").tobytes()
    return ds


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_frames_are_slices_by_position(tmp_path: Path, syntax: str) -> None:
    path = write_slice(tmp_path / "a.dcm", enhanced(), syntax)
    if syntax == RLELossless:
        assert dcmread(path).file_meta.TransferSyntaxUID == RLELossless
    volume, classic = only(tmp_path), only(write_series(tmp_path / "classic", FRAMES))
    np.testing.assert_array_equal(volume.hu, classic.hu)
    np.testing.assert_array_equal(volume.geometry.positions_mm, classic.geometry.positions_mm)
    assert volume.geometry.pixel_mm == classic.geometry.pixel_mm
    assert volume.acquisition == classic.acquisition
    assert volume.patient == classic.patient
    series = find_series(path)[0]
    facts = read_facts(series)
    assert facts.shape == classic.shape == (series.n_slices, ROWS, COLUMNS)
    assert (facts.acquisition, facts.thickness_mm) == (classic.acquisition, SPACING_MM)
    part = open_series(series).read(1, 3)
    np.testing.assert_array_equal(part.hu, classic.hu[1:3])
    np.testing.assert_array_equal(part.geometry.z_mm, classic.geometry.z_mm[1:3])


def _per_frame(i: int, sequence: str, **values: object) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        item = ds.PerFrameFunctionalGroupsSequence[i]
        setattr(item, sequence, _group(**{sequence: values})[sequence].value)

    return change


def _shared(sequence: str, **values: object) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        item = ds.SharedFunctionalGroupsSequence[0]
        setattr(item, sequence, _group(**{sequence: values})[sequence].value)

    return change


def _fewer_groups(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[:-1]


def _no_groups(ds: Dataset) -> None:
    del ds.PerFrameFunctionalGroupsSequence


def _cut(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[:-2]


def _perfusion(ds: Dataset) -> None:
    for item in ds.PerFrameFunctionalGroupsSequence:
        item.PixelValueTransformationSequence[0].RescaleType = "PCT"


def _scout(ds: Dataset) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]


REFUSED: dict[str, tuple[Callable[[Dataset], None], str]] = {
    "gap": (
        _per_frame(2, "PlanePositionSequence", ImagePositionPatient=[-100, -120, 25]),
        "gap of 10.0 mm",
    ),
    "duplicate": (
        _per_frame(2, "PlanePositionSequence", ImagePositionPatient=[-100, -120, 5]),
        "duplicate position",
    ),
    "orientation": (
        _per_frame(1, "PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 0.96, 0.28]),
        "mixed orientation",
    ),
    "spacing": (
        _per_frame(1, "PixelMeasuresSequence", PixelSpacing=[0.8, 0.8], SliceThickness=5),
        "mixed pixel spacing",
    ),
    "kernel": (
        _per_frame(1, "CTReconstructionSequence", ConvolutionKernel="K2"),
        "mixed convolution kernel",
    ),
    "tube voltage": (_per_frame(1, "CTXRayDetailsSequence", KVP=80), "mixed tube voltage"),
    "no orientation": (_shared("PlaneOrientationSequence"), "no usable ImageOrientationPatient"),
    "perfusion": (_perfusion, "Rescale Type is not HU but PCT"),
    "fewer groups": (_fewer_groups, "4 functional groups for 5 frames"),
    "no groups": (_no_groups, "0 functional groups for 5 frames"),
    "cut short": (_cut, "pixel data cut short at 14398 of 14400 bytes"),
    "scout": (_scout, "localizer"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_regular_volume_is_refused_by_frame(tmp_path: Path, kind: str) -> None:
    change, message = REFUSED[kind]
    ds = enhanced()
    change(ds)
    path = write_slice(tmp_path / "a.dcm", ds)
    with pytest.raises(CvsctError, match=rf"^a\.dcm.*{message}.*; "):
        only(path)


def test_several_files_in_one_series_are_refused(tmp_path: Path) -> None:
    for i in (1, 2):
        ds = enhanced()
        ds.SOPInstanceUID = f"1.2.3.4.{i}"
        write_slice(tmp_path / f"{i}.dcm", ds)
    with pytest.raises(CvsctError, match=r"^1\.dcm: multi-frame enhanced CT among other files"):
        only(tmp_path)


def test_derived_is_classic_ct_that_names_its_frame(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a.dcm", enhanced())
    volume = only(path)
    derived = write_derived(volume, volume.hu + 10, tmp_path / "out", DERIVATION)
    back = only(tmp_path / "out")
    np.testing.assert_array_equal(back.hu, volume.hu + 10)
    np.testing.assert_array_equal(back.geometry.positions_mm, volume.geometry.positions_mm)
    written = [dcmread(file) for file in derived.files]
    assert len({ds.SOPInstanceUID for ds in written}) == FRAMES
    for place, ds in enumerate(written):
        assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
        source = ds.SourceImageSequence[0]
        assert source.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2.1"
        assert source.ReferencedSOPInstanceUID == "1.2.3.4.1"
        assert source.ReferencedFrameNumber == ORDER.index(place) + 1
        assert (ds.KVP, ds.ConvolutionKernel, ds.ExposureTime, ds.XRayTubeCurrent) == (
            120, "K1", 500, 200 + place,
        )  # fmt: skip
        assert (ds.WindowCenter, ds.AcquisitionNumber) == (40, 3)
        assert "PerFrameFunctionalGroupsSequence" not in ds
        key = f"1.2.3.4.1#{ORDER.index(place) + 1}"
        assert derived.uid_map["instances"][key] == ds.SOPInstanceUID


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dicom3tools is not installed")
def test_derived_is_valid(tmp_path: Path) -> None:
    volume = only(write_slice(tmp_path / "a.dcm", enhanced()))
    derived = write_derived(volume, volume.hu, tmp_path / "out", DERIVATION)
    files = list(map(str, derived.files))
    for command in (["dciodvfy", "-new", files[0]], ["dcentvfy", *files]):
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = (told.stdout + told.stderr).splitlines()
        assert [line for line in lines if line.startswith("Error")] == []


def test_commands_take_it(run: Run, model: Path, tmp_path: Path) -> None:
    write_slice(tmp_path / "in" / "a.dcm", enhanced())
    code, out, err = run("inspect", tmp_path / "in", "--json")
    assert code == 0, err
    assert json.loads(out)[0]["slices"] == FRAMES
    code, _, err = run("harmonize", tmp_path / "in", "--model", model, "--out", tmp_path / "out")
    assert code == 0, err
    np.testing.assert_array_equal(only(tmp_path / "out").hu, only(tmp_path / "in").hu)
