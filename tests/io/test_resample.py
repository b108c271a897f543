"""Series of thin slices written as thicker ones: still the scanner's, valid, and told as made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread

import cvsct
from cvsct.core.errors import CvsctError, GeometryError, SeriesError, UsageError
from cvsct.core.volume import CTVolume
from cvsct.io.checked_scans import check_series
from cvsct.io.dicom.derive import is_derived_here
from cvsct.io.dicom.references import source_images
from cvsct.io.dicom.stack import SeriesFiles, Stack
from cvsct.io.dicom.write import DerivedSeries, write_derived
from cvsct.io.nifti.read import open_nifti
from cvsct.io.nifti.write import NiftiWriter
from cvsct.io.read import find_series, read_series
from cvsct.io.resample import resample_series, resample_volume
from cvsct.io.scan_record import group_by_source, record_of
from cvsct.io.series import is_harmonized
from tests.faults.validators import errors, missing
from tests.io.test_enhanced import FRAMES, ORDER, enhanced
from tests.io.test_nifti import ORIENTATIONS
from tests.support.commands import Run
from tests.support.dicom_files import (
    DERIVATION,
    only,
    signed,
    stored_values,
    today,
    write_series,
    write_slice,
)
from tests.support.nifti_files import FIRST_MM, STEPS_MM, scan_hu, write_scan

SLICES = 21
FIRST_Z_MM = -40.0
Change = Callable[[Dataset, int], None]


def write_thin(folder: Path, change: Change | None = None, **options: object) -> Path:
    """A series of slices of 1 mm every 1 mm, whose Slice Location falls where positions rise."""

    def thin(ds: Dataset, i: int) -> None:
        ds.SliceThickness, ds.SpacingBetweenSlices = "1", "1"
        ds.ImagePositionPatient = [-100, -120, FIRST_Z_MM + i]
        ds.SliceLocation, ds.XRayTubeCurrent = 500 - i, 100 + i
        if change is not None:
            change(ds, i)

    return write_series(folder, SLICES, change=thin, **options)  # type: ignore[arg-type]


def the_series(folder: Path) -> SeriesFiles:
    (series,) = find_series(folder)
    return series


def resampled(source: Path, out: Path, thickness_mm: float = 5.0) -> DerivedSeries:
    return resample_series(the_series(source), out, thickness_mm)


def test_slices_are_the_mean_of_those_they_cover(tmp_path: Path) -> None:
    source = write_thin(tmp_path / "in")
    derived = resampled(source, tmp_path / "out")
    volume, thin = only(tmp_path / "out"), only(source)
    expected = thin.hu[:20].reshape(4, 5, *thin.hu.shape[1:]).mean(axis=1)
    assert np.abs(volume.hu - expected).max() <= 0.5 + 1e-4
    where = volume.geometry
    assert where.z_mm.tolist() == [FIRST_Z_MM + 2 + 5 * i for i in range(4)]
    assert (where.thickness_mm, where.spacing_mm, where.pixel_mm) == (5.0, 5.0, (0.7, 0.7))
    assert where.frame_of_reference == thin.geometry.frame_of_reference
    assert volume.acquisition == thin.acquisition
    assert volume.patient == thin.patient
    assert volume.series_uid == derived.series_uid != thin.series_uid
    in_memory = resample_volume(thin, 5.0)
    np.testing.assert_allclose(in_memory.hu, expected, atol=1e-3)
    assert in_memory.series_uid == derived.series_uid
    np.testing.assert_allclose(in_memory.geometry.positions_mm, where.positions_mm)
    assert (in_memory.acquisition, in_memory.patient) == (thin.acquisition, thin.patient)


def test_overlapping_slices_and_slices_at_given_places(tmp_path: Path) -> None:
    series = the_series(write_thin(tmp_path / "in"))
    resample_series(series, tmp_path / "overlapping", 5.0, 2.5)
    assert only(tmp_path / "overlapping").geometry.spacing_mm == pytest.approx(2.5)
    resample_series(series, tmp_path / "places", 5.0, to_z_mm=[-50.0, -36.0, -30.0, -24.0])
    placed = only(tmp_path / "places").geometry
    assert placed.z_mm.tolist() == [-36, -30, -24]
    assert dcmread(next((tmp_path / "places").glob("*.dcm"))).SpacingBetweenSlices == 6


def test_the_header_tells_what_was_done_and_keeps_the_scanner(tmp_path: Path) -> None:
    def change(ds: Dataset, i: int) -> None:
        ds.ImagesInAcquisition, ds.DerivationDescription = SLICES, "earlier step"
        ds.LossyImageCompression = "01" if i == 9 else "00"
        ds.add_new((0x6000, 0x0010), "US", 2)
        ds.private_block(0x0011, "Vendor", create=True).add_new(1, "LO", "secret")

    derived = resampled(write_thin(tmp_path / "in", change), tmp_path / "out")
    headers = [dcmread(file) for file in derived.files]
    for number, header in enumerate(headers, 1):
        middle = 5 * number - 3
        assert list(header.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert header.ImagePositionPatient == [-100, -120, FIRST_Z_MM + middle]
        assert (header.SliceThickness, header.SpacingBetweenSlices) == (5, 5)
        assert (header.SliceLocation, header.XRayTubeCurrent) == (500 - middle, 100 + middle)
        assert header.InstanceNumber == number
        assert [  # the five around the middle one
            (item.ReferencedSOPInstanceUID, item.SpatialLocationsPreserved,
             item.PurposeOfReferenceCodeSequence[0].CodeValue)
            for item in header.SourceImageSequence
        ] == [(f"1.2.3.4.{i + 1}", "NO", "121322")
              for i in range(middle - 2, middle + 3)]  # fmt: skip
        assert source_images(header) == [], "masks of thin slices do not fit thicker ones"
    header = headers[1]
    assert (header.Manufacturer, header.ManufacturerModelName) == ("Maker", "Scanner")
    assert (header.DeviceSerialNumber, header.ConvolutionKernel, header.KVP) == ("42", "K1", 120)
    assert header.FrameOfReferenceUID == "1.2.3.9"
    assert header.SeriesDescription == "Research use only: slices of 5 mm; Thorax"
    for told in ("Research use only", "slices of 1 mm every 1 mm", "of 5 mm", "earlier step"):
        assert told in header.DerivationDescription
    code = header.DerivationCodeSequence[-1]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113085", "DCM")
    scanner, ours = header.ContributingEquipmentSequence
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert (scanner.Manufacturer, scanner.DeviceSerialNumber) == ("Maker", "42")
    assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert (ours.Manufacturer, ours.ManufacturerModelName) == ("cvsct", "cvsct resample")
    assert [each.LossyImageCompression for each in headers] == ["00", "01", "00", "00"]
    for gone in ("ImagesInAcquisition", "InstanceCreationDate", "ContentTime"):
        assert gone not in header
    assert (0x6000, 0x0010) not in header
    assert b"secret" not in derived.files[0].read_bytes()
    assert header.PatientName == "Müller^Anna"


def test_the_uid_map_names_for_each_slice_the_one_that_has_most_of_it(tmp_path: Path) -> None:
    derived = resampled(write_thin(tmp_path / "in"), tmp_path / "out")
    told = json.loads((tmp_path / "out" / "uid_map.json").read_text())
    assert told == derived.uid_map
    assert told["series"] == {"1.2.3.4": derived.series_uid}
    uids = [dcmread(file).SOPInstanceUID for file in derived.files]
    assert told["instances"] == {f"1.2.3.4.{i + 1}": uids[i // 5] for i in range(20)}


def test_the_same_input_gives_the_same_bytes_and_other_slices_other_uids(tmp_path: Path) -> None:
    source = write_thin(tmp_path / "in")
    first, second = (resampled(source, tmp_path / name) for name in "ab")
    for name in [file.name for file in first.files] + ["uid_map.json"]:
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert today().encode() not in content
    assert [file.name for file in first.files] == [file.name for file in second.files]
    other = resample_series(the_series(source), tmp_path / "c", 5.0, 2.5)
    assert first.series_uid != other.series_uid
    assert not {f.name for f in first.files} & {f.name for f in other.files}


@pytest.mark.parametrize("step", [0, 1])
def test_valid_dicom(tmp_path: Path, step: int) -> None:
    if missing():
        pytest.skip(missing())
    source = write_thin(tmp_path / "in")
    derived = resample_series(the_series(source), tmp_path / "out", 5.0, 5.0 - 2 * step)
    for file in derived.files:
        assert errors("dciodvfy", "-new", file) == set()
    assert errors("dcentvfy", *derived.files, *source.iterdir()) == set()


@pytest.mark.shared
def test_a_real_scan_is_valid_too(shared: Path, tmp_path: Path) -> None:
    if missing():
        pytest.skip(missing())
    series = find_series(shared / "real_ct" / "siemens_sensation10" / "B70f")[0]
    volume = read_series(series)
    derived = resample_series(series, tmp_path / "out", 2 * volume.geometry.thickness_mm)
    before = set().union(*(errors("dciodvfy", "-new", file) for file in series.files[:3]))
    assert errors("dciodvfy", "-new", derived.files[0]) <= before
    both = errors("dcentvfy", *series.files, *derived.files)
    assert both <= errors("dcentvfy", *series.files)
    assert only(tmp_path / "out").acquisition == volume.acquisition


def test_padding_is_stored_as_the_source_stores_it(tmp_path: Path) -> None:
    """Of five slices none, two or three are padding in a row; the middle one, or not."""
    values = stored_values(SLICES)
    values[:, 0] = -2000
    values[[1, 2], 1] = -2000
    values[[0, 1, 4], 2] = -2048

    def change(ds: Dataset, i: int) -> None:
        signed(ds, values[i])

    derived = resampled(write_thin(tmp_path / "in", change, stored=values), tmp_path / "out")
    first = dcmread(derived.files[0]).pixel_array
    assert (first[0] == -2000).all()
    np.testing.assert_array_equal(first[1], np.rint(values[[0, 3, 4], 1].mean(axis=0)))
    assert (first[2] == -2048).all()
    np.testing.assert_array_equal(first[3], np.rint(values[:5, 3].mean(axis=0)))
    volume = only(tmp_path / "out")
    assert volume.padding is not None
    assert volume.padding[0, [0, 2]].all()
    assert not volume.padding[0, 1].any()
    np.testing.assert_array_equal(
        resample_volume(only(tmp_path / "in"), 5.0).padding, volume.padding
    )


@pytest.mark.parametrize("which", [range(SLICES), (2, 3), (2, 7)])
def test_slices_that_share_a_uid_are_all_named(tmp_path: Path, which: range) -> None:
    def change(ds: Dataset, i: int) -> None:
        if i in which:
            ds.SOPInstanceUID = "1.2.840.77"

    derived = resampled(write_thin(tmp_path / "in", change), tmp_path / "out")
    assert len(derived.uid_map["instances"]) == 20
    assert len({dcmread(file).SOPInstanceUID for file in derived.files}) == 4
    assert f"1.2.840.77@{FIRST_Z_MM + 2:.2f}" in derived.uid_map["instances"]


def test_frames_of_a_multi_frame_file_become_slices(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "in" / "a.dcm", enhanced())
    derived = resampled(path, tmp_path / "out", 10.0)
    volume, thin = only(tmp_path / "out"), only(path)
    assert (
        np.abs(volume.hu - thin.hu[:4].reshape(2, 2, *thin.hu.shape[1:]).mean(axis=1)).max() < 0.51
    )
    assert volume.geometry.z_mm.tolist() == [2.5, 12.5]
    header = dcmread(derived.files[1])
    named = [(i.ReferencedSOPInstanceUID, i.ReferencedFrameNumber, i.ReferencedSOPClassUID)
             for i in header.SourceImageSequence]  # fmt: skip
    assert named == [
        ("1.2.3.4.1", ORDER.index(place) + 1, "1.2.840.10008.5.1.4.1.1.2.1") for place in (2, 3)
    ]
    assert len(derived.uid_map["instances"]) == FRAMES - 1
    if not missing():
        assert errors("dciodvfy", "-new", derived.files[0]) == set()


def test_few_slices_are_in_memory_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = the_series(write_thin(tmp_path / "in"))
    read: list[tuple[int, int | None]] = []
    whole = Stack.read

    def counted(self: Stack, start: int = 0, stop: int | None = None) -> CTVolume:
        read.append((start, stop))
        return whole(self, start, stop)

    monkeypatch.setattr(Stack, "read", counted)
    resample_series(series, tmp_path / "out", 5.0)
    assert [(a, b) for a, b in read if b is not None and b - a > 1] == [
        (0, 5), (5, 10), (10, 15), (15, 20),
    ]  # fmt: skip


def test_what_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    thick = the_series(write_series(tmp_path / "thick", 8))
    with pytest.raises(GeometryError, match=r"^001\.dcm: slices of 5 mm, thicker than the 3 mm"):
        resample_series(thick, tmp_path / "out", 3.0)

    def unknown(ds: Dataset, i: int) -> None:
        ds.SliceThickness = None

    untold = the_series(write_thin(tmp_path / "untold", unknown))
    with pytest.raises(GeometryError, match="no slice thickness"):
        resample_series(untold, tmp_path / "out", 5.0)
    assert not (tmp_path / "out").exists()


def test_a_thicker_series_is_its_scanners_and_a_harmonized_one_of_it_is_not(
    run: Run, model: Path, tmp_path: Path
) -> None:
    source = write_thin(tmp_path / "thin", stored=stored_values(SLICES, 24, 1600))
    derived = cvsct.resample_series(source, tmp_path / "thick", 5.0)
    thick = the_series(tmp_path / "thick")
    assert not is_harmonized(thick)
    checked = check_series(tmp_path / "thick")
    assert (len(checked.acquired), checked.harmonized) == (1, {})
    record, original = (record_of(the_series(f), f) for f in (tmp_path / "thick", source))
    assert not record.is_derived
    assert record.series_uid == record.own_uid == derived.series_uid
    assert record.acquisition == original.acquisition
    assert (record.patient_id, record.study_uid) == (original.patient_id, original.study_uid)
    code, _, err = run("harmonize", tmp_path / "thick", "--model", model, "--out", tmp_path / "out")
    assert code == 0, err
    for keep in ("out", "kept"):
        if keep == "kept":
            arguments = ("--model", model, "--out", tmp_path / keep, "--keep-equipment")
            assert run("harmonize", tmp_path / "thick", *arguments)[0] == 0
        made = the_series(tmp_path / keep)
        assert is_harmonized(made)
        of_made = record_of(made, tmp_path / keep)
        assert of_made.is_derived
        assert (of_made.series_uid, of_made.acquisition) == (derived.series_uid, record.acquisition)
        (group,) = group_by_source([record, of_made])
        assert [each.is_derived for each in group.records] == [False, True]
        (own,) = source_images(dcmread(made.files[0]))
        assert own[0] in derived.uid_map["instances"].values()


def test_a_harmonized_series_stays_one_when_its_slices_become_thicker(tmp_path: Path) -> None:
    volume = only(write_thin(tmp_path / "in"))
    write_derived(volume, volume.hu, tmp_path / "harmonized", DERIVATION)
    derived = resampled(tmp_path / "harmonized", tmp_path / "out")
    assert is_derived_here(dcmread(derived.files[0]))
    record = record_of(the_series(tmp_path / "out"), tmp_path / "out")
    assert record.acquisition == volume.acquisition
    assert record.harmonized_to == DERIVATION.target


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_nifti_keeps_its_order_of_axes(tmp_path: Path, axes: str) -> None:
    path = write_scan(tmp_path / "in" / "a.nii", axes)
    derived = resampled(path, tmp_path / "out", 10.0)
    (written,) = derived.files
    assert written.name == "a_resampled.nii"
    volume = only(written)
    expected = scan_hu().reshape(3, 2, *scan_hu().shape[1:]).mean(axis=1)
    assert np.abs(volume.hu - expected).max() <= 0.5
    where = volume.geometry
    np.testing.assert_allclose(where.z_mm, FIRST_MM[2] + STEPS_MM[0] * (0.5 + 2 * np.arange(3)))
    np.testing.assert_allclose(where.positions_mm[:, :2], [FIRST_MM[:2]] * 3)
    assert where.pixel_mm == pytest.approx(STEPS_MM[1:])
    before, after = nib.load(path), nib.load(written)
    assert nib.aff2axcodes(after.affine) == nib.aff2axcodes(before.affine) == tuple(axes)
    np.testing.assert_allclose(after.header.get_qform(), after.header.get_sform(), atol=1e-4)
    np.testing.assert_allclose(
        after.header.get_zooms(), np.linalg.norm(after.affine[:3, :3], axis=0), rtol=1e-6
    )
    assert after.header.extensions == before.header.extensions
    assert after.header["cal_max"] == 300
    assert bytes(after.header["descrip"].tobytes()).startswith(b"cvsct resampled, research use")


@pytest.mark.parametrize("coded", ["sform_code", "qform_code"])
@pytest.mark.parametrize("version", [1, 2])
def test_nifti_with_one_affine_of_any_version(tmp_path: Path, coded: str, version: int) -> None:
    other = "qform_code" if coded == "sform_code" else "sform_code"
    path = write_scan(tmp_path / "a.nii.gz", "PIR", version=version, **{other: 0})
    (written,) = resampled(path, tmp_path / "out", 15.0).files
    assert written.name == "a_resampled.nii.gz"
    back = nib.load(written)
    assert (int(back.header[coded]), int(back.header[other])) == (1, 0)
    assert only(written).geometry.z_mm == pytest.approx([FIRST_MM[2] + 5, FIRST_MM[2] + 20])
    again = resampled(path, tmp_path / "again", 15.0)
    assert again.files[0].read_bytes() == written.read_bytes()


def test_nifti_padding_and_scaling(tmp_path: Path) -> None:
    hu = scan_hu() + 0.5
    hu[:, 0], hu[1, 1], hu[2:, 2] = -3024.5, -2000.5, -2000.5
    path = write_scan(tmp_path / "a.nii", "RAS", hu=hu, dtype="<f4")
    (written,) = resampled(path, tmp_path / "out", 10.0).files
    stored = open_nifti(written).stored
    assert (stored[:, 0] == -3024.5).all()
    np.testing.assert_allclose(stored[0, 1], hu[0, 1])
    assert (stored[1:, 2] == -2000.5).all()
    np.testing.assert_allclose(stored[0, 3], hu[:2, 3].mean(axis=0), atol=1e-4)


def test_a_thicker_nifti_is_its_scanners_and_a_harmonized_one_of_it_is_not(
    run: Run, model: Path, tmp_path: Path
) -> None:
    path = write_scan(tmp_path / "in" / "DOE.nii.gz")
    (thick,) = cvsct.resample_series(path, tmp_path / "thick", 10.0).files
    assert not is_harmonized(the_series(thick))
    record = record_of(the_series(thick), thick)
    assert (record.is_derived, record.patient_id) == (False, "DOE")
    assert record.series_uid == record.own_uid
    code, _, err = run("harmonize", thick, "--model", model, "--out", tmp_path / "out")
    assert code == 0, err
    made = the_series(tmp_path / "out")
    assert is_harmonized(made)
    of_made = record_of(made, tmp_path / "out")
    assert (of_made.is_derived, of_made.series_uid) == (True, record.own_uid)
    stack = open_nifti(path)
    writer = NiftiWriter(tmp_path / "harmonized", DERIVATION, stack, "DOE")
    writer.write(stack.read(), stack.read().hu)
    (harmonized,) = writer.finish().files
    (both,) = resampled(harmonized, tmp_path / "both", 10.0).files
    assert is_harmonized(the_series(both))


def test_the_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    def damaged(ds: Dataset, i: int) -> None:
        if i == 12:
            ds.PixelData = ds.PixelData[:-100]

    source = write_thin(tmp_path / "in", damaged)
    with pytest.raises(SeriesError, match="cut short"):
        cvsct.resample_series(source, tmp_path / "out", 5.0)
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    sound = write_thin(tmp_path / "sound")
    derived = cvsct.resample_series(find_series(sound)[0], tmp_path / "out", 10.0, spacing_mm=5.0)
    assert all(file.is_file() for file in derived.files)
    assert read_series(find_series(derived.folder)[0]).geometry.spacing_mm == 5.0
    with pytest.raises(UsageError, match="exists already"):
        cvsct.resample_series(sound, tmp_path / "out", 5.0)
    with pytest.raises(CvsctError, match="2 series here"):
        write_thin(tmp_path / "sound" / "b", series="1.2.5")
        cvsct.resample_series(sound, tmp_path / "third", 5.0)


def test_training_takes_thicker_slices_as_scans(run: Run, scans: Path, tmp_path: Path) -> None:
    for side in ("sharp", "soft"):
        cvsct.resample_series(scans / side, tmp_path / side / "series", 10.0)
    sides = ("--source", tmp_path / "sharp", "--target", tmp_path / "soft")
    code, _, err = run("train", "input", *sides, "--out", tmp_path / "model")
    assert code == 0, err
