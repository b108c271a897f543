"""DICOM without preamble and mark: read where it is sound, refused or left out where it is not."""

from __future__ import annotations

import json
import random
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)

from cvsct.core.errors import CvsctError, SeriesError
from cvsct.io.catalog import catalog, find_series
from cvsct.io.dicom import header
from cvsct.io.dicom.header import is_dicom
from cvsct.io.masks import read_masks
from tests.io.test_enhanced import enhanced
from tests.support.commands import Run
from tests.support.dicom_files import (
    behead,
    only,
    slice_dataset,
    stored_values,
    write_series,
    write_slice,
)

PLAIN = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]


def beheaded_series(folder: Path, syntax: str, *, meta: bool) -> Path:
    """A series of headless files without suffixes."""
    for i, file in enumerate(sorted(write_series(folder, syntax=syntax).iterdir()), 1):
        behead(file, meta=meta).rename(folder / f"IM{i}")
    return folder


@pytest.mark.parametrize("syntax", PLAIN, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("meta", [True, False])
def test_a_headless_series_reads_as_one_with_headers(
    tmp_path: Path, syntax: str, meta: bool
) -> None:
    folder = beheaded_series(tmp_path / "in", syntax, meta=meta)
    volume = only(folder)
    np.testing.assert_array_equal(volume.hu, stored_values(4) - 1024)
    assert not catalog(folder).left_out
    assert only(folder / "IM1").hu.shape[0] == 1


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, JPEGLSLossless])
def test_a_meta_group_without_a_mark_says_how_pixels_are_packed(
    tmp_path: Path, syntax: str
) -> None:
    volume = only(beheaded_series(tmp_path / "in", syntax, meta=True))
    np.testing.assert_array_equal(volume.hu, stored_values(4) - 1024)


def test_a_headless_last_slice_is_part_of_its_scan(tmp_path: Path) -> None:
    folder = write_series(tmp_path, 5)
    behead(folder / "001.dcm")
    assert only(folder).hu.shape[0] == 5


def test_headless_multi_frame(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "frames.dcm", enhanced())
    expected = only(path)
    np.testing.assert_array_equal(only(behead(path)).hu, expected.hu)


def test_headless_scans_are_harmonized_as_if_they_had_headers(
    run: Run, scans: Path, tmp_path: Path
) -> None:
    sides = ("--source", scans / "sharp", "--target", scans / "soft")
    assert run("train", "spectrum", *sides, "--out", tmp_path / "model")[0] == 0
    shutil.copytree(scans / "pair" / "sharp", tmp_path / "bare")
    for file in (tmp_path / "bare").iterdir():
        behead(file)
    written = {}
    for name, source in (("whole", scans / "pair" / "sharp"), ("bare", tmp_path / "bare")):
        code, _, err = run(
            "harmonize", source, "--model", tmp_path / "model", "--out", tmp_path / f"out_{name}",
            "--nifti",
        )  # fmt: skip
        assert code == 0, err
        assert len(list((tmp_path / f"out_{name}").rglob("*.nii.gz"))) == 1
        files = sorted((tmp_path / f"out_{name}").rglob("*.dcm"))
        written[name] = [(dcmread(f).SOPInstanceUID, dcmread(f).PixelData) for f in files]
    assert written["bare"] == written["whole"]


def test_a_headless_structure_set_is_taken_for_dicom(tmp_path: Path) -> None:
    ds = slice_dataset(0, stored_values(1)[0])
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    path = behead(write_slice(tmp_path / "rs.dcm", ds))
    volume = only(write_series(tmp_path / "scan"))
    with pytest.raises(CvsctError, match="mask is empty"):
        read_masks(path, volume)


FOREIGN = {
    "text": b"MODALITY CT\n" * 40,
    "zeros": bytes(4000),
    "a header of 348 bytes": (348).to_bytes(4, "little") + bytes(344),
    "an element without a class": b"\x08\0\x05\0CS\x0a\0ISO_IR 100\x10\0\x10\0PN\0\0",
    "descending elements": b"\x08\0\x60\0CS\2\0CT\x08\0\x16\0UI\x08\x001.2.3.4\0",
    "no UID": b"\x08\0\x16\0UI\x08\0CT Image",
    "a length beyond the file": b"\x08\0\x16\0UI\xff\xff1.2.840.10008.5.1.4.1.1.2\0",
    "an unknown representation": b"\x08\0\x05\0ZZ\x0a\0ISO_IR 100",
    "a private element": b"\x09\0\x10\0LO\x08\0CREATOR1",
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_does_not_begin_with_sound_elements_is_no_dicom(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(FOREIGN[kind])
    assert not is_dicom(path)
    with pytest.raises(SeriesError, match=r"^a: .*; "):
        find_series(path)


def test_random_bytes_are_never_taken_for_dicom(tmp_path: Path) -> None:
    rng = random.Random(5)
    path = tmp_path / "a"
    for _ in range(300):
        path.write_bytes(b"\x08\0\x05\0" + rng.randbytes(600))
        assert not is_dicom(path)


@pytest.mark.parametrize("syntax", PLAIN, ids=lambda syntax: syntax.name)
def test_a_headless_file_cut_anywhere_is_refused(tmp_path: Path, syntax: str) -> None:
    path = behead(write_slice(tmp_path / "a", slice_dataset(0, stored_values(1)[0]), syntax))
    whole = path.read_bytes()
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(CvsctError, match=r"^a: .*; "):
            only(path)


def test_random_damage_to_a_headless_file_never_raises_anything_else(tmp_path: Path) -> None:
    path = behead(write_slice(tmp_path / "a", slice_dataset(0, stored_values(1)[0])))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(4)
    for _ in range(150):
        damaged = whole.copy()
        damaged[rng.integers(0, 1400, size=4)] = rng.integers(0, 256, size=4)
        path.write_bytes(damaged.tobytes())
        try:
            volume = only(path)
        except CvsctError as error:
            assert "; " in str(error)
        else:
            assert np.isfinite(volume.hu).all()


def test_a_headless_bomb_is_refused_before_it_inflates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header, "MAX_FILE_BYTES", 2**20)
    ds = slice_dataset(0, stored_values(1)[0])
    path = behead(write_slice(tmp_path / "a", ds, DeflatedExplicitVRLittleEndian), meta=True)
    content = path.read_bytes()
    bomb = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = 12 + int.from_bytes(content[8:12], "little")
    path.write_bytes(content[:start] + bomb.compress(bytes(4 * 2**20)) + bomb.flush())
    with pytest.raises(SeriesError, match="holds more than 1 MiB"):
        find_series(path)


def test_inspect_reads_headless_files(run: Run, tmp_path: Path) -> None:
    folder = beheaded_series(tmp_path / "in", ImplicitVRLittleEndian, meta=False)
    code, printed, err = run("inspect", folder, "--json")
    assert code == 0, err
    assert [each["slices"] for each in json.loads(printed)] == [4]
    assert "left out" not in err
