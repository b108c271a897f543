"""Features measured before, kept in one SQLite file and found by what they were measured on.

A key is the hash of a region's HU, mask and voxel size, of the settings and of the library's
version, so nothing ever has to be invalidated. Several processes may share the file: SQLite locks
it, and one process writes for all its workers. The cache never decides whether a run succeeds: an
entry that does not match its own hash is measured again, a file that is no database is replaced,
and a folder that cannot be written is a warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cvsct.core.files import canonical_json

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raise it when the same region would be measured differently by this package."""

MAX_ENTRIES = 500_000
"""Some 500 MB; the oldest go first."""

FILE = "features.sqlite"
_PATIENCE_S = 30.0
_MAX_VARIABLES = 500
_TABLE = "CREATE TABLE IF NOT EXISTS features (key TEXT PRIMARY KEY, entry BLOB, check_sum BLOB)"


@dataclass(frozen=True)
class MeasuredFeatures:
    """The features of one region.

    Args:
        values: NaN exactly where a feature is undefined.
        reasons: why, by feature.
    """

    values: Float[np.ndarray, " features"]
    reasons: Mapping[str, str] = field(default_factory=dict)


def default_folder() -> Path:
    """`cvsct/features` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "cvsct" / "features"


def content_key(
    hu: Float[np.ndarray, "*shape"],
    mask: Bool[np.ndarray, "*shape"],
    voxel_mm: tuple[float, float, float],
    settings: Mapping[str, Any],
) -> str:
    """The hash of all that shapes a region's features; pixels outside the mask do not."""
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
    """Features by content hash in a folder of its own.

    Args:
        folder: made when first written to.
    """

    folder: Path = field(default_factory=default_folder)

    def get(self, keys: Sequence[str], features: int) -> dict[str, MeasuredFeatures]:
        """What is known of these keys; entries that are damaged are left out.

        Args:
            features: how many values an entry has.
        """
        if not (self.folder / FILE).exists():
            return {}
        found: dict[str, MeasuredFeatures] = {}

        def read(connection: sqlite3.Connection) -> None:
            for start in range(0, len(keys), _MAX_VARIABLES):
                some = keys[start : start + _MAX_VARIABLES]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, entry, check_sum FROM features WHERE key IN ({marks})"
                for key, entry, check_sum in connection.execute(query, some):
                    measured = _decoded(key, entry, check_sum, features)
                    if measured is not None:
                        found[key] = measured

        self._with_file(read)
        return found

    def put(self, measured: Mapping[str, MeasuredFeatures]) -> None:
        """Keep these, all or none, and drop the oldest where there are too many."""
        rows = [_encoded(key, one) for key, one in measured.items()]

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", rows)
                connection.execute(
                    "DELETE FROM features WHERE rowid <= (SELECT max(rowid) FROM features) - ?",
                    (MAX_ENTRIES,),
                )

        self._with_file(write)

    def _with_file(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Do something with the file; what goes wrong costs the cache, never the run."""
        path = self.folder / FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE_S)) as connection:
                connection.execute(_TABLE)
                work(connection)
        except sqlite3.OperationalError as error:  # locked, read-only or full: leave the file
            logger.warning("the feature cache %s is not used: %s", path, error)
        except sqlite3.DatabaseError as error:
            logger.warning("the feature cache %s is damaged (%s) and starts anew", path, error)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("the feature cache %s is not used: %s", path, error.strerror)


def _encoded(key: str, measured: MeasuredFeatures) -> tuple[str, bytes, bytes]:
    values = measured.values.astype("<f8").tobytes()
    entry = values + json.dumps(dict(measured.reasons)).encode()
    return key, entry, hashlib.sha256(key.encode() + entry).digest()


def _decoded(key: str, entry: Any, check_sum: Any, features: int) -> MeasuredFeatures | None:
    """One entry; None where it is not what was written."""
    size = 8 * features
    sound = isinstance(entry, bytes) and hashlib.sha256(key.encode() + entry).digest() == check_sum
    if not sound or len(entry) < size:
        logger.warning("an entry of the feature cache is damaged and measured again")
        return None
    values = np.frombuffer(entry[:size], dtype="<f8").astype(np.float64)
    return MeasuredFeatures(values, json.loads(entry[size:]))
