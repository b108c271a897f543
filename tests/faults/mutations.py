"""Ways to damage a file: each takes its bytes and a random stream, and gives other bytes."""

from __future__ import annotations

import contextlib
import gzip
import re
import zlib
from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]

HEADER_BYTES = 2000
_ELEMENT = re.compile(
    rb"[\x08-\x54\xe0\x7f][\x00-\x7f]..(?:AE|AS|AT|CS|DA|DS|DT|FD|FL|IS|LO|LT|OB|OW|PN|SH|SL|SQ|SS|"
    rb"ST|TM|UI|UL|UN|US|UT)",
    re.DOTALL,
)
_VRS = (b"AE", b"AT", b"DS", b"FD", b"IS", b"LO", b"OB", b"OW", b"PN", b"SQ", b"SS", b"UI", b"UN")
_NUMBER = re.compile(rb"[0-9]+(?:\.[0-9]+)?")
_PIECES = (
    *(b"-", b"9", b"e", b"E9", b".", b"\\", b"nan", b"inf", b"1e308", b"-1e308", b"0", b"\0"),
    *(b"99999999999", b"-0", b"1e-320", b" ", b"0x10", b"1_0", b"\xb2", b"\xd9\xa3"),
)
_SYNTAXES = (
    *("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"),
    *("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"),
    *("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"),
    *("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.102", "1.2.3", ""),
)
_EXTREMES = (0, 1, 2, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_STREAMS = (b"\xff\x4f\xff\x51", b"\xff\xd8\xff", b"\xfe\xff\x00\xe0")
"""Where compressed frames begin: JPEG 2000, JPEG and JPEG-LS, an item of encapsulated pixels."""


def flips(data: bytes, rng: np.random.Generator) -> bytes:
    """Other values of some bytes, anywhere."""
    return _flipped(data, rng, 0, len(data))


def header_flips(data: bytes, rng: np.random.Generator) -> bytes:
    """Other values of some bytes of the header, past the mark."""
    start = 132 if data[128:132] == b"DICM" else 0
    return _flipped(data, rng, start, min(len(data), start + HEADER_BYTES))


def stream_flips(data: bytes, rng: np.random.Generator) -> bytes:
    """Other values of some bytes of a compressed frame, most of them near its beginning."""
    places = [data.find(mark) for mark in _STREAMS if data.find(mark) > 0]
    start = min(places, default=len(data) // 2)
    return _flipped(data, rng, start, min(len(data), start + int(rng.choice([120, 10**6]))))


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """The beginning alone."""
    return data[: int(rng.integers(len(data)))]


def insertion(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes that do not belong there."""
    at = int(rng.integers(len(data)))
    return data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at:]


def duplication(data: bytes, rng: np.random.Generator) -> bytes:
    """A part twice."""
    start, stop = _part(data, rng)
    return data[:stop] + data[start:]


def deletion(data: bytes, rng: np.random.Generator) -> bytes:
    """A part gone."""
    start, stop = _part(data, rng)
    return data[:start] + data[stop:]


def wrong_length(data: bytes, rng: np.random.Generator) -> bytes:
    """Another length of some element, or of a NIfTI header's axes."""
    found = [match.end() for match in _ELEMENT.finditer(data[: 20 * HEADER_BYTES])]
    if not found:
        return _overwritten(data, int(rng.integers(40, 112)), rng)
    at = int(rng.choice(found))
    long = data[at : at + 2] == b"\0\0"
    return _overwritten(data, at + 2 if long else at, rng, 4 if long else 2)


def wrong_vr(data: bytes, rng: np.random.Generator) -> bytes:
    """Another value representation of some element."""
    found = [match.end() for match in _ELEMENT.finditer(data[: 20 * HEADER_BYTES])]
    if not found:
        return header_flips(data, rng)
    at = int(rng.choice(found))
    return data[: at - 2] + _VRS[int(rng.integers(len(_VRS)))] + data[at:]


def wrong_number(data: bytes, rng: np.random.Generator) -> bytes:
    """Other characters in some numbers written as text."""
    found = list(_NUMBER.finditer(data[132 : 132 + 2 * HEADER_BYTES]))
    if not found:
        return header_flips(data, rng)
    for _ in range(int(rng.integers(1, 4))):
        where = found[int(rng.integers(len(found)))]
        start, stop = where.start() + 132, where.end() + 132
        piece = _PIECES[int(rng.integers(len(_PIECES)))]
        new = (piece + data[start:stop])[: stop - start].ljust(stop - start)
        data = data[:start] + new + data[stop:]
    return data


def wrong_syntax(data: bytes, rng: np.random.Generator) -> bytes:
    """Another transfer syntax than the pixels have."""
    at = data.find(b"\x02\x00\x10\x00UI")
    if at < 0:
        return flips(data, rng)
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    uid = _SYNTAXES[int(rng.integers(len(_SYNTAXES)))].encode()
    uid += b"\0" * (len(uid) % 2)
    group = int.from_bytes(data[140:144], "little") + len(uid) - length
    new = data[: at + 6] + len(uid).to_bytes(2, "little") + uid + data[at + 8 + length :]
    return new[:140] + (group % 2**32).to_bytes(4, "little") + new[144:]


MUTATIONS: tuple[Mutation, ...] = (
    *(flips, header_flips, stream_flips, cut, insertion, duplication, deletion),
    *(wrong_length, wrong_vr, wrong_number, wrong_syntax),
)


def mutated(name: str, data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """A file damaged once or twice, and how; what is packed as a whole is damaged inside too."""
    packed = bool(rng.integers(2))
    body = _unpacked(name, data) if packed else None
    how = []
    work = data if body is None else body
    for _ in range(int(rng.choice([1, 1, 2]))):
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        work = mutation(work, rng) if work else work
        how.append(mutation.__name__)
    return work if body is None else _packed(name, data, work), " and ".join(how)


def _flipped(data: bytes, rng: np.random.Generator, start: int, stop: int) -> bytes:
    if stop <= start:
        return data
    changed = bytearray(data)
    for at in rng.integers(start, stop, int(rng.choice([1, 4, 16]))):
        changed[at] = int(rng.integers(256))
    return bytes(changed)


def _part(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(len(data)))
    return start, min(len(data), start + int(rng.choice([1, 2, 8, 100, 4000])))


def _overwritten(data: bytes, at: int, rng: np.random.Generator, size: int = 2) -> bytes:
    if rng.integers(2):
        value = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
    else:
        value = int.from_bytes(data[at : at + size], "little") + int(rng.integers(-4, 5))
    return data[:at] + (value % 2 ** (8 * size)).to_bytes(size, "little") + data[at + size :]


def _unpacked(name: str, data: bytes) -> bytes | None:
    """What a .nii.gz or a deflated data set holds."""
    with contextlib.suppress(OSError, zlib.error, EOFError):
        if name.endswith(".gz"):
            return gzip.decompress(data)
        if _DEFLATED in data[:400]:
            return zlib.decompress(data[_body(data) :], -zlib.MAX_WBITS)
    return None


def _packed(name: str, whole: bytes, body: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(body, 1)
    press = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return whole[: _body(whole)] + press.compress(body) + press.flush()


def _body(data: bytes) -> int:
    return 144 + int.from_bytes(data[140:144], "little")
