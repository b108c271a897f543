"""The child process in which compressed frames are decoded; `io.dicom.codec_process` is its parent.

Run as a script of its own, so that it imports nothing but what decoding needs. It reads requests
from its standard input and answers on its standard output: a fixed header and raw bytes, nothing
that the parent would have to interpret. Codecs are native code that hostile files can take over.
"""

from __future__ import annotations

import faulthandler
import json
import os
import struct
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO

REQUEST = struct.Struct("<IQ")
"""Length of a request's JSON and of the compressed frame that follows it."""
REPLY = struct.Struct("<B32sIIBB")
"""Whether it failed, the kind of error, rows, columns, bytes a value, whether signed."""

_RLE = "1.2.840.10008.1.2.5"
CODECS = {
    _RLE: "pydicom",
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG lossless
    "1.2.840.10008.1.2.4.70": "gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.91": "pylibjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg",  # high-throughput JPEG 2000
    "1.2.840.10008.1.2.4.202": "pylibjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg",
}
"""The codec of each transfer syntax: one alone, so that lossy images are the same everywhere."""


def serve(requests: BinaryIO, answers: BinaryIO, limit_bytes: int) -> None:
    """Answer requests until the parent closes its end."""
    confine(limit_bytes)
    from pydicom.pixels.decoders.base import get_decoder  # noqa: PLC0415  (its memory counts too)

    for syntax, plugin in CODECS.items():
        get_decoder(syntax)._validate_plugins(plugin)
    _send(answers, REPLY.pack(0, b"ready", 0, 0, 0, 0))
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        options_length, frame_length = REQUEST.unpack(head)
        options = json.loads(requests.read(options_length))
        frame = requests.read(frame_length)
        # ends this process, should the parent be gone by then, even within native code
        faulthandler.dump_traceback_later(options.pop("seconds") + 5, exit=True)
        _send(answers, _answer(frame, options))
        faulthandler.cancel_dump_traceback_later()


def confine(limit_bytes: int) -> None:
    """Limit the memory of this process, and disable core dumps and messages, which show data."""
    from cvsct.core.platform import forbid_core_dumps, limit_memory  # noqa: PLC0415

    forbid_core_dumps()
    limit_memory(limit_bytes)


def _answer(frame: bytes, options: dict[str, Any]) -> bytes:
    try:
        values = _decoded(frame, options)
        rows, columns = values.shape
        about = REPLY.pack(0, b"", rows, columns, values.itemsize, values.dtype.kind == "i")
        data: bytes = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        return about + data
    except Exception as error:  # each codec raises its own kinds
        return REPLY.pack(1, type(error).__name__[:32].encode(), 0, 0, 0, 0)


def _decoded(frame: bytes, options: dict[str, Any]) -> Any:
    from pydicom.encaps import encapsulate  # noqa: PLC0415
    from pydicom.pixels.decoders.base import get_decoder  # noqa: PLC0415
    from pydicom.uid import UID  # noqa: PLC0415

    syntax = UID(options["transfer_syntax_uid"])
    # pydicom only warns where RLE holds more values than declared
    warnings.simplefilter("error" if syntax == _RLE else "ignore")
    values, _ = get_decoder(syntax).as_array(
        encapsulate([frame]),
        index=0,
        raw=True,
        decoding_plugin=CODECS[syntax],
        **{**options, "transfer_syntax_uid": syntax, "correct_unused_bits": False},
    )
    return values


def _send(answers: BinaryIO, data: bytes) -> None:
    answers.write(data)
    answers.flush()


def _own_output() -> BinaryIO:
    """Standard output for answers alone: what a codec prints goes nowhere."""
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return answers


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[3]))  # where the parent found this package
    serve(os.fdopen(os.dup(0), "rb"), _own_output(), int(sys.argv[1]))
