"""Compressed pixels: each syntax gives its exact values, and no codec can harm the reader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from cvsct.core.errors import SeriesError
from cvsct.io.dicom import codec_process as decode
from cvsct.io.dicom import codecs as codec
from cvsct.io.dicom.codestream import size_of
from cvsct.io.dicom.write import write_derived
from tests.support.compressed_files import HT_FRAME, LOSSLESS, VALUES, encoded, write_compressed
from tests.support.dicom_files import DERIVATION, only, slice_dataset, write_slice


def _options(ds: Dataset) -> dict[str, object]:
    return {
        "rows": ds.Rows, "columns": ds.Columns, "samples_per_pixel": 1,
        "photometric_interpretation": ds.PhotometricInterpretation, "bits_allocated": 16,
        "bits_stored": ds.BitsStored, "pixel_representation": ds.PixelRepresentation,
        "number_of_frames": 1, "pixel_keyword": "PixelData",
    }  # fmt: skip


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
def test_each_lossless_syntax_gives_the_exact_values(tmp_path: Path, syntax: str) -> None:
    np.testing.assert_array_equal(
        only(write_compressed(tmp_path / "a.dcm", syntax)).hu[0], VALUES.astype(int) - 1024
    )


@pytest.mark.parametrize(("syntax", "off_hu"), [(JPEGLSNearLossless, 2), (JPEG2000, 400)])
def test_lossy_syntaxes_are_read_and_their_history_kept(
    tmp_path: Path, syntax: str, off_hu: int
) -> None:
    path = write_compressed(tmp_path / "a.dcm", syntax)
    ds = dcmread(path)
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", "2"
    ds.save_as(path)
    volume = only(path)
    error = np.abs(volume.hu[0] - (VALUES.astype(int) - 1024))
    assert 0 < error.max() <= off_hu
    written = dcmread(write_derived(volume, volume.hu, tmp_path / "out", DERIVATION).files[0])
    assert (written.LossyImageCompression, written.LossyImageCompressionRatio) == ("01", 2)


def test_near_lossless_is_told_where_the_source_does_not(tmp_path: Path) -> None:
    volume = only(write_compressed(tmp_path / "a.dcm", JPEGLSNearLossless))
    written = dcmread(write_derived(volume, volume.hu, tmp_path / "out", DERIVATION).files[0])
    assert written.LossyImageCompression == "01"
    assert written.LossyImageCompressionMethod == "ISO_14495_1"


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        (JPEGExtended12Bit, r"JPEG Extended \(Process 2 and 4\)"),
        ("1.2.840.10008.1.2.4.102", "MPEG-4"),
    ],
)
def test_a_syntax_that_no_codec_reads_is_refused_by_name(
    tmp_path: Path, syntax: str, words: str
) -> None:
    path = write_compressed(tmp_path / "a.dcm", syntax, b"\xff\xd8\xff\xd9")
    with pytest.raises(
        SeriesError, match=rf"^a\.dcm: compressed as {words}.*; convert the file to Explicit VR"
    ):
        only(path)


@pytest.mark.parametrize("last", ["201", "202"])
def test_high_throughput_jpeg_2000(tmp_path: Path, last: str) -> None:
    path = write_compressed(tmp_path / "a.dcm", f"1.2.840.10008.1.2.4.{last}", HT_FRAME, (16, 12))
    expected = np.add.outer(131 * np.arange(16), 57 * np.arange(12)) % 4096 - 1024
    np.testing.assert_array_equal(only(path).hu[0], expected)


def test_pydicoms_own_files() -> None:
    """Not CT, so only their stored values are asked for."""
    plain = dcmread(str(get_testdata_file("MR_small.dcm"))).pixel_array
    for name in ("MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"):
        ds = dcmread(str(get_testdata_file(f"{name}.dcm")))
        (frame,) = decode.frames_of(name, ds, 1)
        values = decode.decode(name, decode.syntax_of(ds), frame, _options(ds))
        np.testing.assert_array_equal(values, plain)


def test_a_codestream_tells_its_size() -> None:
    for syntax in (JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless):
        assert size_of(encoded(VALUES, syntax)) == (*VALUES.shape, 1)
    assert size_of(encoded(VALUES, RLELossless)) is None
    assert size_of(b"\xff\xd8" + bytes(20)) is None


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
@pytest.mark.parametrize("shape", [(36, 40), (80, 36), (20, 36)])
def test_a_frame_of_another_size_than_declared_is_refused(
    tmp_path: Path, syntax: str, shape: tuple[int, int]
) -> None:
    if syntax == RLELossless and shape == (36, 40):
        pytest.skip("RLE says nothing of rows and columns")
    with pytest.raises(SeriesError, match=r"^a\.dcm: .*; copy the file again"):
        only(write_compressed(tmp_path / "a.dcm", syntax, shape=shape))


def _read_after_a_failure(folder: Path) -> None:
    np.testing.assert_array_equal(
        only(write_compressed(folder / "next.dcm", RLELossless)).hu[0], VALUES.astype(int) - 1024
    )


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGSEGV, "crashed"), (signal.SIGSTOP, "took too long")]
)
def test_a_child_that_crashes_or_hangs_costs_one_file(
    tmp_path: Path, number: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_compressed(tmp_path / "a.dcm", JPEGLSLossless)
    only(path)
    child = decode._decoder._child
    assert child is not None
    os.kill(child._process.pid, number)
    with monkeypatch.context() as patched:
        patched.setattr(decode, "SECONDS", 0.2)
        with pytest.raises(SeriesError, match=rf"^a\.dcm: .*the decoder {words}.*; copy the file"):
            only(path)
    assert child._process.returncode is not None
    _read_after_a_failure(tmp_path)


def test_a_frame_that_needs_more_memory_than_allowed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = 4096
    segment = b"\x81\x00" * (side * side // 128)  # PackBits: 128 times zero
    frame = np.array([2, 64, 64 + len(segment), *[0] * 13], "<u4").tobytes() + 2 * segment
    options = _options(
        dcmread(write_compressed(tmp_path / "a.dcm", RLELossless, frame, (side, side)))
    )
    decode.close()
    with monkeypatch.context() as patched:
        patched.setattr(decode, "MEMORY_BYTES", 200 * 2**20)
        with pytest.raises(SeriesError, match=r"^a\.dcm: pixels cannot be decoded"):
            decode.decode("a.dcm", RLELossless, frame, options)
    assert not decode.decode("a.dcm", RLELossless, frame, options).any()


def test_what_the_child_sends_is_not_believed(tmp_path: Path) -> None:
    """A child that a hostile file has taken over can at most give wrong values."""
    path = write_compressed(tmp_path / "a.dcm", JPEGLSLossless)
    only(path)
    child = decode._decoder._child
    assert child is not None
    for rows, size in ((2**31, 4), (VALUES.shape[0], 9)):
        answer = codec.REPLY.pack(0, b"", rows, VALUES.shape[1], size, 0)
        child = decode._decoder._child = decode._decoder._child or decode._Child()
        child._received = lambda length, answer=answer: bytearray(answer)
        with pytest.raises(SeriesError, match="voxels came out"):
            only(path)


def test_damaged_codestreams_never_end_the_reader(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for syntax in (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless):
        whole = np.frombuffer(encoded(VALUES, syntax), np.uint8)
        for _ in range(2):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole) - 2, 8)] = rng.integers(0, 256, 8)
            try:
                volume = only(write_compressed(tmp_path / "a.dcm", syntax, damaged.tobytes()))
            except SeriesError as error:
                assert str(error).startswith("a.dcm: ")
            else:
                assert volume.hu.shape == (1, *VALUES.shape)


def test_plain_pixels_start_no_child(tmp_path: Path) -> None:
    decode.close()
    only(write_slice(tmp_path / "a.dcm", slice_dataset(0, VALUES)))
    assert decode._decoder._child is None


def test_a_forked_process_has_a_child_of_its_own(tmp_path: Path) -> None:
    path = write_compressed(tmp_path / "a.dcm", JPEGLSLossless)
    script = f"""
import os
from pathlib import Path
from cvsct.io.dicom import codec_process as decode
from cvsct.io.read import read_all
path = Path({str(path)!r})
before = read_all(path)[0].hu
ours = decode._decoder._child._process.pid
if os.fork() == 0:
    same = (read_all(path)[0].hu == before).all()
    other = decode._decoder._child._process.pid != ours
    decode.close()
    os._exit(0 if same and other else 1)
assert os.wait()[1] == 0
assert (read_all(path)[0].hu == before).all()
assert decode._decoder._child._process.pid == ours
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=120)
