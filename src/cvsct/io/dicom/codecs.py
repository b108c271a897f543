"""The child process in which compressed frames are decoded; `io.dicom.codec_process` is its parent.

Run as a script of its own, so that it imports nothing but what decoding needs. It reads requests
from its standard input, a socket, and answers there: a fixed header and raw bytes, nothing that
the parent would have to interpret. Codecs are native code that hostile files can take over.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
import warnings
from typing import Any

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


def serve(channel: socket.socket, limit_bytes: int) -> None:
    """Answer requests until the parent closes the channel."""
    confine(limit_bytes)
    from pydicom.pixels.decoders.base import get_decoder  # noqa: PLC0415  (its memory counts too)

    for syntax, plugin in CODECS.items():
        get_decoder(syntax)._validate_plugins(plugin)
    channel.sendall(REPLY.pack(0, b"ready", 0, 0, 0, 0))
    while head := _received(channel, REQUEST.size):
        options_length, frame_length = REQUEST.unpack(head)
        options = json.loads(_received(channel, options_length))
        frame = _received(channel, frame_length)
        signal.alarm(int(options.pop("seconds")) + 5)  # should the parent be gone by then
        channel.sendall(_answer(frame, options))
        signal.alarm(0)


def confine(limit_bytes: int) -> None:
    """Limit what this process may take, and what it may say: core dumps and messages show data."""
    import resource  # noqa: PLC0415  (POSIX only)

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


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


def _received(channel: socket.socket, length: int) -> bytes:
    """So many bytes, or none where the parent is gone."""
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = channel.recv_into(view)
        if not count:
            return b""
        view = view[count:]
    return bytes(data)


if __name__ == "__main__":
    serve(socket.socket(fileno=os.dup(sys.stdin.fileno())), int(sys.argv[1]))
