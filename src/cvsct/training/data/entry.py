"""Entry of one series in a store: its offsets in the files, and its geometry."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cvsct.core.volume import Acquisition, Geometry


@dataclass(frozen=True)
class Entry:
    """Offsets of one series in the files of a store, and its geometry, by which series pair.

    Args:
        dtype: how its HU are stored.
        offset: of its voxels, in bytes.
        places_offset: of its places, in bytes; each slice has the same number.
        counts: places of each slice.
        geometry: its frame of reference is a hash, the same in every store.
    """

    shape: tuple[int, int, int]
    dtype: str
    offset: int
    places_offset: int
    counts: tuple[int, ...]
    geometry: Geometry
    acquisition: Acquisition

    @property
    def end(self) -> int:
        """Offset after its voxels."""
        return self.offset + int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Any]:
        """JSON values for the index of a store."""
        about = asdict(self)
        about["geometry"]["positions_mm"] = self.geometry.positions_mm.tolist()
        return about

    @classmethod
    def from_json(cls, about: dict[str, Any]) -> Entry:
        """Entry from the values of the index; floats are exact.

        Raises:
            KeyError, TypeError, ValueError: where the index is of another format.
        """
        slices, rows, columns = about["shape"]
        known = about["geometry"]
        axes = {key: tuple(known[key]) for key in ("row_direction", "column_direction", "pixel_mm")}
        positions_mm = np.array(known["positions_mm"], dtype=float)
        changed = {
            "shape": (slices, rows, columns),
            "counts": tuple(about["counts"]),
            "geometry": Geometry(**{**known, **axes, "positions_mm": positions_mm}),
            "acquisition": Acquisition(**about["acquisition"]),
        }
        return cls(**{**about, **changed})


def hashed(frame_of_reference: str) -> str:
    """Hash of a frame of reference; empty where unknown."""
    return frame_of_reference and hashlib.sha256(frame_of_reference.encode()).hexdigest()[:16]
