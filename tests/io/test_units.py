"""CT numbers in HU: which units and images are, which are not, and each slice's own rescale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from cvsct.core.errors import SeriesError
from cvsct.io.dicom.stack import open_stack
from cvsct.io.dicom.write import write_derived
from cvsct.io.nifti.write import write_nifti
from cvsct.io.read import find_series, read_facts
from cvsct.io.series import open_series
from tests.conftest import phantom_hu
from tests.faults.geometries import setting
from tests.io.test_enhanced import ORDER, enhanced
from tests.support.commands import Run
from tests.support.dicom_files import (
    DERIVATION,
    Change,
    only,
    signed,
    stored_values,
    write_series,
    write_slice,
)


@pytest.mark.parametrize(
    "word",
    [
        *("HU", "hu", " Hu ", "H.U.", "[HU]", "HOUNSFIELD", "Hounsfield Unit", "Houndsfield Unit"),
        *("hounsfield_units", "Hounsfeld Units", "Hounsfield Unit (HU)", "CT Number HU", ""),
    ],
)
def test_spellings_of_the_unit_are_read(tmp_path: Path, word: str) -> None:
    volume = only(write_series(tmp_path, 2, change=setting(RescaleType=word)))
    np.testing.assert_array_equal(volume.hu, stored_values(2) - 1024)
    assert volume.notes == ()


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("MGML", r"MGML \(mg/ml\)"),
        ("Z_EFF", r"Z_EFF \(effective atomic number\)"),
        ("ED", r"ED \(electron density\)"),
        ("EDW", "EDW"),
        ("PCT", "PCT"),
        ("HU_MOD", r"HU_MOD \(modified Hounsfield units"),
        ("g/cm3", "G/CM3"),
        ("DOE JOHN", "a word that is no known unit"),
        ("HU of Doe", "a word that is no known unit"),
    ],
)
def test_other_units_are_refused_and_only_words_of_units_told(
    tmp_path: Path, word: str, told: str
) -> None:
    with pytest.raises(SeriesError, match=rf"Rescale Type is not HU but {told}") as refused:
        only(write_series(tmp_path, 2, change=setting(RescaleType=word)))
    assert "DOE" not in str(refused.value).upper()


def _values(ds: Dataset, values: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> None:
    """Store values in units of their own, 16 bits unsigned."""
    ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    ds.BitsStored, ds.HighBit = 16, 15
    stored = np.rint((values - intercept) / slope).clip(0, 65535)
    ds.PixelData = stored.astype("<u2").tobytes()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("EFF_ATOMIC_NUM", "effective atomic number"),
        ("MAT_SPECIFIC", "a map of one material"),
        ("MAT_FRACTIONAL", "fraction"),
        ("MAT_MODIFIED", "modified"),
        ("MAT_VALUE_BASED", "selected"),
        ("ELECTRON_DENSITY", "electron density"),
        ("SUBTRACTION", "difference"),
        ("IODINE MAP", "a map of one material"),
        ("Z_EFF", "effective atomic number"),
        ("WATER(IODINE)", "a map of one material"),
        ("CT_CBF", "perfusion"),
    ],
)
def test_maps_are_refused_by_image_type(tmp_path: Path, value: str, told: str) -> None:
    kinds = ["DERIVED", "SECONDARY", "AXIAL", value]

    def change(ds: Dataset, i: int) -> None:
        ds.add_new("ImageType", "LO", kinds)  # as makers write it: CS takes no small letters

    folder = write_series(tmp_path, 3, change=change)
    (series,) = find_series(folder)
    for reads in (open_series, read_facts):
        with pytest.raises(SeriesError, match=rf"{told}.*, no HU; name"):
            reads(series)


@pytest.mark.parametrize("value", ["VMI", "MONOENERGETIC", "ENERGY_PROP_WT", "CT_SOM5 SPI"])
def test_virtual_monoenergetic_and_plain_images_are_read(tmp_path: Path, value: str) -> None:
    kinds = ["DERIVED", "PRIMARY", "AXIAL", value]
    assert only(write_series(tmp_path, 2, change=setting(ImageType=kinds))).notes == ()


@pytest.mark.parametrize("value", ["MAT_REMOVED", "VNC"])
def test_virtual_non_contrast_is_read_and_noted(tmp_path: Path, value: str) -> None:
    kinds = ["DERIVED", "SECONDARY", "AXIAL", value]
    (note,) = only(write_series(tmp_path, 2, change=setting(ImageType=kinds))).notes
    assert "as if a material were absent" in note


def test_a_real_world_value_mapping_tells_the_unit(tmp_path: Path) -> None:
    def change_to(code: str) -> Change:
        def change(ds: Dataset, i: int) -> None:
            unit, mapping = Dataset(), Dataset()
            unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = code, "UCUM", "x"
            mapping.MeasurementUnitsCodeSequence = [unit]
            ds.RealWorldValueMappingSequence = [mapping]

        return change

    assert len(only(write_series(tmp_path / "hu", 2, change=change_to("[hnsf'U]"))).hu) == 2
    with pytest.raises(SeriesError, match="Real World Value Mapping names another unit"):
        only(write_series(tmp_path / "mg", 2, change=change_to("mg/cm3")))


def _body(slices: int = 3) -> np.ndarray:
    return phantom_hu(1, 0.5, slices, 64)


MAPS = {
    "effective Z": lambda hu: (np.clip((hu + 1000) / 1000 * 7.4, 0, 20), 0.01, 0.0),
    "iodine": lambda hu: (np.clip((hu - 40) / 25, 0, None), 0.1, 0.0),
    "density g/cm3": lambda hu: (np.clip((hu + 1000) / 1000, 0, 3), 0.0001, 0.0),
    "water mg/ml": lambda hu: (np.clip(hu + 1000, 0, 2000), 1.0, 0.0),
    "with CT's intercept": lambda hu: (np.clip(hu, 0, 20), 1.0, -1024.0),
}


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("unit", [None, "US", "HU"])
def test_maps_without_any_mark_are_refused_by_their_values(
    tmp_path: Path, kind: str, unit: str | None
) -> None:
    hu = _body()

    def change(ds: Dataset, i: int) -> None:
        _values(ds, *MAPS[kind](hu[i]))
        if unit:
            ds.RescaleType = unit

    folder = write_series(tmp_path, change=change, stored=hu.astype(int))
    with pytest.raises(SeriesError, match=r"no HU: values from 0 to .*expected air near -1000"):
        only(folder)


def test_frames_that_are_a_map_are_refused(tmp_path: Path) -> None:
    marked, plain = enhanced(), enhanced()
    kinds = ["DERIVED", "PRIMARY", "VOLUME", "EFF_ATOMIC_NUM"]
    shared = marked.SharedFunctionalGroupsSequence[0]
    shared.CTImageFrameTypeSequence[0].FrameType = kinds
    for group in plain.PerFrameFunctionalGroupsSequence:
        group.PixelValueTransformationSequence[0].RescaleIntercept = 0
    with pytest.raises(SeriesError, match="frame 1: a map of the effective atomic number"):
        only(write_slice(tmp_path / "marked" / "a.dcm", marked))
    with pytest.raises(SeriesError, match="no HU: values from 24"):
        only(write_slice(tmp_path / "plain" / "a.dcm", plain))


def test_a_map_in_the_round_field_of_view_is_refused(tmp_path: Path) -> None:
    """Corners of -1024 are no air: nothing was measured there."""
    hu = np.clip(_body(), 0, 20)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    hu[:, x**2 + y**2 > 1] = -1024
    with pytest.raises(SeriesError, match="no HU: values from 0 to 20"):
        only(write_series(tmp_path, stored=(hu + 1024).astype("<u2")))


def test_one_part_of_a_series_that_is_a_map_is_found(tmp_path: Path) -> None:
    hu = _body(9)

    def change(ds: Dataset, i: int) -> None:
        if i in (1, 2):
            _values(ds, np.clip(hu[i], 0, None), 0.1)

    with pytest.raises(SeriesError, match="no HU"):
        only(write_series(tmp_path, change=change, stored=(hu + 1024).astype("<u2")))


def _tissue(slices: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(60, 14, (slices, 48, 48))


@pytest.mark.parametrize("slices", [1, 5])
@pytest.mark.parametrize("padding", [None, -1024, -2000])
def test_a_scan_inside_the_body_is_read(tmp_path: Path, slices: int, padding: int | None) -> None:
    hu = np.rint(_tissue(slices).clip(12, None) + _tissue(slices, 4) * 0.2)
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    if padding is not None:
        hu[:, x**2 + y**2 > 1] = padding

    def change(ds: Dataset, i: int) -> None:
        ds.RescaleIntercept = 0
        signed(ds, hu[i])

    volume = only(write_series(tmp_path, change=change, stored=hu.astype("<i2")))
    assert len(volume.hu) == slices
    assert "no air and no fat" in "".join(volume.notes)


def test_one_slice_with_air_is_enough_to_be_read(tmp_path: Path) -> None:
    hu = np.rint(_tissue(5))
    hu[4, :4] = -1000
    volume = only(write_series(tmp_path, stored=(hu + 1024).astype("<u2")))
    assert volume.notes == ()


def test_an_unspecified_unit_is_hu_where_air_is(tmp_path: Path) -> None:
    stored = (_body() + 1024).astype("<u2")
    volume = only(write_series(tmp_path / "in", stored=stored, change=setting(RescaleType="US")))
    np.testing.assert_array_equal(volume.hu, _body())
    assert volume.notes == (
        "Rescale Type US (unspecified), but air near -1000: values are taken as HU",
    )
    written = write_derived(volume, volume.hu, tmp_path / "out", DERIVATION)
    assert dcmread(written.files[0]).RescaleType == "US"
    with pytest.raises(SeriesError, match=r"Rescale Type US \(unspecified\), expected air"):
        only(
            write_series(
                tmp_path / "fat",
                stored=(np.rint(_tissue(3)) + 924).astype("<u2"),
                change=setting(RescaleType="US"),
            )
        )


RESCALES = ((1.0, -1024.0), (1.0, -2047.0), (0.5, -1024.0), (2.0, -1024.0))
"""Slope and intercept of each slice."""


def _own_rescale(hu: np.ndarray) -> Change:
    def change(ds: Dataset, i: int) -> None:
        slope, intercept = RESCALES[i % len(RESCALES)]
        _values(ds, hu[i], slope, intercept)

    return change


def test_each_slice_has_its_own_rescale_and_keeps_it(tmp_path: Path) -> None:
    hu = np.rint(_body(4) / 2) * 2
    folder = write_series(tmp_path / "own", stored=hu.astype(int), change=_own_rescale(hu))
    common = only(write_series(tmp_path / "common", stored=(hu + 1024).astype("<u2")))
    volume = only(folder)
    np.testing.assert_array_equal(volume.hu, common.hu)
    sources = {ds.SOPInstanceUID: ds for ds in map(dcmread, folder.iterdir())}
    written = write_derived(volume, volume.hu, tmp_path / "out", DERIVATION)
    for file in written.files:
        ds = dcmread(file)
        source = sources[ds.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert (ds.RescaleSlope, ds.RescaleIntercept) == (
            source.RescaleSlope, source.RescaleIntercept,
        )  # fmt: skip
        np.testing.assert_array_equal(ds.pixel_array, source.pixel_array)


def test_the_twin_of_a_series_of_several_rescales_holds_the_same_values(tmp_path: Path) -> None:
    import nibabel as nib

    hu = np.rint(_body(4))
    hu[2] += 0.5  # what only the slice of slope 0.5 can hold
    folder = write_series(tmp_path / "in", stored=hu.astype(int), change=_own_rescale(hu))
    stack = open_stack(find_series(folder)[0])
    write_nifti(stack, tmp_path / "twin.nii.gz")
    twin = np.asarray(nib.load(tmp_path / "twin.nii.gz").dataobj)
    np.testing.assert_array_equal(twin.transpose(2, 1, 0), stack.read().hu)


def test_frames_have_their_own_rescale(tmp_path: Path) -> None:
    ds = enhanced()
    values = stored_values(len(ORDER))[list(ORDER)]
    stored = []
    for i, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        intercept = (-1024, -1000)[i % 2]
        group.PixelValueTransformationSequence[0].RescaleIntercept = intercept
        stored.append(values[i] - 1024 - intercept)
    ds.PixelData = np.array(stored).clip(0).astype("<u2").tobytes()
    volume = only(write_slice(tmp_path / "in" / "a.dcm", ds))
    expected = np.maximum(stored_values(len(ORDER)) - 1024, -1024)
    for slot in range(len(ORDER)):
        floor = (-1024, -1000)[ORDER.index(slot) % 2]
        np.testing.assert_array_equal(volume.hu[slot], np.maximum(expected[slot], floor))
    write_derived(volume, volume.hu, tmp_path / "out", DERIVATION)
    np.testing.assert_array_equal(only(tmp_path / "out").hu, volume.hu)


def test_commands_refuse_a_map_by_name(run: Run, scans: Path, model: Path, tmp_path: Path) -> None:
    hu = _body()

    def change(ds: Dataset, i: int) -> None:
        _values(ds, np.clip(hu[i], 0, 20), 0.1)

    folder = write_series(tmp_path / "map", change=change, stored=hu.astype(int))
    out = tmp_path / "out"
    for arguments in (
        ("inspect", folder),
        ("harmonize", folder, "--model", model, "--out", out),
        ("train", "spectrum", "--source", folder, "--target", scans / "soft", "--out", out),
    ):
        code, _, err = run(*arguments)
        assert code == 1
        assert "no HU: values from 0 to 20" in err
    assert not list(out.rglob("*.dcm"))


def test_harmonized_by_the_input_method_reads_the_same(
    run: Run, model: Path, tmp_path: Path
) -> None:
    hu = np.rint(_body(4) / 2) * 2
    folder = write_series(tmp_path / "in", stored=hu.astype(int), change=_own_rescale(hu))
    code, _, err = run("harmonize", folder, "--model", model, "--out", tmp_path / "out", "--nifti")
    assert code == 0, err
    twin = next((tmp_path / "out").rglob("*.nii.gz"))
    np.testing.assert_array_equal(only(twin).hu, only(folder).hu)
    twin.unlink()
    np.testing.assert_array_equal(only(tmp_path / "out").hu, only(folder).hu)
