"""Stored pixel values to CT numbers: padding, sign, rescale, overlays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from cvsct.core.volume import AIR_FLOOR_HU
from cvsct.io.dicom.write import write_derived
from tests.support.dicom_files import (
    COLUMNS,
    DERIVATION,
    ROWS,
    only,
    signed,
    stored_values,
    write_series,
)


@pytest.mark.parametrize("padding", [-2000, -2048, -32768])
@pytest.mark.parametrize("declared", [True, False])
def test_padding_is_air_and_marked(tmp_path: Path, padding: int, declared: bool) -> None:
    values = stored_values(1)[0]
    values[:3] = padding

    def change(ds: Dataset, i: int) -> None:
        signed(ds, values)
        if declared:
            ds.add_new("PixelPaddingValue", "SS", padding)

    volume = only(write_series(tmp_path, 1, change=change))
    assert volume.padding is not None
    assert (volume.hu[0, :3] == AIR_FLOOR_HU).all()
    np.testing.assert_array_equal(volume.padding[0], values == padding)
    np.testing.assert_array_equal(volume.hu[0, 3:], values[3:] - 1024)
    assert [part.tolist() for part in volume.padding_stored] == [[padding]]


@pytest.mark.parametrize(
    ("vr", "value", "pixels_signed"), [("SS", -2000, False), ("US", 63536, True)]
)
def test_padding_declared_with_the_wrong_sign(
    tmp_path: Path, vr: str, value: int, pixels_signed: bool
) -> None:
    values = stored_values(1)[0]
    values[0] = -2000

    def change(ds: Dataset, i: int) -> None:
        signed(ds, values)
        if not pixels_signed:
            ds.PixelRepresentation = 0
        ds.add_new("PixelPaddingValue", vr, value)

    volume = only(write_series(tmp_path, 1, change=change))
    assert volume.padding is not None
    np.testing.assert_array_equal(volume.padding[0], values == -2000)
    np.testing.assert_array_equal(volume.hu[0, 1:], values[1:] - 1024)


def test_padding_range(tmp_path: Path) -> None:
    values = stored_values(1)[0]
    values[:6] = np.array([0, 5, 10])[:, None].repeat(2, 0)
    values[6, :3] = [0, 11, 10]

    def change(ds: Dataset, i: int) -> None:
        ds.PixelData = values.astype("<u2").tobytes()
        ds.PixelPaddingValue, ds.PixelPaddingRangeLimit = 0, 10

    volume = only(write_series(tmp_path, 1, change=change))
    assert volume.padding is not None
    assert volume.padding[0, :6].all()
    assert not volume.padding[0, 6:].any()
    assert volume.hu[0, 6, :3].tolist() == [-1024, -1013, -1014]


def test_clipped_air_is_measured_where_padding_is_the_lowest_ct_number(tmp_path: Path) -> None:
    """Padding of -1024 HU is also what a sharp kernel clips air to: only areas are padding."""
    values = stored_values(1, low=0, high=3)[0]
    values[:8, :8] = 0

    def change(ds: Dataset, i: int) -> None:
        ds.PixelData = values.astype("<u2").tobytes()
        ds.PixelPaddingValue = 0

    volume = only(write_series(tmp_path / "in", 1, change=change))
    assert volume.padding is not None
    assert volume.padding[0, :8, :8].all()
    lone = (values == 0) & ~volume.padding[0]
    assert lone.sum() > 100
    hu = volume.hu + np.where(volume.hu == -1023, -1, 0).astype(np.float32)
    written = write_derived(volume, hu, tmp_path / "out", DERIVATION)
    stored = dcmread(written.files[0]).pixel_array
    np.testing.assert_array_equal(stored[values == 0], 0)
    np.testing.assert_array_equal(stored[values == 1], 1)


def test_what_scanners_write_is_tolerated(tmp_path: Path) -> None:
    def change(ds: Dataset, i: int) -> None:
        ds.PhotometricInterpretation = "MONOCHROME1"
        ds.RescaleSlope, ds.RescaleIntercept = "0.5", "-1000"
        ds.ConvolutionKernel = ["Br40d", "3"]
        ds.SliceThickness = None
        del ds.FrameOfReferenceUID

    path = write_series(tmp_path, 2, change=change)
    for file in path.iterdir():
        file.write_bytes(file.read_bytes().replace(b"DS\x04\x00120 ", b"DS\x04\x000140"))
    volume = only(path)
    np.testing.assert_array_equal(volume.hu, stored_values(2) * 0.5 - 1000)
    assert volume.acquisition.kernel == "Br40d\\3"
    assert volume.acquisition.kvp == 140
    assert volume.geometry.thickness_mm == 0


def _nameless(ds: Dataset, i: int) -> None:
    ds.ConvolutionKernel, ds.KVP = "", None


def test_empty_kernel_and_tube_voltage(tmp_path: Path) -> None:
    volume = only(write_series(tmp_path, 1, change=_nameless))
    assert (volume.acquisition.kernel, volume.acquisition.kvp) == ("", 0.0)


def test_overlay_in_the_unused_bits_is_not_hu(tmp_path: Path) -> None:
    values = stored_values(1)[0]

    def change(ds: Dataset, i: int) -> None:
        ds.PixelData = (values | 0x1000).astype("<u2").tobytes()
        for tag, vr, value in [(0x0010, "US", ROWS), (0x0011, "US", COLUMNS), (0x0102, "US", 12)]:
            ds.add_new((0x6000, tag), vr, value)

    np.testing.assert_array_equal(
        only(write_series(tmp_path, 1, change=change)).hu[0], values - 1024
    )


@pytest.mark.parametrize("extended", [True, False])
def test_signed_values_of_12_bits(tmp_path: Path, extended: bool) -> None:
    values = stored_values(1)[0] - 1024

    def change(ds: Dataset, i: int) -> None:
        ds.PixelRepresentation, ds.RescaleIntercept = 1, "0"
        ds.PixelData = (values if extended else values & 0xFFF).astype("<i2").tobytes()

    np.testing.assert_array_equal(only(write_series(tmp_path, 1, change=change)).hu[0], values)
