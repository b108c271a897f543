"""Files are told by what they hold, not by their names, and a message says what to do with them."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cvsct.core.errors import CvsctError
from cvsct.io.catalog import catalog, find_series
from cvsct.io.nifti.read import open_nifti
from cvsct.io.nifti.write import NiftiWriter
from cvsct.io.read import read_all
from tests.support.dicom_files import DERIVATION, only, slice_dataset, stored_values, write_slice
from tests.support.nifti_files import scan_hu, write_scan


def _zip() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("a", "b")
    return held.getvalue()


def _tar() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return held.getvalue()


ANALYZE = (348).to_bytes(4, "little") + bytes(344)
NPY = io.BytesIO()
np.save(NPY, np.zeros(3))
CONVERT, UNPACK = "convert it to NIfTI", "unpack it"
KINDS = {
    "nrrd": (b"NRRD0004\ntype: short\n", "NRRD image", CONVERT),
    "seg.nrrd": (b"NRRD0005\n", "NRRD image", CONVERT),
    "mha": (b"ObjectType = Image\nNDims = 3\n", "MetaImage (MHA, MHD)", CONVERT),
    "mhd": (b"Comment = x\nNDims = 3\nDimSize = 1 1 1\n", "MetaImage (MHA, MHD)", CONVERT),
    "zip": (_zip(), "zip archive", UNPACK),
    "tar": (_tar(), "tar archive", UNPACK),
    "tgz": (gzip.compress(_tar()), "tar archive", UNPACK),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(30), "7z archive", UNPACK),
    "rar": (b"Rar!\x1a\x07\x01\x00", "rar archive", UNPACK),
    "hdr": (ANALYZE, "Analyze image", CONVERT),
    "pair.hdr": (ANALYZE[:344] + b"ni1\0", "NIfTI header of a pair", "save it as one .nii file"),
    "mnc": (b"CDF\x01" + bytes(30), "MINC image", CONVERT),
    "h5": (b"\x89HDF\r\n\x1a\n" + bytes(30), "HDF5 file", CONVERT),
    "npy": (NPY.getvalue(), "NumPy file", CONVERT),
    "dcm.gz": (gzip.compress(bytes(128) + b"DICM"), "gzip-compressed DICOM file", UNPACK),
    "jpg": (b"\xff\xd8\xff\xe0" + bytes(30), "JPEG picture", ""),
    "png": (b"\x89PNG\r\n\x1a\n", "PNG picture", ""),
    "pdf": (b"%PDF-1.4", "PDF document", ""),
    "txt": (b"seen on Monday", "text file", ""),
    "empty": (b"", "empty file", ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("named", ["as it is", "scan.dcm", "IM1"])
def test_a_single_file_is_told_by_what_it_holds(tmp_path: Path, kind: str, named: str) -> None:
    content, name, remedy = KINDS[kind]
    path = tmp_path / (f"a.{kind}" if named == "as it is" else named)
    path.write_bytes(content)
    with pytest.raises(CvsctError) as caught:
        find_series(path)
    said = str(caught.value)
    if remedy:
        assert f": {name}" in said
        assert f", which is not read; {remedy}" in said
    else:
        assert f": not a DICOM file ({name}); " in said
        assert ("remove it" in said) == bool(content)
    assert "DICM" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_named_nifti_is_told_by_what_it_holds(tmp_path: Path, kind: str) -> None:
    content, name, remedy = KINDS[kind]
    for file in ("a.nii", "a.nii.gz"):
        (tmp_path / file).write_bytes(content)
        with pytest.raises(CvsctError) as caught:
            find_series(tmp_path / file)
        assert f"{file}: not a NIfTI file of one part ({name}" in str(caught.value)
        otherwise = "copy it again" if not content else "save the scan as .nii or .nii.gz"
        assert f"; {remedy or otherwise}" in str(caught.value)


def test_in_a_folder_files_of_other_formats_are_counted_with_what_to_do(tmp_path: Path) -> None:
    for name, (content, *_) in KINDS.items():
        (tmp_path / f"a.{name}").write_bytes(content)
    with pytest.raises(CvsctError) as caught:
        find_series(tmp_path)
    for part in (
        "2 NRRD images (convert them to NIfTI)",
        "2 MetaImages (MHA, MHD) (convert them to NIfTI)",
        "1 zip archive (unpack it)",
        "2 tar archives (unpack them)",
        "1 NIfTI header of a pair (hdr, img) (save it as one .nii file)",
        "1 gzip-compressed DICOM file (unpack it)",
    ):
        assert part in str(caught.value)
    write_slice(tmp_path / "slice.dcm", slice_dataset(0, stored_values(1)[0]))
    assert not catalog(tmp_path).incomplete


@pytest.mark.parametrize("name", ["scan", "scan.img", "scan.NIFTI"])
def test_nifti_of_another_name_is_told(tmp_path: Path, name: str) -> None:
    shutil.copy(write_scan(tmp_path / "a.nii"), tmp_path / name)
    (tmp_path / "a.nii").unlink()
    with pytest.raises(
        CvsctError, match=r"NIfTI file of another name, which is not read; name it \.nii\.gz"
    ):
        find_series(tmp_path / name)


@pytest.mark.parametrize("packed", [True, False])
def test_nifti_is_inflated_by_its_bytes_not_by_its_name(tmp_path: Path, packed: bool) -> None:
    right = write_scan(tmp_path / ("a.nii.gz" if packed else "a.nii"))
    wrong = tmp_path / ("b.nii" if packed else "b.nii.gz")
    shutil.move(right, wrong)
    np.testing.assert_array_equal(only(wrong).hu, scan_hu())
    stack = open_nifti(wrong)
    writer = NiftiWriter(tmp_path / "out", DERIVATION, stack, "b")
    part = stack.read()
    writer.write(part, part.hu + 1)
    (written,) = writer.finish().files
    assert written.name == f"b_harmonized.nii{'.gz' if packed else ''}"
    assert (written.read_bytes()[:2] == b"\x1f\x8b") is packed
    np.testing.assert_array_equal(only(written).hu, scan_hu() + 1)
    np.testing.assert_array_equal(np.asarray(nib.load(written).dataobj).T, scan_hu() + 1)


def test_a_bomb_is_found_out_whatever_its_name(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.nii.gz", hu=np.full((40, 128, 128), -1000))
    path.rename(tmp_path / "a.nii")
    with pytest.raises(CvsctError, match=r"^a\.nii: \d+ bytes declare 1310720 bytes"):
        read_all(tmp_path / "a.nii")


@pytest.mark.parametrize("no_third_axis", [True, False])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_2d_image_is_one_slice_and_written_back_as_one(
    tmp_path: Path, suffix: str, no_third_axis: bool
) -> None:
    hu = scan_hu()[2]
    third = 0.0 if no_third_axis else 5.0
    affine = np.array([[-0.5, 0, 0, 100], [0, -0.75, 0, 120], [0, 0, third, 40], [0, 0, 0, 1]])
    image = nib.Nifti1Image(hu.T.astype("<i2"), None)
    image.header.set_xyzt_units("mm")
    image.header.set_sform(affine, code=1)
    nib.save(image, tmp_path / f"flat.{suffix}")
    assert nib.load(tmp_path / f"flat.{suffix}").ndim == 2
    volume = only(tmp_path / f"flat.{suffix}")
    np.testing.assert_array_equal(volume.hu, hu[None])
    assert volume.geometry.pixel_mm == pytest.approx((0.75, 0.5))
    np.testing.assert_allclose(volume.geometry.positions_mm, [[-100, -120, 40]])
    assert abs(volume.geometry.normal[2]) == pytest.approx(1)
    stack = open_nifti(tmp_path / f"flat.{suffix}")
    writer = NiftiWriter(tmp_path / "out", DERIVATION, stack)
    part = stack.read()
    writer.write(part, part.hu - 3)
    (written,) = writer.finish().files
    back = nib.load(written)
    assert back.shape == hu.T.shape
    np.testing.assert_array_equal(np.asarray(back.dataobj), hu.T - 3)
