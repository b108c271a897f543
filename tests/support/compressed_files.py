"""Slices in compressed transfer syntaxes, the frames of which may be anything."""

from __future__ import annotations

import base64
import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from openjpeg.utils import encode_array
from pydicom import dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from tests.support.dicom_files import Change, slice_dataset, stored_values, write_slice

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


def encoded(frame: np.ndarray, syntax: str) -> bytes:
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


def write_compressed(
    path: Path,
    syntax: str,
    frame: bytes | None = None,
    shape: tuple[int, int] | None = None,
    change: Change = lambda ds, i: None,
) -> Path:
    """A slice in that syntax, of a frame that may be anything and a size that may be wrong."""
    ds = slice_dataset(0, VALUES)
    change(ds, 0)
    ds.Rows, ds.Columns = shape or VALUES.shape
    if frame is None:
        frame = encoded(VALUES, syntax)
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    dcmwrite(path, ds, enforce_file_format=True)
    return path


HT_FRAME = base64.b64decode(
    "/0//UQApQAAAAAAMAAAAEAAAAAAAAAAAAAAADAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCI"
    "kJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAHwAAf+TwAAmefkFB3QAAMAAEsAAEwDOAgd0"
    "AFr5Awd0AMAAE0AAE4D/fwDLdACqVOUAo1QAwAAVEAAFUP5+v5fhC3UATDJh8sAhAIy2AMAAK6AAFoAwDMMwDMPeCnp6cIJ4AAQJ"
    "CAgICP78ABj2MYHsuQD/2Q=="
)
"""16 x 12 values, (131 row + 57 column) mod 4096, losslessly by OpenJPH 0.26.3."""
