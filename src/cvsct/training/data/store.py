"""Voxels of one domain in a memory-mapped file, so that they need not fit into memory.

One pass over the scans writes all that training needs to draw patches at random:

| file | what |
|---|---|
| `voxels.bin` | HU: int16 where a series has whole numbers, as nearly all have, else float32 |
| `places.bin` | a bit for each place of a slice's grid where a soft-tissue patch may start |
| `index.json` | where each series lies, in the files and in space; what all was made from |

No identifier is in it, only hashes. It appears whole or not at all, and is used again when scans,
patches and pixel size are the same.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Bool, Float, Num

from cvsct.core.errors import GeometryError, TrainingError
from cvsct.core.files import config_hash, new_folder, write_json
from cvsct.core.progress import Progress, silent
from cvsct.core.volume import CTVolume, ScanFacts, Scans, facts_of
from cvsct.training.data.entry import Entry, hashed
from cvsct.training.data.patch_grid import PatchRule, corner, find_patch_starts
from cvsct.training.data.resampling import resampled, resampled_shape

FORMAT = 2
VOXELS, PLACES, INDEX = "voxels.bin", "places.bin", "index.json"
ALIGNMENT = 4096


class Store:
    """Slices of one domain, numbered consecutively, and the positions where patches may start.

    Args:
        folder: what `open_store` has written.
        facts: of the series as they are stored, resampled or not.
        fingerprint: tells one set of scans from another without naming them.
    """

    def __init__(self, folder: Path, facts: tuple[ScanFacts, ...], fingerprint: str) -> None:
        self.folder, self.facts, self.fingerprint = folder, facts, fingerprint
        about = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        self.rule = PatchRule(**about["rule"])
        self.entries = entries = tuple(Entry.from_json(value) for value in about["series"])
        voxels, places = (
            np.asarray(np.memmap(folder / name, np.uint8, "r")) for name in (VOXELS, PLACES)
        )
        self._stacks: list[Num[np.ndarray, "slices rows columns"]] = [
            voxels[entry.offset : entry.end].view(entry.dtype).reshape(entry.shape)
            for entry in entries
        ]
        self._grids = [self.rule.grid(*entry.shape[1:]) for entry in entries]
        self._bits = [
            places[entry.places_offset :][: entry.shape[0] * _packed(grid)].reshape(
                entry.shape[0], -1
            )
            for entry, grid in zip(entries, self._grids, strict=True)
        ]
        lengths = [entry.shape[0] for entry in entries]
        self.series = np.repeat(np.arange(len(entries)), lengths)
        self.counts = np.concatenate([np.array(entry.counts, np.int64) for entry in entries])
        self.z_mm = np.concatenate([entry.geometry.z_mm for entry in entries])
        frames = [
            entry.geometry.frame_of_reference or f"series {i}" for i, entry in enumerate(entries)
        ]
        self.frames = np.repeat(np.unique(frames, return_inverse=True)[1], lengths)
        self._first = np.concatenate([[0], np.cumsum(lengths)])

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the files again; no voxel is copied."""
        return Store, (self.folder, self.facts, self.fingerprint)

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.series)

    def first(self, series: int) -> int:
        """Number of a series' first slice."""
        return int(self._first[series])

    def plane(self, index: int) -> Num[np.ndarray, "rows columns"]:
        """CT numbers of a slice in HU; the file is read when they are used."""
        series = int(self.series[index])
        plane: Num[np.ndarray, "rows columns"] = self._stacks[series][index - self._first[series]]
        return plane

    def corner(self, index: int, rank: int) -> tuple[int, int]:
        """First row and column of one of a slice's places, by its rank in reading order."""
        series = int(self.series[index])
        bits = self._bits[series][index - self._first[series]]
        return corner(bits, self._grids[series], rank)


def open_store(
    folder: Path,
    scans: Scans,
    rule: PatchRule,
    resample_mm: float | None = None,
    progress: Progress = silent,
    name: str = "scans",
) -> Store:
    """Open the store in `folder` if it holds these scans with this rule, else write a new one.

    Args:
        resample_mm: pixel size to which every slice is brought; as they are where `None`.
        name: of the domain, for messages.

    Raises:
        TrainingError: if no slice shows enough soft tissue, or a slice is smaller than a patch.
        CvsctError: if a scan cannot be read.
        OSError: if the disk is full.
    """
    facts = facts_of(scans)
    if not is_current(folder, facts, rule, resample_mm):
        shutil.rmtree(folder, ignore_errors=True)
        about = {
            "format": FORMAT,
            "made_from": _origin_hash(facts, rule, resample_mm),
            "rule": asdict(rule),
        }
        with new_folder(folder) as partial:
            entries = _write(partial, scans, rule, resample_mm, progress, name)
            about["series"] = [entry.to_json() for entry in entries]
            write_json(partial / INDEX, about)
    return Store(folder, _as_stored(facts, resample_mm), fingerprint(facts))


