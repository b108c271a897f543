"""Reading CT: exact HU, or a refusal that names the file, what is wrong and what to do."""

from __future__ import annotations

import logging
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from cvsct.errors import CvsctError, GeometryError, SeriesError
from cvsct.io.dicom import Refusal, find_series, read_all, read_series, read_tree
from cvsct.volume import AIR_FLOOR_HU, CTVolume
from tests.dicom_files import (
    COLUMNS,
    ROWS,
    only,
    slice_dataset,
    stored_values,
    write_series,
    write_slice,
)


def test_slices_come_in_order_of_position_with_exact_hu(tmp_path: Path) -> None:
    volume = only(write_series(tmp_path))
    np.testing.assert_array_equal(volume.hu, stored_values(4) - 1024)
    assert volume.hu.dtype == np.float32
    assert volume.geometry.z_mm.tolist() == [0, 5, 10, 15]
    assert volume.geometry.spacing_mm == 5
    assert volume.padding is None
    assert [h.SOPInstanceUID for h in volume.headers] == [f"1.2.3.4.{i}" for i in (1, 2, 3, 4)]
    assert all("PixelData" not in h for h in volume.headers)
    assert str(volume.acquisition) == "Maker Scanner, kernel K1, 120 kVp"


def test_a_single_slice_is_a_volume(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "one.dcm", slice_dataset(0, stored_values(1)[0]))
    assert only(path).geometry.spacing_mm == 5


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.name,
)
def test_every_lossless_syntax_gives_the_same_hu(tmp_path: Path, syntax: str) -> None:
    volume = only(write_series(tmp_path, 2, syntax=syntax))
    np.testing.assert_array_equal(volume.hu, stored_values(2) - 1024)


def test_a_tree_of_series_with_foreign_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b" / "c", series="1.2.3.5")
    (tmp_path / "README").write_text("not a scan")
    (tmp_path / ".hidden.dcm").write_text("not seen")
    write_series(tmp_path / ".hidden", series="1.2.3.6")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "linked").mkdir()
    link_target = write_slice(
        tmp_path / ".store" / "x", slice_dataset(0, stored_values(1)[0], series="1.2.3.7")
    )
    (tmp_path / "linked" / "1").symlink_to(link_target)
    scout = slice_dataset(0, stored_values(1)[0], series="1.2.3.8")
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_slice(tmp_path / "scout.dcm", scout)
    with caplog.at_level(logging.INFO):
        series = find_series(tmp_path)
    assert [s.series_uid for s in series] == ["1.2.3.4", "1.2.3.5", "1.2.3.7"]
    assert "1 not DICOM" in caplog.text
    assert "1 a scout (localizer)" in caplog.text


def test_a_tree_goes_on_after_a_refusal_and_names_damaged_files(tmp_path: Path) -> None:
    write_series(tmp_path / "good")
    gap = write_series(tmp_path / "gap", series="1.2.3.5")
    (gap / "002.dcm").unlink()
    (tmp_path / "good" / "cut.dcm").write_bytes(b"")
    found = list(read_tree(tmp_path))
    assert isinstance(found[0], CTVolume)
    assert isinstance(found[1], Refusal)
    assert found[1].series_uid == "1.2.3.5"
    assert "gap of 10.0 mm after instance 2 of 3" in found[1].reason
    assert "expected 5.0 mm; re-export the series" in found[1].reason
    assert isinstance(found[2], Refusal)
    assert found[2].reason.startswith("cut.dcm: not a DICOM file")
    with pytest.raises(GeometryError, match="gap"):
        read_all(tmp_path)


def _set(**values: object):
    def change(ds: Dataset, i: int) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return change


def _set_third(**values: object):
    def change(ds: Dataset, i: int) -> None:
        if i == 2:
            _set(**values)(ds, i)

    return change


def _without(keyword: str):
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


def _colour(ds: Dataset, i: int) -> None:
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


