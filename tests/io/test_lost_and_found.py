"""Finding scans: every one once, and nothing that could be part of one passed over in silence."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset

from cvsct.core.errors import CvsctError, SeriesError
from cvsct.inference.cohort.shards import Shard, by_key
from cvsct.io.catalog import Catalog, catalog, find_series
from cvsct.io.lost_slices import shape_of
from cvsct.io.read import read_series
from tests.io.test_enhanced import enhanced
from tests.support.dicom_files import slice_dataset, stored_values, write_series, write_slice
from tests.support.nifti_files import scan_hu, write_scan


def told(found: Catalog) -> list[str]:
    """What a user is told was left out."""
    return [str(each) for each in found.left_out]


def n_files(found: Catalog) -> list[int]:
    return [len(each.files) for each in found.series]


def bare_series(folder: Path, n_slices: int = 4, series: str = "1.2.3.4") -> Path:
    """A series whose files have no suffix, as archives name them: IM1, IM2 ..."""
    write_series(folder, n_slices, series=series)
    for i, file in enumerate(sorted(folder.iterdir()), 1):
        file.rename(folder / f"IM{i}")
    return folder


# links


def test_a_cohort_of_linked_folders_is_read_whole(tmp_path: Path) -> None:
    for i in range(3):
        write_series(tmp_path / "store" / f"P{i}", series=f"1.2.{i}")
    shutil.copytree(tmp_path / "store" / "P0", tmp_path / "mixed" / "P0")
    for folder, which in (("mixed", (1, 2)), ("links", (0, 1, 2))):
        (tmp_path / folder).mkdir(exist_ok=True)
        for i in which:
            (tmp_path / folder / f"P{i}").symlink_to(tmp_path / "store" / f"P{i}")
        found = catalog(tmp_path / folder)
        assert [each.series_uid for each in found.series] == ["1.2.0", "1.2.1", "1.2.2"]
        assert not told(found)
        assert not found.incomplete


def test_links_to_linked_folders_relative_ones_and_chains_of_them(tmp_path: Path) -> None:
    write_series(tmp_path / "deep" / "a", series="1.2.1")
    (tmp_path / "in").mkdir()
    (tmp_path / "middle").symlink_to("deep", target_is_directory=True)
    (tmp_path / "in" / "last").symlink_to("../middle", target_is_directory=True)
    write_series(tmp_path / "elsewhere", series="1.2.2")
    (tmp_path / "deep" / "further").symlink_to(tmp_path / "elsewhere")
    found = catalog(tmp_path / "in")
    assert [each.series_uid for each in found.series] == ["1.2.1", "1.2.2"]
    assert all(file.is_relative_to(tmp_path / "in") for s in found.series for file in s.files)
    root = tmp_path / "root"
    root.symlink_to("in", target_is_directory=True)
    assert n_files(catalog(root)) == [4, 4]


def test_a_folder_that_links_reach_again_is_read_once(tmp_path: Path) -> None:
    write_series(tmp_path / "b" / "scan")
    (tmp_path / "a").symlink_to("b", target_is_directory=True)
    (tmp_path / "c").symlink_to("b/scan", target_is_directory=True)
    found = catalog(tmp_path)
    assert n_files(found) == [4]
    assert found.series[0].files[0].parent == tmp_path / "b" / "scan"
    assert told(found) == ["2 second names of files or folders that are here already"]
    assert not found.incomplete


def test_cycles_of_links_are_cut_and_told(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "scan", series="1.2.1")
    write_series(tmp_path / "out" / "scan", series="1.2.2")
    (tmp_path / "in" / "scan" / "self").symlink_to(".", target_is_directory=True)
    (tmp_path / "in" / "up").symlink_to("../..", target_is_directory=True)
    (tmp_path / "in" / "other").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "back").symlink_to(tmp_path / "in")
    found = catalog(tmp_path / "in")
    assert n_files(found) == [4, 4]
    assert told(found) == ["3 linked folders that lead back"]


def test_broken_links_may_have_been_slices(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    (tmp_path / "scan" / "005.dcm").symlink_to("gone.dcm")
    (tmp_path / "P7").symlink_to(tmp_path / "nowhere")
    (tmp_path / "turning").symlink_to("turning")
    found = catalog(tmp_path)
    assert n_files(found) == [4]
    (said,) = told(found)
    assert said.startswith("3 links that lead nowhere: file-")
    assert ", 005.dcm (" in said
    assert said.endswith(" (mend or remove them)")
    assert found.incomplete


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_file_under_two_names_counts_once(tmp_path: Path, link: object) -> None:
    write_series(tmp_path / "scan")
    assert callable(link)
    link(tmp_path / "scan" / "001.dcm", tmp_path / "scan" / "zz.dcm")
    (tmp_path / "again").mkdir()
    link(tmp_path / "scan" / "002.dcm", tmp_path / "again" / "2.dcm")
    found = catalog(tmp_path)
    assert n_files(found) == [4]
    assert told(found) == ["2 second names of files or folders that are here already"]
    assert read_series(found.series[0]).hu.shape[0] == 4


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    os.mkfifo(tmp_path / "scan" / "pipe")
    assert told(catalog(tmp_path)) == ["1 special file"]


# slices that were lost


def cut(length: int) -> object:
    def change(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:length])

    return change


def page(path: Path) -> None:
    """What a server answers instead of the file."""
    path.write_text("<html>404 Not Found</html>", encoding="utf-8")


LOST = {
    "empty": (cut(0), "2 empty files named like slices: "),
    "a preamble": (cut(100), "2 files named like slices that are not DICOM: "),
    "a page": (page, "2 files named like slices that are not DICOM: "),
}


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("names", ["IM{}", "1.2.840.113619.2.55.3.{}", "I00{}.img", "{}"])
def test_lost_slices_are_told_whatever_their_names(tmp_path: Path, kind: str, names: str) -> None:
    change, said = LOST[kind]
    folder = write_series(tmp_path, 6)
    for i, file in enumerate(sorted(folder.iterdir(), reverse=True), 1):
        file.rename(folder / names.format(i))
    for i in (5, 6):
        change(folder / names.format(i))  # type: ignore[operator]
    found = catalog(tmp_path)
    assert n_files(found) == [4]
    (line,) = told(found)
    assert line.startswith(said)
    assert line.endswith(" (copy them again)")
    assert found.incomplete


@pytest.mark.parametrize(
    "name", ["IM5.part", "IM5.crdownload", "IM5.gz", "IM5.zip", "OTHER_77", "slice 12"]
)
def test_leavings_of_a_download_beside_slices(tmp_path: Path, name: str) -> None:
    bare_series(tmp_path)
    (tmp_path / name).write_bytes(bytes(60))
    assert catalog(tmp_path).incomplete


def test_a_folder_that_lost_all_its_slices(tmp_path: Path) -> None:
    bare_series(tmp_path / "P1")
    for file in bare_series(tmp_path / "P2", series="1.2.9").iterdir():
        file.write_bytes(b"")
    found = catalog(tmp_path)
    assert n_files(found) == [4]
    assert told(found) == ["4 empty files named like slices: IM1, IM2, IM3, IM4 (copy them again)"]


JUNK = {
    "notes.txt": b"seen on Monday", "README": b"", "LICENSE": b"free", "Thumbs.db": b"\xd0\xcf\x11",
    "report.json": b"{}", "table.csv": b"a;b", "page.pdf": b"%PDF-1.4", "shot.png": b"\x89PNG\r\n",
    "shot1.jpg": b"\xff\xd8\xff\xe0", "DONE": b"", "desktop.ini": b"[x]", "MD5SUMS": b"00  IM1",
    "VERSION2": b"2.0\n",
}  # fmt: skip


@pytest.mark.parametrize("bare", [True, False])
def test_files_that_were_never_slices_accuse_no_scan(tmp_path: Path, bare: bool) -> None:
    (bare_series if bare else write_series)(tmp_path)
    for name, content in JUNK.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    found = catalog(tmp_path)
    assert n_files(found) == [4]
    assert not found.incomplete
    assert sum(len(each.files) for each in found.left_out) == len(JUNK)


def test_objects_beside_slices_accuse_no_scan_whatever_they_hold(tmp_path: Path) -> None:
    """Private objects are common among slices and named like them."""
    bare_series(tmp_path)
    for i, uid in enumerate(("1.3.12.2.1107.5.9.1", "1.2.840.113619.4.27"), 5):
        ds = slice_dataset(0, stored_values(1)[0])
        ds.SOPClassUID, ds.Modality = uid, "CT"
        write_slice(tmp_path / f"IM{i}", ds)
    found = catalog(tmp_path)
    assert not found.incomplete
    assert told(found) == ["2 other DICOM objects of a private or unknown kind"]


@pytest.mark.parametrize("suffix", ["", ".dcm"])
def test_a_slice_cut_anywhere_is_never_passed_over(tmp_path: Path, suffix: str) -> None:
    """Either told, or a series that reading refuses."""
    folder = write_series(tmp_path, 5)
    for file in list(folder.iterdir()):
        file.rename(file.with_suffix(suffix))
    last = folder / f"005{suffix}"
    whole = last.read_bytes()
    for length in range(0, 1600, 23):
        last.write_bytes(whole[:length])
        found = catalog(tmp_path)
        refused = 0
        for each in found.series:
            try:
                read_series(each)
            except CvsctError:
                refused += 1
        assert found.incomplete or refused, f"cut at {length}"


def test_names_of_one_kind_have_one_shape() -> None:
    for one, other in (
        ("IM1", "IM12"), ("1.2.840.11.3", "1.2.840.9.1.7"), ("CT.1.2.3.dcm", "CT.4.55.6.dcm"),
        ("0a1b2c3d4e5f", "9f86d081884c7d65"), ("CT-001-2.DCM", "ct-17-30.dcm"),
    ):  # fmt: skip
        assert shape_of(one) == shape_of(other), (one, other)
    for one, other in (("IM1", "DONE"), ("IM1", "IM1.txt"), ("1.dcm", "1.jpg"), ("IM1", "README")):
        assert shape_of(one) != shape_of(other), (one, other)


# what headers count


def _counting(**values: int) -> object:
    def change(ds: Dataset, i: int) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return change


def test_fewer_images_than_headers_count_are_noted_and_no_fault(tmp_path: Path) -> None:
    write_series(tmp_path / "a", series="1.2.1", change=_counting(ImagesInAcquisition=4))
    assert not catalog(tmp_path).notes
    write_series(tmp_path / "b", series="1.2.2", change=_counting(ImagesInAcquisition=60))
    write_series(tmp_path / "c", series="1.2.3", change=_counting(NumberOfSeriesRelatedInstances=5))

    def parts(ds: Dataset, i: int) -> None:  # of an acquisition that made several series
        ds.AcquisitionNumber, ds.ImagesInAcquisition = i, 60

    write_series(tmp_path / "d", series="1.2.4", change=parts)
    found = catalog(tmp_path)
    assert found.notes == (
        "series 2 holds 4 images of the 60 that its headers count (1 more like it); "
        "it may have been exported in part",
    )
    assert not found.incomplete


# kinds of files


def test_everything_beside_scans_is_counted_by_kind(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    for i, (uid, modality) in enumerate(
        (
            ("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"),
            ("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"),
            ("1.2.840.10008.5.1.4.1.1.66.4", "SEG"),
            ("1.2.840.10008.5.1.4.1.1.4", "MR"),
            ("1.2.840.10008.5.1.4.1.1.88.67", "SR"),
        )
    ):
        ds = slice_dataset(0, stored_values(1)[0])
        ds.SOPClassUID, ds.Modality = uid, modality
        write_slice(tmp_path / "objects" / f"{i}.dcm", ds)
    scout = slice_dataset(0, stored_values(1)[0], series="1.2.3.8")
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_slice(tmp_path / "scout.dcm", scout)
    for name in ("lung.nii.gz", "liver.nii", "masks/heart.nii.gz"):
        write_scan(tmp_path / name)
    (tmp_path / "all.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    (tmp_path / "notes.txt").write_text("seen")
    for name in ("manifest.json", "uid_map.json", "plan-1of2.json"):
        (tmp_path / name).write_text("{}")
    found = catalog(tmp_path)
    assert n_files(found) == [4]
    assert told(found) == [
        "3 NIfTI beside DICOM (name them, or a folder without DICOM, to use them)",
        "2 RT structure sets",
        "1 DICOM segmentation",
        "1 MR image",
        "1 scout",
        "1 structured report",
        "1 text file",
        "1 zip archive (unpack it)",
    ]


def test_a_dicomdir_is_told_by_its_name(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    index = Dataset()
    index.FileSetID, index.DirectoryRecordSequence = "CD", []
    index.file_meta = FileMetaDataset()
    index.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    index.file_meta.MediaStorageSOPInstanceUID = "1.2.7"
    index.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dcmwrite(tmp_path / "DICOMDIR", index, enforce_file_format=True)
    found = catalog(tmp_path)
    assert told(found) == ["1 DICOMDIR"]
    assert not found.incomplete


def test_label_maps_beside_nifti_scans(tmp_path: Path) -> None:
    write_scan(tmp_path / "scan.nii.gz")
    write_scan(tmp_path / "a.nii.gz", intent_code=1002)
    write_scan(tmp_path / "b.nii.gz", datatype=2, bitpix=8)
    found = catalog(tmp_path)
    assert n_files(found) == [1]
    assert told(found) == [
        "1 NIfTI image of colors, complex numbers or 8 bits",
        "1 NIfTI label map",
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), "the folder is empty"),
        ((".cache", ".x"), "2 hidden files or folders"),
        (("manifest.json",), "1 file that cvsct wrote"),
        (("a.txt", "manifest.json"), r"\(1 text file\)"),
    ],
)
def test_nothing_found_says_what_there_is(
    tmp_path: Path, names: tuple[str, ...], expected: str
) -> None:
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(SeriesError, match=rf"no CT series here .*{expected}.*; name a folder"):
        find_series(tmp_path)


# the same scan twice


def test_two_nifti_files_of_the_same_bytes_are_both_refused(tmp_path: Path) -> None:
    first = write_scan(tmp_path / "P1" / "ct.nii.gz")
    write_scan(tmp_path / "P3" / "ct.nii.gz", hu=scan_hu() + 1)
    for patient in ("P2", "P4"):
        (tmp_path / patient).mkdir()
        shutil.copy(first, tmp_path / patient / "scan.nii.gz")
    found = catalog(tmp_path)
    refused = [each for each in found.series if each.refused]
    assert [each.files[0].parent.name for each in refused] == ["P1", "P2", "P4"]
    for each in refused:
        with pytest.raises(SeriesError, match=r"holds the same bytes as .* and 1 more, and"):
            read_series(each)
    (sound,) = (each for each in found.series if not each.refused)
    assert read_series(sound).hu.shape == scan_hu().shape
    assert len(by_key(found.series, tmp_path, Shard())) == 4
    one = catalog(tmp_path / "P2").series
    assert [each.refused for each in one] == [""]


def test_a_nifti_file_under_two_names_is_one_scan(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.nii.gz")
    os.link(path, tmp_path / "b.nii.gz")
    (tmp_path / "c.nii.gz").symlink_to("a.nii.gz")
    found = catalog(tmp_path)
    assert [each.refused for each in found.series] == [""]
    assert told(found) == ["2 second names of files or folders that are here already"]


# SOP Instance UIDs


def test_uids_of_several_files_are_told_multi_frame_among_them(tmp_path: Path) -> None:
    write_series(tmp_path / "a", series="1.2.1")
    assert catalog(tmp_path).repeated == frozenset()

    def same(ds: Dataset, i: int) -> None:
        if i == 2:
            ds.SOPInstanceUID = "1.2.1.1"

    write_series(tmp_path / "b", series="1.2.2", change=same)
    for name in ("one", "two"):
        ds = enhanced()
        ds.SeriesInstanceUID = f"1.2.9.{len(name)}{name == 'one':d}"
        write_slice(tmp_path / f"{name}.dcm", ds)
    assert catalog(tmp_path).repeated == {"1.2.1.1", str(enhanced().SOPInstanceUID)}