def is_current(
    folder: Path, facts: Sequence[ScanFacts], rule: PatchRule, resample_mm: float | None
) -> bool:
    """Whether a complete store of these scans lies there; never of scans in memory."""
    try:
        about = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        size = (folder / VOXELS).stat().st_size
        end = max(Entry.from_json(value).end for value in about["series"])
        known = about["format"] == FORMAT and size == end and all(scan.stamp for scan in facts)
        return bool(known and about["made_from"] == _origin_hash(facts, rule, resample_mm))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def fingerprint(facts: Sequence[ScanFacts]) -> str:
    """Hash of a set of scans, independent of their order and without their names."""
    return config_hash({"series": sorted((scan.series_uid, *scan.shape) for scan in facts)})[:12]


def bytes_needed(facts: Sequence[ScanFacts], resample_mm: float | None) -> int:
    """Bytes that a store needs: voxels as int16, and an eightieth of that for patch positions."""
    voxels = sum(int(np.prod(scan.shape)) for scan in _as_stored(facts, resample_mm))
    return 2 * voxels + voxels // 40 + ALIGNMENT * len(facts)


def _as_stored(facts: Sequence[ScanFacts], resample_mm: float | None) -> tuple[ScanFacts, ...]:
    if resample_mm is None:
        return tuple(facts)
    return tuple(
        replace(
            scan,
            shape=resampled_shape(scan.shape, scan.pixel_mm, resample_mm),
            pixel_mm=(resample_mm, resample_mm),
        )
        for scan in facts
    )


def _origin_hash(facts: Sequence[ScanFacts], rule: PatchRule, resample_mm: float | None) -> str:
    series = [(scan.series_uid, *scan.shape, scan.stamp) for scan in facts]
    return config_hash({"series": series, "rule": asdict(rule), "resample_mm": resample_mm})


@dataclass
class _Writer:
    """Writer of a store, which appends one series after the other to the open files."""

    voxels: IO[bytes]
    places: IO[bytes]
    rule: PatchRule
    resample_mm: float | None
    name: str
    done: int = 0

    def add(self, volume: CTVolume) -> Entry:
        """Write a volume slice by slice; nothing of it is kept."""
        if self.resample_mm is not None:
            volume = resampled(volume, self.resample_mm)
        self.done += 1
        dtype = "<i2" if all(map(_is_whole, volume.hu)) else "<f4"
        self.voxels.write(bytes(-self.voxels.tell() % ALIGNMENT))
        offset, places_offset = self.voxels.tell(), self.places.tell()
        counts = []
        for plane in volume.hu:
            kept = self._places(plane)
            self.voxels.write(plane.astype(dtype).tobytes())
            self.places.write(np.packbits(kept).tobytes())
            counts.append(int(kept.sum()))
        return Entry(
            shape=volume.shape,
            dtype=dtype,
            offset=offset,
            places_offset=places_offset,
            counts=tuple(counts),
            geometry=replace(
                volume.geometry, frame_of_reference=hashed(volume.geometry.frame_of_reference)
            ),
            acquisition=volume.acquisition,
        )

    def _places(self, plane: Float[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "down across"]:
        try:
            return find_patch_starts(plane, self.rule)
        except GeometryError as error:
            raise TrainingError(
                f"series {self.done} of the {self.name}: {error}; set smaller patches"
            ) from error


def _write(
    folder: Path,
    scans: Scans,
    rule: PatchRule,
    resample_mm: float | None,
    progress: Progress,
    name: str,
) -> list[Entry]:
    entries: list[Entry] = []
    with (folder / VOXELS).open("wb") as voxels, (folder / PLACES).open("wb") as places:
        writer = _Writer(voxels, places, rule, resample_mm, name)
        progress(f"preparing the {name}", 0, len(scans))
        for entry in map(writer.add, scans):
            entries.append(entry)
            progress(f"preparing the {name}", len(entries), len(scans))
        for stream in (voxels, places):
            stream.flush()
            os.fsync(stream.fileno())
    if not any(sum(entry.counts) for entry in entries):
        raise TrainingError(
            f"no patch of {rule} in {len(entries)} series of the {name}; "
            "give scans of the body, or smaller patches"
        )
    return entries


def _is_whole(plane: Float[np.ndarray, "rows columns"]) -> bool:
    """Whether int16 holds these HU exactly."""
    with np.errstate(invalid="ignore"):
        return np.array_equal(plane.astype(np.int16), plane)


def _packed(grid: tuple[int, int]) -> int:
    """Bytes that hold a bit for each place of a grid."""
    return -(-grid[0] * grid[1] // 8)