REFUSED = {
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
    "rescale": (_set_third(RescaleIntercept="-1000"), r"mixed rescale .*-1000"),
    "kernel": (_set_third(ConvolutionKernel="K2"), "mixed convolution kernel"),
    "scanner": (_set_third(ManufacturerModelName="Other"), "mixed scanner model"),
    "tube voltage": (_set_third(KVP="80"), "mixed tube voltage"),
    "study": (_set_third(StudyInstanceUID="1.2.4"), "mixed study"),
    "tilt": (_tilt, r"gantry tilt of 15\.0 degrees"),
    "sideways": (_aside, r"slices shift sideways by 1\.0 mm in 5\.0 mm"),
    "sagittal": (_set(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "sagittal or coronal"),
    "no position": (_without("ImagePositionPatient"), "no usable ImagePositionPatient"),
    "no orientation": (_without("ImageOrientationPatient"), "no usable ImageOrientationPatient"),
    "no spacing": (_without("PixelSpacing"), "no usable PixelSpacing"),
    "zero spacing": (_set(PixelSpacing=[0, 0]), "expected more than 0"),
    "skewed": (_set(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not two unit vectors"),
    "no rescale": (_without("RescaleSlope"), "no usable Rescale Slope and Intercept"),
    "zero slope": (_set(RescaleSlope="0"), "no usable Rescale Slope and Intercept"),
    "not HU": (_set(RescaleType="US"), "Rescale Type is not HU"),
    "scout": (_set(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), r"4 a scout \(localizer\)"),
    "dose page": (
        _set(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"),
        r"4 secondary capture \(a dose page",
    ),
    "screen save": (_set(ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]), "4 a screen save"),
    "modality": (_set(Modality="PT"), "4 modality PT, not CT"),
    "enhanced": (_set(SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1"), "multi-frame enhanced CT"),
    "frames": (_set(NumberOfFrames=2), "multi-frame image of 2 frames"),
    "colour": (_colour, r"colour image or screen copy \(3 samples"),
    "8 bit": (_eight_bit, "8 of 8 bits stored"),
    "no pixels": (_without("PixelData"), "no pixel data"),
    "cut pixels": (_cut_pixels, "pixel data cut short at 2808 of 2880 bytes"),
    "huge": (_set(Rows=60000, Columns=60000), "declares 60000 x 60000 voxels"),
    "too wide": (_wide, "need more than the 12 bits"),
    "tissue padding": (
        _set(PixelPaddingValue=1064, PixelPaddingRangeLimit=1100),
        "a value tissue has",
    ),
    "hostile UID": (_set(SeriesInstanceUID="../../etc/x"), "no usable SeriesInstanceUID"),
    "no UID": (_without("SOPInstanceUID"), "no usable SOPInstanceUID"),
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_regular_volume_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    change, message = REFUSED[kind]
    with pytest.raises((SeriesError, GeometryError), match=message) as caught:
        read_all(write_series(tmp_path, change=change))
    assert "; " in str(caught.value), "the message must end with what to do"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_cut_compressed_pixels_are_refused_not_guessed(tmp_path: Path, syntax: str) -> None:
    ds = slice_dataset(0, stored_values(1)[0])
    path = write_slice(tmp_path / "a.dcm", ds, syntax)
    whole = path.read_bytes()
    for cut in (40, 400, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        with pytest.raises(SeriesError, match=r"^a\.dcm: "):
            read_all(path)


def test_paths_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(SeriesError, match=r"no such file or folder; name a CT series"):
        find_series(tmp_path / "absent")
    with pytest.raises(SeriesError, match="the folder is empty"):
        find_series(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SeriesError, match="1 not DICOM"):
        find_series(tmp_path)
    with pytest.raises(SeriesError, match=r"notes\.txt: not a DICOM file"):
        find_series(tmp_path / "notes.txt")


def test_a_single_scout_is_refused_with_its_reason(tmp_path: Path) -> None:
    ds = slice_dataset(0, stored_values(1)[0])
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    with pytest.raises(SeriesError, match=r"^a\.dcm: a scout \(localizer\), expected a CT slice"):
        find_series(write_slice(tmp_path / "a.dcm", ds))


SECRET = "SECRET"


@pytest.mark.parametrize("kind", [None, "gap", "no rescale", "cut pixels", "scout", "enhanced"])
def test_no_identifier_reaches_a_message_a_warning_or_a_log(
    tmp_path: Path,
    kind: str | None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def change(ds: Dataset, i: int) -> None:
        ds.PatientName = ds.PatientID = ds.InstitutionName = ds.StudyDescription = SECRET
        ds.KVP, ds.WindowCenter, ds.PatientBirthDate = "120.00", "040.00", "19600101"
        ds.DerivationDescription = SECRET
        if kind:
            REFUSED[kind][0](ds, i)

    write_series(tmp_path, change=change)
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        for plain in (b"120.00", b"040.00", b"ISO_IR"):
            content = content.replace(plain, SECRET.encode())
        file.write_bytes(content.replace(b"19600101", b"SECRET01"))
    messages = []
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            messages += [str(v) + repr(v) for v in read_all(tmp_path)]
        except CvsctError as error:
            messages += [str(error), repr(error.__cause__)]
    captured = capfd.readouterr()
    told = [caplog.text, captured.out, captured.err, *messages, *(str(w.message) for w in caught)]
    assert not [text for text in told if SECRET in text]


@pytest.mark.shared
def test_odd_files_give_right_hu_or_a_clear_refusal(shared: Path) -> None:
    readable = 0
    for path in sorted((shared / "odd_dicom").glob("*/*.dcm")):
        try:
            volume = only(path)
        except CvsctError as error:
            assert re.match(rf"{re.escape(path.name)}: .+; .+", str(error))
        else:
            readable += 1
            assert AIR_FLOOR_HU - 300 < volume.hu.min() < -900
            assert 1000 < volume.hu.max() < 3072
    assert readable == 21


@pytest.mark.shared
def test_lossless_syntaxes_of_one_slice_agree(shared: Path) -> None:
    folder = shared / "odd_dicom" / "ctimage_syntaxes"
    expected = only(folder / "Original.dcm")
    assert expected.padding is not None
    assert expected.padding_stored[0].tolist() == [-2000]
    for name in (
        "BigEndianExplicit",
        "DeflatedExplicitVRLittleEndian",
        "JPEG2000LosslessOnly",
        "JPEGLSLossless",
        "JPEGProcess14",
        "JPEGProcess14SV1",
        "LittleEndianExplicit",
        "LittleEndianImplicit",
        "RLELossless",
    ):
        volume = only(folder / f"{name}.dcm")
        np.testing.assert_array_equal(volume.hu, expected.hu)
        np.testing.assert_array_equal(volume.padding, expected.padding)


@pytest.mark.shared
def test_real_siemens_and_ge(shared: Path) -> None:
    siemens = read_series(find_series(shared / "real_ct" / "siemens_sensation10" / "B70f")[0])
    assert siemens.hu.shape == (30, 512, 512)
    assert siemens.geometry.spacing_mm == pytest.approx(8)
    assert str(siemens.acquisition) == "SIEMENS Sensation 10, kernel B70f, 120 kVp"
    assert (np.diff(siemens.geometry.z_mm) > 0).all()
    ge = read_all(shared / "real_ct" / "ge_lightspeed_vct")
    assert len(ge) == 8
    assert all(volume.padding is not None for volume in ge)


def test_another_object_with_dicom_markonly(tmp_path: Path) -> None:
    ds = Dataset()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    ds.SOPInstanceUID = "1.2"
    ds.file_meta = FileMetaDataset()
    with pytest.raises(SeriesError, match=r"another kind of object \(Segmentation Storage\)"):
        find_series(write_slice(tmp_path / "seg.dcm", ds))
