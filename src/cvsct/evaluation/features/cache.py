"""Cache of measured features in one SQLite file, by a hash of what they were measured on.

A key is the hash of a region's HU, mask and voxel size, of the settings and of the library's
version, so no entry ever becomes invalid. Several processes may share the file: SQLite locks it,
and one process writes for all its workers. A broken cache never fails a run: an entry that does not
match its own hash is measured again, a file that is no database is replaced, and a folder that
cannot be written gives a warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cvsct.core import platform
from cvsct.core.files import canonical_json

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the entries; to be raised when this package measures the same region differently."""

MAX_ENTRIES = 500_000
"""Largest number of entries, about 500 MB; the oldest are removed first."""

FILE = "features.sqlite"
"""Name of the file in the cache folder."""

_PATIENCE_S = 30.0
_MAX_VARIABLES = 500
_TABLE = "CREATE TABLE IF NOT EXISTS features (key TEXT PRIMARY KEY, entry BLOB, check_sum BLOB)"


@dataclass(frozen=True)
class MeasuredFeatures:
    """Features of one region.

    Args:
        values: the values, NaN exactly where a feature is undefined.
        reasons: why features are undefined, by their names.
    """

    values: Float[np.ndarray, " features"]
    reasons: Mapping[str, str] = field(default_factory=dict)


def default_folder() -> Path:
    """The folder `features` in the user's cache folder of this package."""
    return platform.cache_folder() / "features"


def content_key(
    hu: Float[np.ndarray, "*shape"],
    mask: Bool[np.ndarray, "*shape"],
    voxel_mm: tuple[float, float, float],
    settings: Mapping[str, Any],
) -> str:
    """Hash of everything that determines a region's features.

    Args:
        hu: pixels of the region; those outside the mask do not change the hash.
        mask: pixels that belong to the region.
        voxel_mm: size of a voxel along slices, rows and columns.
        settings: settings of the features, with the library's version.
    """
    record = {
        "format": FORMAT,
        "shape": list(hu.shape),
        "voxel_mm": [float(mm) for mm in voxel_mm],
        "settings": dict(settings),
    }
    digest = hashlib.sha256(canonical_json(record).encode())
    digest.update(np.where(mask, hu, 0).astype("<f8").tobytes())
    digest.update(np.packbits(mask).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class FeatureCache:
    """Cache of features by `content_key`.

    Args:
        folder: folder of the file; created when it is first written to.
    """

    folder: Path = field(default_factory=default_folder)

    def get(self, keys: Sequence[str], features: int) -> dict[str, MeasuredFeatures]:
        """Read the entries of these keys; missing and damaged ones are left out.

        Args:
            keys: keys of the regions.
            features: number of values in an entry.
        """
        decoded = {key: _decoded(entry, features) for key, entry in self._entries(keys).items()}
        return {key: measured for key, measured in decoded.items() if measured is not None}

    def put(self, measured: Mapping[str, MeasuredFeatures]) -> None:
        """Write entries in one transaction, and remove the oldest ones if there are too many."""
        self._write({key: _encoded(features) for key, features in measured.items()})

    def get_named(self, keys: Sequence[str]) -> dict[str, dict[str, float]]:
        """Read entries that `put_named` wrote, by their keys; missing and damaged are left out."""
        return {
            key: {name: float(value) for name, value in json.loads(entry).items()}
            for key, entry in self._entries(keys).items()
        }

    def put_named(self, measured: Mapping[str, Mapping[str, float]]) -> None:
        """Write features by their names, where the names depend on the settings of a run."""
        self._write({key: json.dumps(dict(named)).encode() for key, named in measured.items()})

    def _entries(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Sound entries of the file by their keys."""
        if not (self.folder / FILE).exists():
            return {}
        entries: dict[str, bytes] = {}

        def read(connection: sqlite3.Connection) -> None:
            for start in range(0, len(keys), _MAX_VARIABLES):
                chunk = keys[start : start + _MAX_VARIABLES]
                marks = ",".join("?" * len(chunk))
                query = f"SELECT key, entry, check_sum FROM features WHERE key IN ({marks})"
                for key, entry, check_sum in connection.execute(query, chunk):
                    if isinstance(entry, bytes) and _check_sum(key, entry) == check_sum:
                        entries[key] = entry
                    else:
                        logger.warning(_DAMAGED)

        self._with_file(read)
        return entries

    def _write(self, entries: Mapping[str, bytes]) -> None:
        """Write entries in one transaction, and remove the oldest ones if there are too many."""
        rows = [(key, entry, _check_sum(key, entry)) for key, entry in entries.items()]

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", rows)
                connection.execute(
                    "DELETE FROM features WHERE rowid <= (SELECT max(rowid) FROM features) - ?",
                    (MAX_ENTRIES,),
                )

        self._with_file(write)

    def _with_file(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Call `work` with the open file; an error costs the cache, never the run."""
        path = self.folder / FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE_S)) as connection:
                connection.execute(_TABLE)
                work(connection)
        except sqlite3.OperationalError as error:  # locked, read-only or full: leave the file
            logger.warning("the feature cache %s is not used: %s", path, error)
        except sqlite3.DatabaseError as error:
            logger.warning("the feature cache %s is damaged (%s) and is replaced", path, error)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("the feature cache %s is not used: %s", path, error.strerror)


_DAMAGED = "an entry of the feature cache is damaged and measured again"


def _check_sum(key: str, entry: bytes) -> bytes:
    return hashlib.sha256(key.encode() + entry).digest()


def _encoded(measured: MeasuredFeatures) -> bytes:
    return measured.values.astype("<f8").tobytes() + json.dumps(dict(measured.reasons)).encode()


def _decoded(entry: bytes, features: int) -> MeasuredFeatures | None:
    """Features of an entry; None where it is too short for them."""
    size = 8 * features
    if len(entry) < size:
        logger.warning(_DAMAGED)
        return None
    values = np.frombuffer(entry[:size], dtype="<f8").astype(np.float64)
    return MeasuredFeatures(values, json.loads(entry[size:]))
