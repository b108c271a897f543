"""One DICOM file opened quietly, and its attributes read without trusting them.

pydicom's warnings, log lines and exceptions quote attribute values, which may identify a patient;
none of them leaves this module. What is refused is told by file name, kind and figure.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import math
import mmap
import os
import re
import threading
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

from pydicom import Dataset, FileDataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import _read_file_meta_info
from pydicom.multival import MultiValue
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from cvsct.core.errors import SeriesError
from cvsct.io.dicom.without_preamble import Start, start_of
from cvsct.io.file_kinds import foreign

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
"""Enhanced and Legacy Converted Enhanced CT Image Storage: one file, many frames."""
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

SCAN_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "ImageType"),
    *("NumberOfFrames", "DirectoryRecordSequence", "AcquisitionNumber"),
    *("ImagesInAcquisition", "NumberOfSeriesRelatedInstances"),
]

MAX_FILE_BYTES = 256 * 2**20
"""Largest file of one slice: eight times a slice of 4096 x 4096 voxels."""
MAX_MULTIFRAME_BYTES = 4 * 2**30
"""Largest multi-frame file: 8000 frames of 512 x 512."""
MAX_ITEMS = 2**18
"""Most items of all sequences of a file, fragments of pixels included; 8000 frames have a third of
it. Each item takes a kilobyte and 10 us, however empty it is."""

UID_CHARACTERS = 64
MAX_UID_CHARACTERS = 128
"""Longest UID that is read; anonymizing software writes longer ones than the standard allows."""

MAX_DIGITS = 6
"""Most digits of a file name that messages show; a patient's number or birth date has more."""
_FILE_SUFFIXES = frozenset(
    re.findall(r"\w+", "dcm dicom dic ima img nii gz nrrd nhdr mha mhd zip tar seg txt csv")
)
_FILE_WORDS = _FILE_SUFFIXES | frozenset(
    re.findall(
        r"\w+",
        """ct im i img image images slice slices series scan scans file frame frames part parts
        study mask masks label labels segmentation struct structs structures structure rs rt
        rtstruct rtss roi rois source target harmonized repeat retest a b axial enhanced multiframe
        cut empty damaged broken text good bad plain flat named gzip one two first last copy other
        odd x y z n""",
    )
)
"""Words that name no person; a file name with any other word is not shown."""

_ITEM, _BIG_ENDIAN_ITEM = b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"
_LIBRARIES = ("pydicom", "pylibjpeg", "openjpeg")
_NOT_SLICES = {
    "LOCALIZER": "a scout (localizer)",
    "SCREEN SAVE": "a screen save",
    "DOSEINFO": "a dose page",
    "DOSE_INFO": "a dose page",
    "CT_SOM5 PROT": "a protocol page",
    "MIP": "an intensity projection",
    "MAX_IP": "an intensity projection",
    "MIN_IP": "an intensity projection",
    "PROJECTION IMAGE": "an intensity projection",
}


