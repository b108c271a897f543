"""Compressed pixels: each syntax gives its exact values, and no codec can harm the reader."""

from __future__ import annotations

import base64
import functools
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from cvsct.errors import SeriesError
from cvsct.io import codec, decode
from cvsct.io.codestream import size_of
from cvsct.io.derived import write_derived
from tests.dicom_files import DERIVATION, only, slice_dataset, stored_values, write_slice

VALUES = stored_values(1)[0].astype("<u2")
LOSSLESS = (RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)


@functools.cache
def _by_gdcm(values: bytes, syntax: str) -> bytes:
    """JPEG lossless, which pydicom cannot write; gdcm, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder, "plain.dcm"), Path(folder, "packed.dcm")
        stored = np.frombuffer(values, "<u2").reshape(VALUES.shape)
        write_slice(plain, slice_dataset(0, stored))
        script = f"""
import gdcm
reader = gdcm.ImageReader()
reader.SetFileName({str(plain)!r})
assert reader.Read()
change = gdcm.ImageChangeTransferSyntax()
change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType({str(syntax)!r})))
change.SetInput(reader.GetImage())
assert change.Change()
writer = gdcm.ImageWriter()
writer.SetFileName({str(packed)!r})
writer.SetFile(reader.GetFile())
writer.SetImage(change.GetOutput())
assert writer.Write()
"""
        subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
        ds = dcmread(packed)
        assert ds.file_meta.TransferSyntaxUID == syntax
        return next(generate_frames(ds.PixelData, number_of_frames=1))


def _encoded(frame: np.ndarray, syntax: str) -> bytes:
    """A frame of 12 bits, compressed."""
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        return _by_gdcm(frame.tobytes(), str(syntax))
    if syntax == JPEG2000Lossless:
        return bytes(encode_array(frame, bits_stored=12))
    if syntax == JPEG2000:
        return bytes(encode_array(frame, bits_stored=12, compression_ratios=[2]))
    about = {
        "rows": frame.shape[0], "columns": frame.shape[1], "samples_per_pixel": 1,
        "bits_allocated": 16, "bits_stored": 12, "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2", "number_of_frames": 1,
    }  # fmt: skip
    if syntax == JPEGLSNearLossless:
        about["jls_error"] = 2
    plugin = "pydicom" if syntax == RLELossless else "pyjpegls"  # gdcm's crashes
    encode = get_encoder(syntax).encode
    return bytes(encode(frame, encoding_plugin=plugin, **about))


def _compressed(
    path: Path, syntax: str, frame: bytes | None = None, shape: tuple[int, int] | None = None
) -> Path:
    """A slice in that syntax, of a frame that may be anything and a size that may be wrong."""
    ds = slice_dataset(0, VALUES)
    ds.Rows, ds.Columns = shape or VALUES.shape
    if frame is None:
        frame = _encoded(VALUES, syntax)
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    dcmwrite(path, ds, enforce_file_format=True)
    return path


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
        only(_compressed(tmp_path / "a.dcm", syntax)).hu[0], VALUES.astype(int) - 1024
    )


@pytest.mark.parametrize(("syntax", "off_hu"), [(JPEGLSNearLossless, 2), (JPEG2000, 400)])
def test_lossy_syntaxes_are_read_and_their_history_kept(
    tmp_path: Path, syntax: str, off_hu: int
) -> None:
    path = _compressed(tmp_path / "a.dcm", syntax)
    ds = dcmread(path)
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", "2"
    ds.save_as(path)
    volume = only(path)
    error = np.abs(volume.hu[0] - (VALUES.astype(int) - 1024))
    assert 0 < error.max() <= off_hu
    written = dcmread(write_derived(volume, volume.hu, tmp_path / "out", DERIVATION).files[0])
    assert (written.LossyImageCompression, written.LossyImageCompressionRatio) == ("01", 2)


def test_near_lossless_is_told_where_the_source_does_not(tmp_path: Path) -> None:
    volume = only(_compressed(tmp_path / "a.dcm", JPEGLSNearLossless))
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
    path = _compressed(tmp_path / "a.dcm", syntax, b"\xff\xd8\xff\xd9")
    with pytest.raises(
        SeriesError, match=rf"^a\.dcm: compressed as {words}.*; convert the file to Explicit VR"
    ):
        only(path)


HT_FRAME = base64.b64decode(
    "/0//UQApQAAAAAAMAAAAEAAAAAAAAAAAAAAADAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCI"
    "kJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAHwAAf+TwAAmefkFB3QAAMAAEsAAEwDOAgd0"
    "AFr5Awd0AMAAE0AAE4D/fwDLdACqVOUAo1QAwAAVEAAFUP5+v5fhC3UATDJh8sAhAIy2AMAAK6AAFoAwDMMwDMPeCnp6cIJ4AAQJ"
    "CAgICP78ABj2MYHsuQD/2Q=="
)
"""16 x 12 values, (131 row + 57 column) mod 4096, losslessly by OpenJPH 0.26.3."""


@pytest.mark.parametrize("last", ["201", "202"])
def test_high_throughput_jpeg_2000(tmp_path: Path, last: str) -> None:
    path = _compressed(tmp_path / "a.dcm", f"1.2.840.10008.1.2.4.{last}", HT_FRAME, (16, 12))
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
        assert size_of(_encoded(VALUES, syntax)) == (*VALUES.shape, 1)
    assert size_of(_encoded(VALUES, RLELossless)) is None
    assert size_of(b"\xff\xd8" + bytes(20)) is None


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
@pytest.mark.parametrize("shape", [(36, 40), (80, 36), (20, 36)])
def test_a_frame_of_another_size_than_declared_is_refused(
    tmp_path: Path, syntax: str, shape: tuple[int, int]
) -> None:
    if syntax == RLELossless and shape == (36, 40):
        pytest.skip("RLE says nothing of rows and columns")
    with pytest.raises(SeriesError, match=r"^a\.dcm: .*; copy the file again"):
        only(_compressed(tmp_path / "a.dcm", syntax, shape=shape))


def _read_after_a_failure(folder: Path) -> None:
    np.testing.assert_array_equal(
        only(_compressed(folder / "next.dcm", RLELossless)).hu[0], VALUES.astype(int) - 1024
    )


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGSEGV, "crashed"), (signal.SIGSTOP, "took too long")]
)
def test_a_child_that_crashes_or_hangs_costs_one_file(
    tmp_path: Path, number: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _compressed(tmp_path / "a.dcm", JPEGLSLossless)
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
    options = _options(dcmread(_compressed(tmp_path / "a.dcm", RLELossless, frame, (side, side))))
    decode.close()
    with monkeypatch.context() as patched:
        patched.setattr(decode, "MEMORY_BYTES", 200 * 2**20)
        with pytest.raises(SeriesError, match=r"^a\.dcm: pixels cannot be decoded"):
            decode.decode("a.dcm", RLELossless, frame, options)
    assert not decode.decode("a.dcm", RLELossless, frame, options).any()


def test_what_the_child_sends_is_not_believed(tmp_path: Path) -> None:
    """A child that a hostile file has taken over can at most give wrong values."""
    path = _compressed(tmp_path / "a.dcm", JPEGLSLossless)
    only(path)
    child = decode._decoder._child
    assert child is not None
    for rows, size in ((2**31, 4), (VALUES.shape[0], 9)):
        answer = codec.REPLY.pack(0, b"", rows, VALUES.shape[1], size, 0)
        child = decode._decoder._child = decode._decoder._child or decode._Child()
        child._received = lambda length, deadline, answer=answer: bytearray(answer)
        with pytest.raises(SeriesError, match="voxels came out"):
            only(path)


def test_damaged_codestreams_never_end_the_reader(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for syntax in (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless):
        whole = np.frombuffer(_encoded(VALUES, syntax), np.uint8)
        for _ in range(2):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole) - 2, 8)] = rng.integers(0, 256, 8)
            try:
                volume = only(_compressed(tmp_path / "a.dcm", syntax, damaged.tobytes()))
            except SeriesError as error:
                assert str(error).startswith("a.dcm: ")
            else:
                assert volume.hu.shape == (1, *VALUES.shape)


def test_plain_pixels_start_no_child(tmp_path: Path) -> None:
    decode.close()
    only(write_slice(tmp_path / "a.dcm", slice_dataset(0, VALUES)))
    assert decode._decoder._child is None


def test_a_forked_process_has_a_child_of_its_own(tmp_path: Path) -> None:
    path = _compressed(tmp_path / "a.dcm", JPEGLSLossless)
    script = f"""
import os
from pathlib import Path
from cvsct.io import decode
from cvsct.io.dicom import read_all
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
