"""Reading CT: exact HU, or a refusal that names the file, what is wrong and what to do."""

from __future__ import annotations

import logging
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

from cvsct.core.errors import CvsctError, GeometryError, SeriesError, UsageError
from cvsct.core.volume import AIR_FLOOR_HU, CTVolume
from cvsct.io.catalog import catalog
from cvsct.io.dicom.header import label
from cvsct.io.read import Refusal, find_series, read_all, read_series, read_tree
from tests.faults.geometries import REFUSED, wrong_with
from tests.support.dicom_files import (
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
    tmp_path: Path,
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
    found = catalog(tmp_path)
    assert [s.series_uid for s in found.series] == ["1.2.3.4", "1.2.3.5", "1.2.3.7"]
    assert sorted(map(str, found.left_out)) == [
        "1 linked folder that leads back", "1 scout", "1 text file",
    ]  # fmt: skip
    assert not found.incomplete


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
    assert "expected 5.0 mm: 1 slice appears to be missing" in found[1].reason
    assert isinstance(found[2], Refusal)
    assert found[2].reason.startswith("cut.dcm: not a DICOM file")
    with pytest.raises(GeometryError, match="gap"):
        read_all(tmp_path)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_regular_volume_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    assert not wrong_with(tmp_path, kind)


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
    with pytest.raises(UsageError, match=r"no such file or folder; name a CT series"):
        find_series(tmp_path / "absent")
    with pytest.raises(SeriesError, match="the folder is empty"):
        find_series(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SeriesError, match="1 text file"):
        find_series(tmp_path)
    with pytest.raises(SeriesError, match=r"file-[0-9a-f]{8}\.txt: not a DICOM file"):
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
            assert re.match(rf"{re.escape(label(path))}: .+; .+", str(error))
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