class _Silence:
    """Silences pydicom and the codecs for all threads: the first silences, the last one restores.

    Warning filters and loggers are the process's. Threads that each set and restored their own
    would let a warning through in one while another leaves. The loggers lose their handlers and
    their way to those above, and keep their levels: a change of level makes logging forget what it
    knows of every logger, and this is entered for every value that is read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._warnings = warnings.catch_warnings()
        self._loggers = tuple(map(logging.getLogger, _LIBRARIES))
        self._heard: list[tuple[bool, list[logging.Handler]]] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
                self._heard = [(logger.propagate, logger.handlers) for logger in self._loggers]
                for logger in self._loggers:
                    logger.propagate, logger.handlers = False, [_NOWHERE]
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for logger, (propagate, handlers) in zip(self._loggers, self._heard, strict=True):
                    logger.propagate, logger.handlers = propagate, handlers
                self._warnings.__exit__(None, None, None)


_NOWHERE = logging.NullHandler()
_SILENCE = _Silence()


def quiet() -> contextlib.AbstractContextManager[None]:
    """Silence pydicom and the codecs, whose messages quote attribute values, in all threads."""
    return _SILENCE


def label(path: Path) -> str:
    """A file's designation in messages: its own name where that can name no person, else a hash.

    Names of files and folders often hold a patient's name, number or birth date, and messages go
    into logs and manifests that may be shared. A name made of the words and short numbers that
    archives use (`IM000012`, `slice_03.dcm`) is told; any other becomes `file-1f0c93d2.dcm`, which
    `cvsct --verbose` explains on the terminal.

    Example:
        >>> label(Path("/scans/IM000012"))
        'IM000012'
        >>> label(Path("/scans/Doe_John.dcm")).endswith(".dcm")
        True
    """
    words = re.findall(r"[^\W\d_]+", path.name)
    digits = sum(map(len, re.findall(r"[0-9]+", path.name)))
    plain = re.fullmatch(r"[0-9A-Za-z._ -]+", path.name) is not None
    if plain and digits <= MAX_DIGITS and all(word.lower() in _FILE_WORDS for word in words):
        return path.name
    suffix = "".join(s for s in path.suffixes[-2:] if s[1:].lower() in _FILE_SUFFIXES)
    place = os.path.abspath(path)  # noqa: PTH100 - links stay as they are
    return f"file-{hashlib.sha256(place.encode()).hexdigest()[:8]}{suffix}"


def explained(message: str, files: Iterable[Path]) -> str:
    """A message with the paths of the files that `label` left unnamed in it.

    For the terminal of who asked for it alone: paths may identify a patient.
    """
    if "file-" not in message:
        return message
    named = [
        path for path in files if (token := label(path)).startswith("file-") and token in message
    ]
    return message + "".join(f" [{label(path)} is {path}]" for path in sorted(set(named)))


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM: it carries the mark (PS3.10 section 7.1), or begins with elements.

    A file that cannot be read is none.
    """
    try:
        return start_of(path) is not None
    except OSError:
        return False


def read_dataset(
    path: Path,
    *,
    pixels: bool,
    tags: list[str] | None = None,
    limit_bytes: int = MAX_FILE_BYTES,
) -> FileDataset:
    """Read one file: its whole header, some of its attributes, or header and pixels.

    Args:
        limit_bytes: what a larger file is refused by; deflated ones by `MAX_FILE_BYTES` always.

    Raises:
        SeriesError: if the file cannot be read or is not sound DICOM.
    """
    name = label(path)
    try:
        start = start_of(path)
        if start is None:
            raise SeriesError(f"{name}: {foreign(path)}")
        _refuse_large(path, limit_bytes, start)
        with quiet():
            dataset = dcmread(
                path, stop_before_pixels=not pixels, specific_tags=tags, force=not start.marked
            )
            if start.syntax and "TransferSyntaxUID" not in dataset.file_meta:
                dataset.file_meta.TransferSyntaxUID = UID(start.syntax)
            return dataset
    except OSError as error:
        raise SeriesError(
            f"{name}: cannot be read ({error.strerror or type(error).__name__}); check the file"
        ) from None
    except SeriesError:
        raise
    except InvalidDicomError:
        raise SeriesError(f"{name}: not a DICOM file; copy it again or remove it") from None
    except Exception as error:  # pydicom raises many kinds, and quotes values in their text
        raise SeriesError(
            f"{name}: damaged header ({type(error).__name__} while reading it); "
            "copy the file again from its source or remove it"
        ) from None


def not_a_slice(dataset: Dataset) -> str:
    """Why this object cannot be a CT slice, or an empty text."""
    sop_class = sop_class_of(dataset)
    modality = text(dataset, "Modality")
    if sop_class.startswith(SECONDARY_CAPTURE):
        return "secondary capture (a dose page or screen save)"
    if sop_class not in (CT_IMAGE, *ENHANCED_CT):
        return f"another kind of object ({known_name(sop_class) or 'unknown SOP class'})"
    if modality != "CT":
        return f"modality {modality if re.fullmatch('[A-Z]{2,8}', modality) else 'unknown'}, not CT"
    kinds = text(dataset, "ImageType").split("\\")
    return next((_NOT_SLICES[kind] for kind in kinds if kind in _NOT_SLICES), "")


def sop_class_of(dataset: Dataset) -> str:
    """SOP Class UID of an object, or that of its file meta group; empty where neither is there."""
    return text(dataset, "SOPClassUID") or media_class_of(dataset)


