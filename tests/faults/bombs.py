"""Small files that want to be large: refused in bounded memory and time.

`python -m tests.faults.bombs`. Whoever opens one may take 2 GiB and 10 s.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openjpeg.utils import encode_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from cvsct.core.workers import Processes
from cvsct.io.masks import read_masks
from cvsct.io.read import read_all
from tests.faults.finding import Finding, script
from tests.faults.limits import Attempt, attempt, confine
from tests.faults.models import ALTERED, Place, _used, write_model
from tests.io.test_enhanced import enhanced
from tests.support.compressed_files import VALUES, write_compressed
from tests.support.dicom_files import slice_dataset, stored_values, write_series, write_slice
from tests.support.nifti_files import write_scan

_OPEN_ITEM = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
_BEFORE = b"\x10\x00\x10\x00PN"


def _slice(folder: Path, syntax: str = "1.2.840.10008.1.2.1") -> Path:
    return write_slice(folder / "a.dcm", slice_dataset(0, stored_values(1)[0]), syntax)


def deflated(folder: Path) -> Path:
    """A data set that inflates to a gigabyte."""
    path = _slice(folder, DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(path.read_bytes()[140:144], "little")
    path.write_bytes(path.read_bytes()[:start] + _packed(b"", 64))
    return path


def packed_nifti(folder: Path) -> Path:
    """A .nii.gz that declares a gigabyte and holds it in a megabyte."""
    return _nifti(folder, (512, 512, 2048), 2**30)


def long_nifti(folder: Path) -> Path:
    """A .nii.gz that holds a gigabyte more than it declares."""
    return _nifti(folder, (24, 20, 6), 2**30)


def _nifti(folder: Path, sizes: tuple[int, ...], held: int) -> Path:
    plain = write_scan(folder / "a.nii")
    head = bytearray(plain.read_bytes()[:352])
    plain.unlink()
    head[40:56] = np.array([3, *sizes, 1, 1, 1, 1], "<i2").tobytes()
    head[108:112] = np.float32(352).tobytes()
    path = folder / "a.nii.gz"
    gzip_head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # RFC 1952; nobody gets as far as the checksum
    path.write_bytes(gzip_head + _packed(bytes(head), held >> 24) + bytes(8))
    return path


def _packed(head: bytes, times: int) -> bytes:
    """A deflated stream of a beginning and so many times 16 MiB of zeros, made in no time."""
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    begin = press.compress(head) + press.flush(zlib.Z_FULL_FLUSH)
    zeros = press.compress(bytes(2**24)) + press.flush(zlib.Z_FULL_FLUSH)
    return begin + times * zeros + press.flush()


def nifti_extensions(folder: Path) -> Path:
    """A NIfTI header whose voxels begin after a gigabyte of extensions."""
    path = write_scan(folder / "a.nii")
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(2**30).tobytes()
    path.write_bytes(content)
    return path


def huge_sides(folder: Path) -> Path:
    """Rows and columns of 65535."""
    ds = slice_dataset(0, VALUES)
    ds.Rows = ds.Columns = 65535
    return write_slice(folder / "a.dcm", ds)


def many_frames(folder: Path) -> Path:
    """A billion frames."""
    ds = enhanced()
    ds.NumberOfFrames = 10**9
    return write_slice(folder / "a.dcm", ds)


def shared_frames(folder: Path) -> Path:
    """As many groups as it declares frames, twenty thousand, and pixels for five."""
    ds = enhanced()
    group = ds.PerFrameFunctionalGroupsSequence[0]
    ds.PerFrameFunctionalGroupsSequence = [group] * 20_000
    ds.NumberOfFrames = 20_000
    return write_slice(folder / "a.dcm", ds)


def huge_codestream(folder: Path) -> Path:
    """A JPEG 2000 codestream that declares 60000 x 60000."""
    frame = bytearray(encode_array(VALUES, bits_stored=12))
    at = frame.index(b"\xff\x4f\xff\x51") + 8
    for place in (at, at + 4, at + 16, at + 20):  # image and tile
        frame[place : place + 4] = (60_000).to_bytes(4, "big")
    return write_compressed(folder / "a.dcm", JPEG2000Lossless, bytes(frame))


def agreed_codestream(folder: Path) -> Path:
    """The same of 4096 x 4096, as the header says too."""
    frame = bytearray(encode_array(VALUES, bits_stored=12))
    at = frame.index(b"\xff\x4f\xff\x51") + 8
    for place in (at, at + 4, at + 16, at + 20):
        frame[place : place + 4] = (4096).to_bytes(4, "big")
    return write_compressed(folder / "a.dcm", JPEG2000Lossless, bytes(frame), (4096, 4096))


def packed_bits(folder: Path) -> Path:
    """RLE segments that unpack to a gigabyte each."""
    segment = b"\x81\x00" * 2**22
    frame = np.array([2, 64, 64 + len(segment), *[0] * 13], "<u4").tobytes() + 2 * segment
    return write_compressed(folder / "a.dcm", RLELossless, frame)


def many_fragments(folder: Path) -> Path:
    """A million empty fragments."""
    path = write_compressed(folder / "a.dcm", RLELossless)
    content = path.read_bytes()
    at = content.index(b"\xfe\xff\x00\xe0")
    path.write_bytes(content[:at] + b"\xfe\xff\x00\xe0\0\0\0\0" * 10**6 + content[at:])
    return path


def deep_sequences(folder: Path) -> Path:
    """Sequences in sequences, a hundred thousand deep."""
    path = _slice(folder)
    content = path.read_bytes()
    at = content.index(_BEFORE)
    path.write_bytes(content[:at] + _OPEN_ITEM * 100_000 + content[at:])
    return path


def long_elements(folder: Path) -> Path:
    """An element that says it is 4 GiB long."""
    path = _slice(folder, ImplicitVRLittleEndian)
    content = path.read_bytes()
    at = content.index(b"\x10\x00\x10\x00")
    path.write_bytes(content[: at + 4] + b"\xf0\xff\xff\xff" + content[at + 8 :])
    return path


def endless_sequence(folder: Path) -> Path:
    """A sequence of a million items that does not end."""
    path = _slice(folder)
    content = path.read_bytes()
    at = content.index(_BEFORE)
    items = _OPEN_ITEM[:12] + b"\xfe\xff\x00\xe0\0\0\0\0" * 10**6
    path.write_bytes(content[:at] + items)
    return path


def model_json(folder: Path) -> Path:
    """A `model.json` nested a million deep."""
    return _altered(folder, "a model.json nested deep")


def safetensors_header(folder: Path) -> Path:
    """Weights whose header says it is 2^62 bytes long."""
    return _altered(folder, "a header without end")


def _altered(folder: Path, kind: str) -> Path:
    place = Place(write_model(folder / "model", "histogram"), folder / "mark", folder / "outside")
    ALTERED[kind][0](place)
    return place.model


def vgg_archive(folder: Path) -> Path:
    """A .npz whose first array unpacks to more than a gigabyte."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": (2**28 + 2**24,)}
    )
    path = folder / "a.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("block1_conv1/kernel.npy", "w", force_zip64=True) as member,
    ):
        member.write(stream.getvalue())
        for _ in range(68):
            member.write(bytes(2**24))
    return path


