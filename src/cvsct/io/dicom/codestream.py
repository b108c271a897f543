"""Size of a compressed frame by its codestream, read without a codec."""

from __future__ import annotations

_START_OF_IMAGE = b"\xff\xd8"
_START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
_FRAME_HEADERS = {0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""SOF markers of JPEG (ITU-T T.81 table B.1) and JPEG-LS (T.87 C.1.1)."""


def size_of(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and samples of a JPEG, JPEG-LS or JPEG 2000 codestream (T.800 A.5.1).

    `None` for what is none of these; RLE has no size of its own.
    """
    if frame.startswith(_START_OF_CODESTREAM) and len(frame) >= 42:
        right, bottom, left, top = (int.from_bytes(frame[i : i + 4]) for i in (8, 12, 16, 20))
        return bottom - top, right - left, int.from_bytes(frame[40:42])
    if not frame.startswith(_START_OF_IMAGE):
        return None
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker in _FRAME_HEADERS:
            rows, columns = (int.from_bytes(frame[i : i + 2]) for i in (at + 5, at + 7))
            return rows, columns, frame[at + 9]
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    return None
