"""Writing derived series: valid, deterministic, and telling what was done to them."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cvsct.core.errors import CvsctError, GeometryError, SeriesError
from cvsct.core.volume import CTVolume
from cvsct.io.dicom.write import DerivedSeries, write_derived
from cvsct.io.read import find_series, read_all, read_series
from tests.conftest import make_volume
from tests.faults.validators import errors, missing
from tests.support.dicom_files import DERIVATION, signed, stored_values, today, write_series


def _written(source: Path, out: Path, shift_hu: float = 0.0) -> tuple[CTVolume, DerivedSeries]:
    volume = read_all(source)[0]
    return volume, write_derived(volume, volume.hu + np.float32(shift_hu), out, DERIVATION)


def _first(tmp_path: Path, **attributes: object) -> Dataset:
    """The first slice derived from a series with these attributes."""

    def change(ds: Dataset, i: int) -> None:
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)

    source = write_series(tmp_path / "source", 2, change=change)
    return dcmread(_written(source, tmp_path / "out")[1].files[0])


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_unchanged_hu_come_back_exactly(tmp_path: Path, syntax: str) -> None:
    volume, derived = _written(write_series(tmp_path / "source", syntax=syntax), tmp_path / "out")
    back = read_all(tmp_path / "out")[0]
    np.testing.assert_array_equal(back.hu, volume.hu)
    np.testing.assert_array_equal(back.geometry.positions_mm, volume.geometry.positions_mm)
    assert back.geometry.frame_of_reference == volume.geometry.frame_of_reference
    assert back.series_uid == derived.series_uid != volume.series_uid
    header = dcmread(derived.files[0])
    assert header.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (header.PatientName, header.PatientID) == ("Müller^Anna", "P1")
    assert [dcmread(file).InstanceNumber for file in derived.files] == [1, 2, 3, 4]


def test_new_values_are_rounded_and_clipped_to_what_can_be_stored(tmp_path: Path) -> None:
    volume = read_all(write_series(tmp_path / "source", 1))[0]
    hu = volume.hu.copy()
    hu[0, 0, :4] = [10.4, 10.6, -9000, 9000]
    write_derived(volume, hu, tmp_path / "out", DERIVATION)
    assert read_all(tmp_path / "out")[0].hu[0, 0, :4].tolist() == [10, 11, -1024, 3071]


def test_slope_other_than_one(tmp_path: Path) -> None:
    def change(ds: Dataset, i: int) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = "0.25", "-1000"

    volume, _ = _written(write_series(tmp_path / "source", change=change), tmp_path / "out")
    np.testing.assert_array_equal(read_all(tmp_path / "out")[0].hu, volume.hu)


@pytest.mark.parametrize("declared", [-2000, None, -32768])
def test_padding_is_put_back_as_the_source_stored_it(tmp_path: Path, declared: int | None) -> None:
    values = stored_values(2)
    values[:, 0] = -2000
    values[1, 1] = -2000 if declared == -2000 else -2048

    def change(ds: Dataset, i: int) -> None:
        signed(ds, values[i])
        if declared is not None:
            ds.add_new("PixelPaddingValue", "SS", declared)

    source = write_series(tmp_path / "source", 2, change=change)
    volume, derived = _written(source, tmp_path / "out", shift_hu=50)
    for i, file in enumerate(derived.files):
        expected = np.where(values[i] < -1900, values[i], values[i] + 50)
        np.testing.assert_array_equal(dcmread(file).pixel_array, expected)
    half = volume.select([1])
    write_derived(half, half.hu, tmp_path / "half", DERIVATION)
    np.testing.assert_array_equal(read_all(tmp_path / "half")[0].padding, volume.padding[1:])


def test_no_real_voxel_becomes_padding(tmp_path: Path) -> None:
    def change(ds: Dataset, i: int) -> None:
        ds.PixelPaddingValue = 0

    volume = read_all(write_series(tmp_path / "source", 1, change=change))[0]
    write_derived(volume, np.full_like(volume.hu, -2000), tmp_path / "out", DERIVATION)
    back = read_all(tmp_path / "out")[0]
    assert back.padding is None
    assert (back.hu == -1023).all()


def test_padding_known_only_as_a_mask(tmp_path: Path) -> None:
    volume = read_all(write_series(tmp_path / "source", 1))[0]
    padding = np.zeros(volume.hu.shape, dtype=bool)
    padding[0, 0] = True
    masked = replace(volume, padding=padding)
    write_derived(masked, volume.hu, tmp_path / "out", DERIVATION)
    assert (read_all(tmp_path / "out")[0].hu[0, 0] == -1024).all()


def test_header_follows_the_table(tmp_path: Path) -> None:
    header = _first(
        tmp_path,
        SmallestImagePixelValue=1,
        LargestImagePixelValue=2,
        LossyImageCompression="01",
        LossyImageCompressionRatio="4",
        SyntheticData="YES",
        DerivationDescription="earlier step",
        CTDIvol=3.5,
    )
    assert list(header.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert header.SOPInstanceUID.startswith("2.25.")
    assert header.SOPInstanceUID == header.file_meta.MediaStorageSOPInstanceUID
    assert header.SeriesInstanceUID.startswith("2.25.")
    assert header.SeriesNumber == DERIVATION.series_number(2)
    assert header.SeriesNumber % 1000 == 2
    for told in ("Research use only", "cvsct", "LightSpeed", "demo 1", "ab" * 32, "earlier step"):
        assert told in header.DerivationDescription
    code = header.DerivationCodeSequence[-1]
    assert code.CodingSchemeDesignator == "99CVSCT"
    scheme = header.CodingSchemeIdentificationSequence[-1]
    assert scheme.CodingSchemeDesignator == code.CodingSchemeDesignator
    source = header.SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == "1.2.3.4.1"
    assert source.SpatialLocationsPreserved == "YES"
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert header.Manufacturer == "cvsct"
    assert "DeviceSerialNumber" not in header
    scanner, ours = header.ContributingEquipmentSequence
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert (scanner.Manufacturer, scanner.DeviceSerialNumber) == ("Maker", "42")
    assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert ours.Manufacturer == "cvsct"
    assert header.ConvolutionKernel == "K1"
    assert (header.KVP, header.CTDIvol, header.BitsStored) == (120, 3.5, 12)
    assert (header.WindowCenter, header.RescaleSlope, header.RescaleIntercept) == (40, 1, -1024)
    assert (header.LossyImageCompression, header.LossyImageCompressionRatio) == ("01", 4)
    assert header.SyntheticData == "YES"
    assert header.SeriesDescription.startswith("Research use only: cvsct")
    assert len(header.SeriesDescription) <= 64
    for gone in ("SmallestImagePixelValue", "LargestImagePixelValue", "InstanceCreationDate"):
        assert gone not in header


def test_private_attributes_signatures_and_thumbnails_go(tmp_path: Path) -> None:
    def change(ds: Dataset, i: int) -> None:
        block = ds.private_block(0x0011, "Vendor", create=True)
        block.add_new(1, "LO", "secret")
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "X", "y"
        item.private_block(0x0013, "Vendor", create=True).add_new(1, "LO", "secret")
        ds.ProcedureCodeSequence = [item]
        signature = Dataset()
        signature.MACIDNumber = 1
        ds.DigitalSignaturesSequence = [signature]
        ds.IconImageSequence = [Dataset()]
        ds.DataSetTrailingPadding = b"\0\0"

    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        source = write_series(tmp_path / syntax, 1, change=change, syntax=syntax)
        _, derived = _written(source, tmp_path / f"{syntax}-out")
        content = derived.files[0].read_bytes()
        assert b"secret" not in content
        assert b"Vendor" not in content
        header = dcmread(derived.files[0])
        assert header.ProcedureCodeSequence[0].CodeValue == "1"
        for gone in ("DigitalSignaturesSequence", "IconImageSequence", "DataSetTrailingPadding"):
            assert gone not in header


def test_equipment_can_be_kept(tmp_path: Path) -> None:
    volume = read_all(write_series(tmp_path / "source", 1))[0]
    kept = replace(DERIVATION, keep_equipment=True)
    header = dcmread(write_derived(volume, volume.hu, tmp_path / "out", kept).files[0])
    assert (header.Manufacturer, header.DeviceSerialNumber) == ("Maker", "42")
    assert len(header.ContributingEquipmentSequence) == 2


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_series(tmp_path / "source")
    _, first = _written(source, tmp_path / "a", shift_hu=3)
    _, second = _written(source, tmp_path / "b", shift_hu=3)
    assert [p.name for p in first.files] == [p.name for p in second.files]
    for name in [p.name for p in first.files] + ["uid_map.json"]:
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert today().encode() not in content


@pytest.mark.parametrize("field", ["model_sha256", "config_sha256", "target", "keep_equipment"])
def test_another_model_or_configuration_gives_other_uids(tmp_path: Path, field: str) -> None:
    volume = read_all(write_series(tmp_path / "source"))[0]
    other = replace(DERIVATION, **{field: True if field == "keep_equipment" else "ef" * 32})
    uids = [
        set(write_derived(volume, volume.hu, tmp_path / str(i), d).uid_map["instances"].values())
        for i, d in enumerate((DERIVATION, other))
    ]
    assert len(uids[0]) == 4
    assert not uids[0] & uids[1]


def test_uid_map_points_from_source_to_derived(tmp_path: Path) -> None:
    volume, derived = _written(write_series(tmp_path / "source"), tmp_path / "out")
    told = json.loads((tmp_path / "out" / "uid_map.json").read_text())
    assert told == derived.uid_map
    assert told["series"] == {"1.2.3.4": derived.series_uid}
    for header, file in zip(volume.headers, derived.files, strict=True):
        assert told["instances"][header.SOPInstanceUID] == dcmread(file).SOPInstanceUID


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    volume = read_all(write_series(tmp_path / "source"))[0]
    out = tmp_path / "out"
    with pytest.raises(GeometryError, match="shape"):
        write_derived(volume, volume.hu[:, 1:], out, DERIVATION)
    broken = volume.hu.copy()
    broken[2, 0, 0] = np.nan
    with pytest.raises(SeriesError, match="slice 3 of 4: 1 new values are not finite"):
        write_derived(volume, broken, out, DERIVATION)
    plain = make_volume(np.zeros((2, 4, 4)))
    with pytest.raises(SeriesError, match="no DICOM headers"):
        write_derived(plain, plain.hu, out, DERIVATION)
    cropped = replace(volume, hu=volume.hu[:, 1:])
    with pytest.raises(GeometryError, match="not cropped"):
        write_derived(cropped, cropped.hu, out, DERIVATION)
    assert not out.exists() or not any(out.iterdir())


HOSTILE = ["../../etc/x", "/etc/passwd", "a\0b", "..", "x" * 300, "$(touch y)", "a\nb", "C:\\x"]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.filterwarnings("ignore::UserWarning")  # while the hostile source is made
def test_hostile_attributes_write_nothing_outside(tmp_path: Path, hostile: str) -> None:
    def change(ds: Dataset, i: int) -> None:
        ds.PatientID = ds.PatientName = ds.SeriesDescription = ds.ProtocolName = hostile
        ds.FrameOfReferenceUID = ds.StudyID = hostile

    source = write_series(tmp_path / "source", 2, change=change)
    out = tmp_path / "deep" / "out"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _written(source, out)
        except CvsctError as error:
            assert hostile not in str(error)
    assert not caught
    written = {p for p in tmp_path.rglob("*") if p.is_file() and source not in p.parents}
    assert all(p.parent == out for p in written)
    assert len(written) == 3


def test_a_hostile_target_stays_text(tmp_path: Path) -> None:
    volume = read_all(write_series(tmp_path / "source", 1))[0]
    odd = replace(DERIVATION, target="Br40\\3\nŠ " * 200)
    header = dcmread(write_derived(volume, volume.hu, tmp_path / "out", odd).files[0])
    assert isinstance(header.SeriesDescription, str)
    assert header.SeriesDescription.isascii()
    assert len(header.DerivationDescription) <= 1024


def test_no_identifier_leaves_the_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(ds: Dataset, i: int) -> None:
        ds.PatientName = ds.PatientID = ds.InstitutionName = ds.StudyDescription = "SECRET"
        ds.PatientBirthDate = "19600101"

    source = write_series(tmp_path / "source", change=change)
    for file in source.iterdir():
        content = file.read_bytes().replace(b"19600101", b"SECRET01")
        file.write_bytes(content.replace(b"ISO_IR", b"SECRET"))
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, derived = _written(source, tmp_path / "out")
    assert not caught
    assert "SECRET" not in caplog.text + repr(derived)
    assert "SECRET" not in (tmp_path / "out" / "uid_map.json").read_text()
    assert b"SECRET01" in derived.files[0].read_bytes(), "the source's bytes are kept as they are"


def test_a_derived_series_can_be_derived_again(tmp_path: Path) -> None:
    _, first = _written(write_series(tmp_path / "source"), tmp_path / "a", shift_hu=1)
    volume, second = _written(tmp_path / "a", tmp_path / "b", shift_hu=1)
    assert volume.series_uid == first.series_uid != second.series_uid
    header = dcmread(second.files[0])
    assert len(header.ContributingEquipmentSequence) == 4
    assert len(header.CodingSchemeIdentificationSequence) == 1


def _errors(*command: str | Path) -> set[str]:
    if missing():
        pytest.skip(missing())
    return errors(*command)


def _check_against_source(source: Path, out: Path) -> None:
    """Unchanged HU come back exactly, and the validators find nothing new."""
    series = find_series(source)[0]
    volume = read_series(series)
    derived = write_derived(volume, volume.hu, out, DERIVATION)
    np.testing.assert_array_equal(read_all(out)[0].hu, volume.hu)
    for old, new in list(zip(sorted(series.files), derived.files, strict=True))[:3]:
        assert _errors("dciodvfy", "-new", new) <= _errors("dciodvfy", "-new", old)
    both = _errors("dcentvfy", *series.files, *derived.files)
    assert both <= _errors("dcentvfy", *series.files)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_synthetic_series_pass_the_validators(tmp_path: Path, syntax: str) -> None:
    source = write_series(tmp_path / "source", syntax=syntax)
    assert not _errors("dciodvfy", "-new", source / "001.dcm")
    _check_against_source(source, tmp_path / "out")


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", ["siemens_sensation10/B70f", "ge_lightspeed_vct/A002304.dcm", "ge_lightspeed_vct"]
)
def test_real_series_round_trip_and_validate(tmp_path: Path, shared: Path, name: str) -> None:
    _check_against_source(shared / "real_ct" / name, tmp_path / "out")


@pytest.mark.shared
def test_every_readable_odd_file_round_trips(tmp_path: Path, shared: Path) -> None:
    for i, path in enumerate(sorted((shared / "odd_dicom").glob("*/*.dcm"))):
        try:
            volume = read_all(path)[0]
        except CvsctError:
            continue
        write_derived(volume, volume.hu, tmp_path / str(i), DERIVATION)
        back = read_all(tmp_path / str(i))[0]
        np.testing.assert_array_equal(back.hu, volume.hu)
        for ours, theirs in zip(back.padding_stored, volume.padding_stored, strict=True):
            np.testing.assert_array_equal(ours, theirs)
