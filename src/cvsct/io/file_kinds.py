"""What a file is by its first bytes: DICOM with or without its mark, NIfTI, or something else.

Names lie: archives drop suffixes, and data sets are saved without the DICOM File Format
(PS3.10 section 7.1) that a reader would look for.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 4096
"""Of a file looked at; SOP Class UID is among the first elements of any image."""

_GZIP = b"\x1f\x8b"
_IMAGES = b"1.2.840.10008.5.1.4.1.1."
"""How the SOP Class UID of every stored object begins."""
_LONG_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"}


@dataclass(frozen=True)
class FileKind:
    """What a file is, and what its owner can do to have it read.

    Args:
        one, many: the kind's name, of one file and of several.
        remedy: what to do; empty where such files are never scans.
    """

    one: str
    many: str
    remedy: str = ""


def _kind(name: str, remedy: str = "", many: str = "") -> FileKind:
    return FileKind(name, many or f"{name}s", remedy)


_CONVERT = "convert it to NIfTI"
_UNPACK = "unpack it"
_MAGIC = (
    (0, b"NRRD", _kind("NRRD image", _CONVERT)),
    (0, b"ObjectType", _kind("MetaImage (MHA, MHD)", _CONVERT, "MetaImages (MHA, MHD)")),
    (0, b"NDims", _kind("MetaImage (MHA, MHD)", _CONVERT, "MetaImages (MHA, MHD)")),
    (0, b"PK\x03\x04", _kind("zip archive", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", _kind("7z archive", _UNPACK)),
    (0, b"Rar!", _kind("RAR archive", _UNPACK)),
    (0, b"BZh", _kind("bzip2 archive", _UNPACK)),
    (0, b"\xfd7zXZ", _kind("xz archive", _UNPACK)),
    (257, b"ustar", _kind("tar archive", _UNPACK)),
    (0, _GZIP, _kind("gzip archive", _UNPACK)),
    (344, b"ni1\0", _kind("NIfTI header of a pair (hdr, img)", "save it as one .nii file",
                          "NIfTI headers of pairs (hdr, img)")),
    (0, b"\x89HDF", _kind("HDF5 file (MINC, ITK)", _CONVERT, "HDF5 files (MINC, ITK)")),
    (0, b"\xff\xd8\xff", _kind("JPEG picture")),
    (0, b"\x89PNG", _kind("PNG picture")),
    (0, b"GIF8", _kind("GIF picture")),
    (0, b"II*\0", _kind("TIFF picture")),
    (0, b"MM\0*", _kind("TIFF picture")),
    (0, b"%PDF", _kind("PDF document")),
)  # fmt: skip
EMPTY = _kind("empty file")
TEXT = _kind("text file")
UNKNOWN = _kind("file of an unknown kind", many="files of unknown kinds")


def kind_of(path: Path) -> FileKind:
    """What a file is that carries no DICOM mark.

    Raises:
        OSError: if it cannot be read.

    Example:
        >>> from pathlib import Path
        >>> kind_of(Path(__file__)).one
        'text file'
    """
    head = _head(path)
    if not head:
        return EMPTY
    for at, magic, kind in _MAGIC:
        if head.startswith(magic, at):
            return kind
    if head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") and path.suffix.lower() == ".hdr":
        return _kind("Analyze header", _CONVERT)
    printable = sum(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    return TEXT if printable >= 0.95 * len(head) else UNKNOWN


def is_gzip(path: Path) -> bool:
    """Whether a file is compressed by gzip, whatever its name says."""
    try:
        with path.open("rb") as stream:
            return stream.read(2) == _GZIP
    except OSError:
        return False


def is_marked(path: Path) -> bool:
    """Whether the file carries the DICOM mark (PS3.10 section 7.1)."""
    return _head(path, 132)[128:] == b"DICM"


def is_headless(path: Path) -> bool:
    """Whether the file is a DICOM data set without preamble and mark, in little endian.

    Its first elements must be well-formed, in ascending order, of the groups 0002 and 0008, and
    among them a SOP Class UID of a stored object.
    """
    return _holds_data_set(_head(path))


def has_explicit_vr(path: Path) -> bool:
    """Whether such a data set names the value representation of its elements."""
    return _head(path)[4:6].isalpha()


def _head(path: Path, count: int = HEAD_BYTES) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(count)
    except OSError:
        return b""


def _holds_data_set(head: bytes) -> bool:
    at, before = 0, (0, 0)
    while at + 8 <= len(head):
        tag = (int.from_bytes(head[at : at + 2], "little"),
               int.from_bytes(head[at + 2 : at + 4], "little"))  # fmt: skip
        if tag[0] not in (2, 8) or tag < before or (at and tag == before):
            return False
        vr = head[at + 4 : at + 6]
        if vr.isalpha() and vr.isupper():
            if vr in _LONG_VRS:
                length, start = int.from_bytes(head[at + 8 : at + 12], "little"), at + 12
            else:
                length, start = int.from_bytes(head[at + 6 : at + 8], "little"), at + 8
        else:
            length, start = int.from_bytes(head[at + 4 : at + 8], "little"), at + 8
        value = head[start : start + length]
        if tag in ((8, 0x16), (2, 2)):
            return value.startswith(_IMAGES)
        at, before = start + length, tag
    return False


def inflated_head(path: Path, count: int) -> bytes:
    """The first bytes of a file, of its content where it is compressed by gzip."""
    if not is_gzip(path):
        return _head(path, count)
    try:
        with gzip.open(path) as stream:
            return stream.read(count)
    except (OSError, EOFError):
        return b""
