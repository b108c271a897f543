"""What lies under a path: nothing is left out without a word, and lost slices give exit code 3."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cvsct.core.errors import SeriesError
from cvsct.io.catalog import catalog, find_series
from cvsct.io.dicom.header import is_dicom
from cvsct.io.file_kinds import kind_of
from cvsct.io.read import read_all
from tests.support.commands import Run
from tests.support.dicom_files import only, slice_dataset, stored_values, write_series, write_slice
from tests.support.nifti_files import scan_hu, write_scan


def told(path: Path) -> list[str]:
    return [str(each) for each in catalog(path).left_out]


def suffixless(folder: Path, count: int = 6) -> list[Path]:
    """A series as archives name it: IM1, IM2 and so on."""
    write_series(folder, count)
    return [
        file.rename(file.with_name(f"IM{i + 1}")) for i, file in enumerate(sorted(folder.iterdir()))
    ]


def test_linked_folders_are_followed_each_once(tmp_path: Path) -> None:
    for i in range(3):
        write_series(tmp_path / "store" / f"P{i}", 2, series=f"1.2.{i}")
    mixed, links = tmp_path / "mixed", tmp_path / "links"
    mixed.mkdir()
    links.mkdir()
    write_series(mixed / "P0", 2, series="1.2.0")
    for i in range(3):
        (links / f"P{i}").symlink_to(tmp_path / "store" / f"P{i}")
        if i:
            (mixed / f"P{i}").symlink_to(Path("..") / "store" / f"P{i}")
    for tree in (mixed, links):
        assert [s.series_uid for s in find_series(tree)] == ["1.2.0", "1.2.1", "1.2.2"]
        assert told(tree) == []
    (links / "again").symlink_to(tmp_path / "store" / "P1")
    (links / "up").symlink_to(links)
    (tmp_path / "store" / "P2" / "top").symlink_to(links)
    assert len(find_series(links)) == 3
    assert sorted(told(links)) == [
        "1 second name of a file or folder that is here already",
        "2 linked folders that lead back",
    ]


def test_a_link_that_leads_nowhere_may_be_a_scan(run: Run, tmp_path: Path) -> None:
    """As git-annex leaves content that was not fetched, or a disk that is not mounted."""
    write_series(tmp_path / "in" / "a", 3)
    (tmp_path / "in" / "b").symlink_to(tmp_path / "unmounted")
    (tmp_path / "in" / "a" / "009.dcm").symlink_to(tmp_path / "annex" / "object")
    code, _, err = run("inspect", tmp_path / "in")
    assert code == 3
    assert "may be incomplete, left out: 2 links that lead nowhere" in err


def test_a_file_under_two_names_is_one(tmp_path: Path) -> None:
    files = suffixless(tmp_path, 3)
    (tmp_path / "latest").symlink_to(files[2])
    (tmp_path / "hard").hardlink_to(files[1])
    assert only(tmp_path).hu.shape[0] == 3
    assert told(tmp_path) == ["2 second names of files or folders that are here already"]


@pytest.mark.parametrize("keep", [0, 1, 100, 131])
@pytest.mark.parametrize("rename", ["IM{}", "1.2.840.{}", "{}.dcm"])
def test_a_download_that_broke_off_is_told(
    run: Run, model: Path, tmp_path: Path, keep: int, rename: str
) -> None:
    files = [
        file.rename(file.with_name(rename.format(i)))
        for i, file in enumerate(suffixless(tmp_path / "in"))
    ]
    for file in files[-2:]:
        file.write_bytes(file.read_bytes()[:keep])
    code, out, err = run("inspect", tmp_path / "in")
    assert code == 3, err
    if not rename.endswith(".dcm"):
        assert "warning: a scan may be incomplete, left out: 2 " in err
        assert "named like slices" in err
    code, out, err = run("harmonize", tmp_path / "in", "--model", model, "--out", tmp_path / "out")
    assert code == 3
    assert "1 series, 4 slices" in out


def test_foreign_files_beside_slices_are_no_lost_slices(run: Run, tmp_path: Path) -> None:
    suffixless(tmp_path)
    (tmp_path / "README").write_text("scans of scanner A\n")
    (tmp_path / "done.flag").write_bytes(b"")
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(500))
    code, _, err = run("inspect", tmp_path)
    assert code == 0
    assert "left out: " in err
    for each in ("1 text file", "1 empty file", "1 file of an unknown kind"):
        assert each in err


def test_what_lies_beside_scans_is_told_with_counts(run: Run, tmp_path: Path) -> None:
    write_series(tmp_path / "scan", 3)
    for i in range(2):
        write_scan(tmp_path / f"mask{i}.nii.gz", scaling=(1, float(i)))
    for name, sop_class in (("rs", "1.2.840.10008.5.1.4.1.1.481.3"),
                            ("seg", "1.2.840.10008.5.1.4.1.1.66.4")):  # fmt: skip
        ds = slice_dataset(0, stored_values(1)[0], series=f"1.9.{len(name)}")
        ds.SOPClassUID = sop_class
        write_slice(tmp_path / f"{name}.dcm", ds)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("a", "b")
    code, out, err = run("inspect", tmp_path, "--json")
    assert code == 0
    assert len(json.loads(out)) == 1
    (line,) = [line for line in err.splitlines() if line.startswith("left out")]
    for each in ("2 NIfTI beside DICOM (name them,", "1 RT structure set;", "1 DICOM segmentation",
                 "1 zip archive (unpack it)"):  # fmt: skip
        assert each in f"{line};"
    code, _, err = run("train", "input", "--source", tmp_path, "--target", tmp_path / "scan",
                       "--out", tmp_path / "m")  # fmt: skip
    assert code == 2, "one series on both sides"
    code, _, err = run("--verbose", "inspect", tmp_path)
    assert str(tmp_path / "more.zip") in err


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("meta", [False, True])
def test_data_sets_without_preamble_are_read(
    run: Run, model: Path, tmp_path: Path, syntax: str, meta: bool
) -> None:
    wanted = only(write_series(tmp_path / "whole", 3, syntax=syntax))
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in (tmp_path / "whole").iterdir():
        content = file.read_bytes()[132:]
        if not meta:
            length = dcmread(file).file_meta.FileMetaInformationGroupLength
            content = content[12 + length :]
        (bare / file.stem).write_bytes(content)
    assert all(map(is_dicom, bare.iterdir()))
    np.testing.assert_array_equal(only(bare).hu, wanted.hu)
    code, _, err = run("harmonize", bare, "--model", model, "--out", tmp_path / "out", "--nifti")
    assert code == 0, err
    (twin,) = (tmp_path / "out").rglob("*.nii.gz")
    assert twin.stat().st_size
    derived = [dcmread(file) for file in (tmp_path / "out").rglob("*.dcm")]
    assert {ds.PatientID for ds in derived} == {"P1"}


@pytest.mark.parametrize(
    "content",
    [
        b"\x08\x00\x16\x00UI\x1a\x00",
        b"\x08\x00\x05\x00" + b"\xff" * 60,
        b"\x08\x00\x05\x00CS\x00\x00" * 3,
        bytes(200),
        b"\x10\x00\x10\x00PN\x04\x00A^B ",
    ],
)
def test_other_bytes_are_no_data_set(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert not is_dicom(tmp_path / "x")


def test_two_patients_nifti_of_the_same_bytes_are_both_refused(
    run: Run, model: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "in"
    a = write_scan(tree / "scan_1.nii.gz")
    (tree / "deep").mkdir()
    (tree / "deep" / "scan_2.nii.gz").write_bytes(a.read_bytes())
    write_scan(tree / "scan_3.nii.gz", hu=scan_hu() + 1)
    code, out, err = run("inspect", tree)
    assert code == 3
    assert "scan_1.nii.gz: holds the same bytes as scan_2.nii.gz" in err
    assert "scan_2.nii.gz: holds the same bytes as scan_1.nii.gz" in err
    code, out, err = run("harmonize", tree, "--model", model, "--out", tmp_path / "out")
    assert code == 3
    assert "1 series, 6 slices" in out
    assert err.count("holds the same bytes as") == 1
    assert "(and 1 more like it)" in err


MISNAMED = {
    "scan.nrrd": (b"NRRD0004\ntype: short\n", "NRRD image, which is not read; convert it to NIfTI"),
    "scan.mha": (b"ObjectType = Image\nNDims = 3\n", "MetaImage (MHA, MHD), which is not read"),
    "scan.mhd": (b"NDims = 3\nDimSize = 4 4 4\n", "convert it to NIfTI"),
    "scan.zip": (b"PK\x03\x04" + bytes(60), "zip archive, which is not read; unpack it"),
    "scan.tar": (bytes(257) + b"ustar\x0000" + bytes(300), "tar archive"),
    "scan.dcm": (b"\xff\xd8\xff\xe0" + bytes(300), "not a DICOM file (JPEG picture)"),
    "scan.txt": (b"hello", "not a DICOM file (text file)"),
    "scan": (b"", "not a DICOM file (empty file)"),
}


@pytest.mark.parametrize("name", MISNAMED)
def test_files_of_other_kinds_are_told_by_their_bytes(run: Run, tmp_path: Path, name: str) -> None:
    content, expected = MISNAMED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SeriesError) as refusal:
        find_series(tmp_path / name)
    assert expected in str(refusal.value)
    code, _, err = run("inspect", tmp_path)
    assert code == 1
    if not name.endswith(".dcm"):
        assert kind_of(tmp_path / name).one in err


def test_gzip_is_told_by_its_bytes(run: Run, model: Path, tmp_path: Path) -> None:
    plain = write_scan(tmp_path / "plain.nii")
    (tmp_path / "in").mkdir()
    misnamed = tmp_path / "in" / "plain.nii.gz"
    misnamed.write_bytes(plain.read_bytes())
    packed = tmp_path / "in" / "packed.nii"
    packed.write_bytes(gzip.compress(write_scan(tmp_path / "b.nii", hu=scan_hu() - 1).read_bytes()))
    np.testing.assert_array_equal(only(misnamed).hu, scan_hu())
    np.testing.assert_array_equal(only(packed).hu, scan_hu() - 1)
    code, _, err = run("harmonize", tmp_path / "in", "--model", model, "--out", tmp_path / "out")
    assert code == 0, err
    names = sorted(path.name for path in (tmp_path / "out").rglob("*.nii*"))
    assert names == ["packed_harmonized.nii.gz", "plain_harmonized.nii"]
    hu = {volume.hu[0, 0, 0] for volume in read_all(tmp_path / "out")}
    assert hu == {scan_hu()[0, 0, 0], scan_hu()[0, 0, 0] - 1}


@pytest.mark.parametrize("compressed", [False, True])
def test_a_flat_nifti_is_one_slice(run: Run, model: Path, tmp_path: Path, compressed: bool) -> None:
    hu = scan_hu()[0].T.astype(np.int16)
    path = tmp_path / f"flat.nii{'.gz' if compressed else ''}"
    nib.save(nib.Nifti1Image(hu, np.diag([-0.5, -0.75, 5.0, 1.0])), path)
    volume = only(path)
    assert volume.hu.shape == (1, *scan_hu()[0].shape)
    code, _, err = run("harmonize", path, "--model", model, "--out", tmp_path / "out")
    assert code == 0, err
    (written,) = (tmp_path / "out").rglob("*.nii*")
    np.testing.assert_array_equal(np.asarray(nib.load(written).dataobj), hu)
