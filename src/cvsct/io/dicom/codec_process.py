"""Compressed frames decoded in a child process with limits of memory and time.

Native codecs crash, hang and grow on damaged or hostile files. One child decodes for this
process, started when the first compressed frame is met; whatever it does, this process goes on:
the frame is refused and the next one gets a new child. What comes back is checked against what
the header declares, which was capped before anything was allocated. Uncompressed pixels need no
codec and no child.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from io import FileIO
from typing import Any, cast

import numpy as np
from jaxtyping import Integer
from pydicom import FileDataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID

from cvsct.core.errors import SeriesError
from cvsct.core.platform import call_in_forked_children, out_of_ctrl_c
from cvsct.io.dicom import codecs as codec
from cvsct.io.dicom.codestream import size_of
from cvsct.io.dicom.header import quiet, text

MEMORY_BYTES = 2 * 2**30
"""Address space of the child, its libraries included, where the system can limit it."""
SECONDS = 10.0
"""Time limit of one frame, with a second more for each 2^20 voxels."""
START_SECONDS = 120.0
"""Time limit of a child's start, which takes half a second unless the machine is overloaded."""

_JPEG_FAMILY = "1.2.840.10008.1.2.4."
_END_OF_IMAGE = b"\xff\xd9"
_REMEDY = "copy the file again, or convert it to Explicit VR Little Endian (dcmdjpeg, gdcmconv)"


class _DecodeError(Exception):
    """Why a frame could not be decoded, for the message."""


class _Child:
    """A process that decodes one frame after the other, by pipes to it and from it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", codec.__file__, str(MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # a fork must not copy what is half sent
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            **out_of_ctrl_c(),  # it is for the parent, which then closes the pipes
        )
        # unbuffered, as asked for above
        self._requests = cast(FileIO, self._process.stdin)
        self._answers = cast(FileIO, self._process.stdout)
        try:
            with self._ended_after(START_SECONDS):
                self._head()
        except BaseException:
            self.close()
            raise

    def decode(self, frame: bytes, options: dict[str, Any], n_voxels: int) -> np.ndarray:
        """One frame's stored values.

        Raises:
            _DecodeError: with the reason.
        """
        seconds = SECONDS + n_voxels / 2**20
        about = json.dumps({**options, "seconds": seconds}).encode()
        with self._ended_after(seconds):
            self._send(codec.REQUEST.pack(len(about), len(frame)) + about)
            self._send(frame)
            rows, columns, size, signed = self._head()
            if size not in (1, 2, 4) or rows * columns != n_voxels:
                raise _DecodeError(f"{rows} x {columns} voxels came out")
            data = self._received(n_voxels * size)
        return np.frombuffer(data, f"<{'i' if signed else 'u'}{size}").reshape(rows, columns)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def leave(self) -> None:
        """Close what a fork has copied; the process is not ours to end or wait for."""
        self._close_pipes()
        self._process.returncode = 0

    def _close_pipes(self) -> None:
        self._requests.close()
        self._answers.close()

    @contextlib.contextmanager
    def _ended_after(self, seconds: float) -> Iterator[None]:
        """End the process if the block takes longer; whoever waits for it then sees its pipes end.

        Raises:
            _DecodeError: if it did.
        """
        only_one, finished, late = threading.Lock(), False, False

        def end() -> None:
            nonlocal late
            with only_one:
                if not finished:
                    late = True
                    self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except _DecodeError:
            if late:
                raise _DecodeError("the decoder took too long") from None
            raise
        finally:
            timer.cancel()
            with only_one:
                finished = True
        if late:
            raise _DecodeError("the decoder took too long")

    def _head(self) -> tuple[int, int, int, bool]:
        """A reply's rows, columns, bytes a value, and whether values are signed."""
        head = self._received(codec.REPLY.size)
        failed, kind, rows, columns, size, signed = codec.REPLY.unpack(head)
        if failed:
            name = kind.rstrip(b"\0").decode("ascii", "replace")
            raise _DecodeError(name if name.isidentifier() else "unknown error")
        return rows, columns, size, bool(signed)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._requests.write(view) :]
        except OSError:
            raise _DecodeError("the decoder crashed") from None

    def _received(self, length: int) -> bytearray:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            try:
                count = self._answers.readinto(view)
            except OSError:
                count = 0
            if not count:
                raise _DecodeError("the decoder crashed")
            view = view[count:]
        return data


class _Decoder:
    """The child of this process, if one was started; a call at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def decode(self, frame: bytes, options: dict[str, Any], n_voxels: int) -> np.ndarray:
        with self._lock:
            try:
                self._child = self._child or _Child()
                return self._child.decode(frame, options, n_voxels)
            except BaseException:  # what a failure leaves in the child, nobody knows
                self._close()
                raise

    def close(self) -> None:
        with self._lock:
            self._close()

    def leave(self) -> None:
        """Release a child that belongs to another process, after a fork."""
        if self._child is not None:
            self._child.leave()

    def _close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None


_decoder = _Decoder()


def _forget() -> None:
    """A forked process must not talk to its parent's child."""
    global _decoder  # noqa: PLW0603
    _decoder.leave()
    _decoder = _Decoder()


def close() -> None:
    """End the child process, if there is one; the next compressed frame starts another."""
    _decoder.close()


call_in_forked_children(_forget)
atexit.register(close)


def frames_of(name: str, dataset: FileDataset, count: int) -> list[bytes]:
    """The compressed frames of a file, not decoded.

    Raises:
        SeriesError: if the syntax is one that no codec here reads, or a frame is cut short.
    """
    syntax = syntax_of(dataset)
    if syntax not in codec.CODECS:
        raise SeriesError(
            f"{name}: compressed as {syntax.name}, which this program cannot decode; "
            "convert the file to Explicit VR Little Endian (dcmdjpeg, gdcmconv)"
        )
    try:
        with quiet():
            frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    except Exception:  # damaged encapsulation
        frames = []
    # Codecs fill what is missing with made-up values, so look for the end marker
    # (ITU-T T.81 EOI, T.87 EOI, T.800 EOC: all FF D9); some writers pad after it.
    jpeg = syntax.startswith(_JPEG_FAMILY)
    if len(frames) != count or (
        jpeg and any(_END_OF_IMAGE not in frame.rstrip(b"\0")[-4:] for frame in frames)
    ):
        raise SeriesError(
            f"{name}: compressed pixel data cut short (no end marker); copy the file again"
        )
    return frames


def decode(
    name: str, syntax: UID, frame: bytes, options: Mapping[str, Any]
) -> Integer[np.ndarray, "rows columns"]:
    """A compressed frame's stored values, as the codec gives them.

    Args:
        options: of the header, by pydicom's names for them; `rows` and `columns` among them.

    Raises:
        SeriesError: if it cannot be decoded within the limits, or not to the size declared.
    """
    rows, columns = options["rows"], options["columns"]
    size = size_of(frame)
    if size is not None and size != (rows, columns, 1):
        raise SeriesError(
            f"{name}: compressed as {size[0]} x {size[1]} voxels of {size[2]} samples, its header "
            f"says {rows} x {columns} of 1; copy the file again"
        )
    try:
        return _decoder.decode(
            frame, {**options, "transfer_syntax_uid": str(syntax)}, rows * columns
        )
    except _DecodeError as failure:
        raise SeriesError(
            f"{name}: pixels cannot be decoded ({failure}; {syntax.name}); {_REMEDY}"
        ) from None


def syntax_of(dataset: FileDataset) -> UID:
    """The transfer syntax, or what stands in its place."""
    with quiet():
        return UID(text(dataset.file_meta, "TransferSyntaxUID"))
