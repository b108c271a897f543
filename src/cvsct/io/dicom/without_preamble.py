"""Recognition of DICOM without the file header of PS3.10 (preamble, mark, file meta group).

Old archives and research exports hold bare data sets. What begins with sound elements up to the
SOP Class UID is taken for one; nothing else is, for pydicom would read any bytes as elements.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

MARKED_AT = 132
"""Where the file meta group begins behind a preamble and the DICM mark (PS3.10 section 7.1)."""
_HEAD_BYTES = 8192
"""Length of the beginning of a file in which the SOP Class UID must lie."""
_META, _IDENTIFYING = 0x0002, 0x0008
_TRANSFER_SYNTAX, _MEDIA_CLASS, _SOP_CLASS = 0x00020010, 0x00020002, 0x00080016
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR",
                   b"UT", b"UV"))  # fmt: skip
"""Value representations whose length takes four bytes (PS3.5 section 7.1.2)."""
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Start:
    """Where a file's elements begin.

    Args:
        at: byte of the file meta group, or of the data set where there is none.
        syntax: transfer syntax as deduced; empty where a DICM mark makes that unnecessary.
    """

    at: int
    syntax: str = ""

    @property
    def marked(self) -> bool:
        """Whether the file carries the DICM mark."""
        return self.at == MARKED_AT


@dataclass(frozen=True)
class _Element:
    tag: int
    vr: bytes
    begin: int
    length: int

    @property
    def end(self) -> int:
        return self.begin + self.length


def start_of(path: Path) -> Start | None:
    """Find where a file's elements begin; None if the file is not DICOM.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if head[128:MARKED_AT] == b"DICM":
        return Start(MARKED_AT)
    syntax = _bare_syntax(head, path.stat().st_size)
    return Start(0, syntax) if syntax else None


def _bare_syntax(head: bytes, size: int) -> str:
    """The transfer syntax of elements that begin with the first byte; empty if there are none.

    Args:
        size: of the file, which no element may exceed.
    """
    at, named, media_class = 0, "", ""
    for element in _elements(head, 0, size, ExplicitVRLittleEndian):
        if element.tag >> 16 != _META:
            break
        at = element.end
        if element.tag == _TRANSFER_SYNTAX:
            named = _uid(head, element)
        elif element.tag == _MEDIA_CLASS:
            media_class = _uid(head, element)
    if named:
        syntax = UID(named)
        if not syntax.is_transfer_syntax:
            return ""
        if syntax == DeflatedExplicitVRLittleEndian:
            return named if media_class else ""
        coded = (
            named if syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian)
            else ExplicitVRLittleEndian
        )  # fmt: skip
        return named if _has_class(head, at, size, coded) else ""
    for guess in (ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian):
        if _has_class(head, at, size, guess):
            return str(guess)
    return ""


def _has_class(head: bytes, at: int, size: int, syntax: str) -> bool:
    """Whether a data set begins at a byte: known elements in order up to a SOP Class UID."""
    for element in _elements(head, at, size, syntax):
        if element.tag == _SOP_CLASS:
            return bool(_uid(head, element))
        if element.tag >> 16 != _IDENTIFYING:
            return False
    return False


def _elements(head: bytes, at: int, size: int, syntax: str) -> Iterator[_Element]:
    """Elements one after the other, up to the first bytes that are not an element."""
    last = -1
    while at + 8 <= len(head):
        element = _element(head, at, syntax)
        sound = element.tag > last and element.end <= size and _is_known(element)
        if element.length == _UNDEFINED or not sound:
            return
        yield element
        last, at = element.tag, element.end


def _element(head: bytes, at: int, syntax: str) -> _Element:
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    group, number = struct.unpack_from(f"{order}HH", head, at)
    tag = group << 16 | number
    if syntax == ImplicitVRLittleEndian:
        (length,) = struct.unpack_from("<I", head, at + 4)
        return _Element(tag, b"", at + 8, length)
    vr = head[at + 4 : at + 6]
    if vr not in _LONG:
        (length,) = struct.unpack_from(f"{order}H", head, at + 6)
        return _Element(tag, vr, at + 8, length)
    if at + 12 > len(head):
        return _Element(tag, vr, at + 12, _UNDEFINED)
    (length,) = struct.unpack_from(f"{order}I", head, at + 8)
    return _Element(tag, vr, at + 12, length)


def _is_known(element: _Element) -> bool:
    """Whether the standard has this element, with this value representation."""
    if element.tag & 0xFFFF == 0:  # a group's length
        return element.vr in (b"", b"UL")
    if not dictionary_has_tag(element.tag):
        return False
    return not element.vr or element.vr.decode("latin-1") in dictionary_VR(element.tag)


def _uid(head: bytes, element: _Element) -> str:
    """An element's value if it is a UID, else an empty text."""
    value = head[element.begin : element.end].rstrip(b"\0 ").decode("latin-1")
    return value if re.fullmatch(r"[0-2](\.[0-9]+){3,}", value) and len(value) <= 64 else ""