def vgg_header(folder: Path) -> Path:
    """A .npz whose array says that it has 2^50 values."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": (2**50,)}
    )
    path = folder / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("block1_conv1/kernel.npy", stream.getvalue())
    return path


def mask(folder: Path) -> Path:
    """A mask of 2^33 voxels in eight megabytes."""
    return _nifti(folder, (2048, 2048, 2048), 2**27)


def _weights(path: Path) -> None:
    from cvsct.training.vgg_weights import load_vgg

    load_vgg(path, ["relu1_1"])


def _masked(path: Path) -> None:
    (volume,) = read_all(write_series(path.parent / "series"))
    read_masks(path, volume)


OPENERS: dict[Callable[[Path], Path], Callable[[Path], object]] = {
    **dict.fromkeys(
        (deflated, packed_nifti, long_nifti, nifti_extensions, huge_sides, many_frames), read_all
    ),
    **dict.fromkeys(
        (shared_frames, huge_codestream, agreed_codestream, packed_bits, many_fragments), read_all
    ),
    **dict.fromkeys((deep_sequences, long_elements, endless_sequence), read_all),
    **dict.fromkeys((model_json, safetensors_header), _used),
    **dict.fromkeys((vgg_archive, vgg_header), _weights),
    mask: _masked,
}
"""What makes each bomb, and what opens it."""
QUICK = (nifti_extensions, huge_sides, many_frames, huge_codestream, long_elements, vgg_header)
"""Those made in no time, for CI."""


@dataclass(frozen=True)
class Opening:
    """Opens a bomb; picklable."""

    folder: Path

    def __call__(self, name: str) -> Iterator[int]:
        """The bomb of that name."""
        yield 0
        make = globals()[name]
        place = self.folder / name
        place.mkdir()
        path = make(place)
        with contextlib.suppress(Exception):  # libraries are loaded before the measure is taken
            OPENERS[make](_harmless(place, path))
        confine()
        return attempt(functools.partial(OPENERS[make], path))


def _harmless(place: Path, path: Path) -> Path:
    small = place / "small"
    small.mkdir()
    file = small / path.name
    file.write_bytes(b"")
    return file


def bombs(folder: Path, count: int, seed: int) -> Finding:
    """The first so many kinds; a seed changes nothing."""
    return opened(folder, [make.__name__ for make in list(OPENERS)[:count]])


def opened(folder: Path, names: list[str]) -> Finding:
    """Each kind, one after the other, in a process whose death would be seen."""
    failures: list[str] = []
    figures: dict[str, list[float]] = {}
    with contextlib.closing(Processes(Opening(folder), 1, max_deaths=len(names) + 1)) as pool:
        for name in names:
            print(name, file=sys.stderr, flush=True)
            pool.submit(name)
            while pool.in_flight:
                for report in pool.poll():
                    if report.kind == "done":
                        found: Attempt = report.result
                        figures[name] = [round(found.cpu_s, 2), found.peak_bytes >> 20]
                        wrong = found.fault or ("" if found.refused else "was taken")
                        failures += [f"{name}: {wrong}"] if wrong else []
                    elif report.kind != "step":
                        failures.append(f"{name}: {report.kind}: {report.message}")
    goal = "bombs: refused within 10 s and 2 GB"
    return Finding(goal, len(names), tuple(failures), {"cpu_s_and_mib": figures})


if __name__ == "__main__":
    script(bombs, len(OPENERS))
