"""Kinds of files that are not DICOM, by their first bytes, and the remedy for each.

Names of files mislead, so archives, other image formats and pictures are recognized by content.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 1024
GZIP = b"\x1f\x8b"
NIFTI_MARKS = {b"n+1\0": (344, 348), b"n+2\0": (4, 540)}
"""Position of the mark and length of the header, for each version of NIfTI."""


@dataclass(frozen=True)
class FileKind:
    """A kind of file that is not read.

    Args:
        one: name of a single file.
        many: name of several files.
        remedy: what to do with `{it}`; empty where the file can hold no scan.
    """

    one: str
    many: str
    remedy: str = ""

    def remedy_of(self, count: int) -> str:
        """The remedy in words, for one file or several."""
        return self.remedy.format(it="it" if count == 1 else "them")


def _kind(one: str, many: str = "", remedy: str = "") -> FileKind:
    return FileKind(one, many or f"{one}s", remedy)


_CONVERT = "convert {it} to NIfTI"
_UNPACK = "unpack {it}"
EMPTY = _kind("empty file")
TEXT = _kind("text file")
UNKNOWN = _kind("file of an unknown kind", "files of unknown kinds")
NIFTI = _kind("NIfTI file of another name", "NIfTI files of other names", "name {it} .nii.gz, or "
              ".nii where not compressed")  # fmt: skip
_PAIR = _kind("NIfTI header of a pair (hdr, img)", "NIfTI headers of pairs (hdr, img)",
              "save {it} as one .nii file")  # fmt: skip
_DICOM = _kind("DICOM file", remedy="give {it} a name without .nii")
_PACKED_DICOM = _kind("gzip-compressed DICOM file", remedy=_UNPACK)
PACKED = _kind("gzip-compressed file", remedy=_UNPACK)
_META = _kind("MetaImage (MHA, MHD)", "MetaImages (MHA, MHD)", _CONVERT)
_ANALYZE = _kind("Analyze image", remedy=_CONVERT)
_TAR = _kind("tar archive", remedy=_UNPACK)
_DOCUMENT = _kind("office document")
_NUMPY = _kind("NumPy file", remedy=_CONVERT)
_MINC = _kind("MINC image", remedy=_CONVERT)

_BEGINNINGS: tuple[tuple[bytes, FileKind], ...] = (
    (b"NRRD", _kind("NRRD image", remedy=_CONVERT)),
    (b"PK\x03\x04", _kind("zip archive", remedy=_UNPACK)),
    (b"PK\x05\x06", _kind("zip archive", remedy=_UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", _kind("7z archive", remedy=_UNPACK)),
    (b"Rar!\x1a\x07", _kind("rar archive", remedy=_UNPACK)),
    (b"\xfd7zXZ\0", _kind("xz-compressed file", remedy=_UNPACK)),
    (b"BZh", _kind("bzip2-compressed file", remedy=_UNPACK)),
    (b"\x28\xb5\x2f\xfd", _kind("zstd-compressed file", remedy=_UNPACK)),
    (b"CDF\x01", _MINC),
    (b"CDF\x02", _MINC),
    (b"\x89HDF\r\n\x1a\n", _kind("HDF5 file", remedy=_CONVERT)),
    (b"\x93NUMPY", _NUMPY),
    (b"# vtk DataFile", _kind("VTK file", remedy=_CONVERT)),
    (b"\xff\xd8\xff", _kind("JPEG picture")),
    (b"\x89PNG", _kind("PNG picture")),
    (b"\0\0\0\x0cjP  ", _kind("JPEG 2000 picture")),
    (b"II*\0", _kind("TIFF picture")),
    (b"MM\0*", _kind("TIFF picture")),
    (b"GIF8", _kind("GIF picture")),
    (b"%PDF", _kind("PDF document")),
    (b"SQLite format 3\0", _kind("database")),
)
_BY_SUFFIX = {
    **dict.fromkeys((".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp"), _DOCUMENT),
    **{".npz": _NUMPY, ".mnc": _MINC},
}
"""Kinds that share their first bytes with another kind, by suffix."""
_META_IMAGE = re.compile(rb"\s*(Comment[^\n]*\n\s*)*(ObjectType|NDims)\s*=")


def is_gzip(path: Path) -> bool:
    """Whether a file is compressed by gzip, whatever its name says."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(GZIP)) == GZIP
    except OSError:
        return False


def kind_of(path: Path) -> FileKind:
    """Kind of a file that is not read as DICOM, by its first bytes.

    Raises:
        OSError: if it cannot be read.

    Example:
        >>> kind_of(Path(__file__)).one
        'text file'
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if not head:
        return EMPTY
    if not head.startswith(GZIP):
        return _by_beginning(path, head) or (TEXT if _is_text(head) else UNKNOWN)
    try:
        inside = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD_BYTES)
    except zlib.error:
        inside = b""
    if inside[128:132] == b"DICM":
        return _PACKED_DICOM
    return _by_beginning(path, inside) or PACKED


def _by_beginning(path: Path, head: bytes) -> FileKind | None:
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return _BY_SUFFIX.get(path.suffix.lower()) or kind
    if _META_IMAGE.match(head):
        return _META
    if head[257:262] == b"ustar":
        return _TAR
    if head[128:132] == b"DICM":
        return _DICOM
    return _volume(head)


def foreign(path: Path) -> str:
    """What a file that is not DICOM is instead, and what to do about it, as a message on it.

    Raises:
        OSError: if it cannot be read.
    """
    kind = kind_of(path)
    if kind.remedy:
        return f"{kind.one}, which is not read; {kind.remedy_of(1)}"
    advice = "remove it, or name a DICOM or NIfTI file or a folder that holds CT slices"
    return f"not a DICOM file ({kind.one}); {'copy it again' if kind == EMPTY else advice}"


def _is_text(head: bytes) -> bool:
    return sum(byte >= 32 or byte in b"\t\n\r\f" for byte in head) >= 0.95 * len(head)


def _volume(head: bytes) -> FileKind | None:
    """NIfTI or its predecessor, whose headers begin with their own length of 348."""
    if any(head[at : at + 4] == mark for mark, (at, _) in NIFTI_MARKS.items()):
        return NIFTI
    if head[344:348] == b"ni1\0":
        return _PAIR
    sized = head[:4] in ((348).to_bytes(4, "little"), (348).to_bytes(4, "big"))
    return _ANALYZE if sized and len(head) >= 348 else None