def media_class_of(dataset: Dataset) -> str:
    """SOP Class UID as the file meta group names it; empty where it does not."""
    return text(getattr(dataset, "file_meta", Dataset()), "MediaStorageSOPClassUID")


def text(dataset: Dataset, keyword: str) -> str:
    r"""An attribute as text, several values joined with `\`; empty where absent or unreadable."""
    with quiet():
        try:
            value = dataset.get(keyword)
            if value is None:
                return ""
            if isinstance(value, MultiValue):
                return "\\".join(str(part).strip() for part in value).strip("\\")
            return str(value).strip(" \0")
        except Exception:  # a damaged value is an absent value; callers say what they miss
            return ""


def is_uid(value: str) -> bool:
    """Whether a text can serve as a UID: digits and dots, or a hash that an anonymizer put there.

    PS3.5 section 9.1 allows digits alone and 64 characters, but files with hexadecimal UIDs are
    common, and so are those to which a prefix was added. Slashes and other characters are never
    right, and a UID goes into manifests.
    """
    return not odd_uid(value)


def odd_uid(value: str) -> str:
    """Why a text cannot serve as a UID, in words without it; empty where it can."""
    if not value:
        return "absent or empty"
    if len(value) > MAX_UID_CHARACTERS:
        return f"{len(value)} characters, {UID_CHARACTERS} are allowed"
    if re.fullmatch(r"[0-9A-Za-z]+([.-][0-9A-Za-z]+)*", value) is None:
        return "characters other than digits and dots"
    return ""


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """An attribute's finite numbers; empty where absent, unreadable or not finite."""
    try:
        values = tuple(float(part) for part in text(dataset, keyword).split("\\"))
    except ValueError:
        return ()
    return values if all(math.isfinite(value) for value in values) else ()


def number(dataset: Dataset, keyword: str) -> float | None:
    """The attribute's only number, or `None`."""
    values = numbers(dataset, keyword)
    return values[0] if len(values) == 1 else None


def whole(dataset: Dataset, keyword: str) -> int | None:
    """The attribute's only number if it is a whole one, or `None`."""
    value = number(dataset, keyword)
    return int(value) if value is not None and value == int(value) else None


def known_name(uid: str) -> str:
    """The standard's name of a UID, empty where it has none; the text itself may be anything."""
    with quiet():
        name = UID(uid).name
    return "" if name == uid else name


def _refuse_large(path: Path, limit_bytes: int, start: Start) -> None:
    """Refuse what would fill the memory before pydicom sees it."""
    size = path.stat().st_size
    with path.open("rb") as stream, quiet():
        stream.seek(start.at)
        meta = _read_file_meta_info(stream)  # as dcmread does: it decides where deflation begins
        syntax = text(meta, "TransferSyntaxUID") or start.syntax
        if syntax == DeflatedExplicitVRLittleEndian:
            # PS3.5 section A.5: all after the file meta group is deflated
            limit_bytes = MAX_FILE_BYTES
            inflated = zlib.decompressobj(-zlib.MAX_WBITS)
            content = inflated.decompress(stream.read(limit_bytes), limit_bytes)
            size, items = len(content), _items_in(content, syntax)
        else:
            length = min(size, MAX_FILE_BYTES)
            with mmap.mmap(stream.fileno(), length, access=mmap.ACCESS_READ) as mapped:
                items = _items_in(mapped, syntax)
    if size >= limit_bytes:
        raise SeriesError(
            f"{label(path)}: holds more than {limit_bytes >> 20} MiB, more than any CT slice; "
            "export the series as one file a slice"
        )
    if items > MAX_ITEMS:
        raise SeriesError(
            f"{label(path)}: sequences of more than {MAX_ITEMS} items, more than any CT; "
            "export the series as one file a slice"
        )


def _items_in(content: bytes | mmap.mmap, syntax: str) -> int:
    """Number of items in the bytes, up to the limit; random pixels look like one, once in 2^32."""
    mark = _BIG_ENDIAN_ITEM if syntax == ExplicitVRBigEndian else _ITEM
    return sum(1 for _ in itertools.islice(re.finditer(mark, content), MAX_ITEMS + 1))
