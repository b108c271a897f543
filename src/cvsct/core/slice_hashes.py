"""Keyed hashes of slices, by which a model recognizes the scans that it learned from.

A test on scans that a model has seen in training says little about others. A model therefore keeps
a hash of some slices of every training series. The hash is of pixels alone, rounded to whole HU,
and keyed: it tells whoever holds the same image that it was learned from, and nobody anything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Num

LEARNED = "learned_slice_hashes"
"""Key of such hashes in a model's guard section and in manifests; counts are `learned_slices`."""

DIGEST_BYTES = 8
"""Length of a hash: two different slices have equal ones once in 10^19."""

MAX_KEY_BYTES = hashlib.blake2b.MAX_KEY_SIZE
"""Largest length of a key."""


@dataclass(frozen=True)
class SliceHashes:
    """Hashes of slices under one key.

    Args:
        key: as hexadecimal text.
        hashes: one for each slice, as hexadecimal text.
        complete: whether all scans that were learned from are among them; not where a side was a
            profile. What is found was learned from, what is not found is then unknown.

    Example:
        >>> import numpy as np
        >>> seen = SliceHashes.of("6b6579", [np.zeros((4, 4))])
        >>> seen.count(np.zeros((2, 4, 4))), seen.count(np.ones((2, 4, 4)))
        (2, 0)
    """

    key: str
    hashes: frozenset[str]
    complete: bool = True

    @classmethod
    def of(
        cls, key: str, planes: Iterable[Num[np.ndarray, "rows columns"]], complete: bool = True
    ) -> SliceHashes:
        """Hash slices in HU."""
        return cls(key, frozenset(_hash(key, plane) for plane in planes), complete)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> SliceHashes:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: if it is something else.
        """
        key, hashes = str(record["key"]), record["hashes"]
        if not isinstance(hashes, list):
            raise TypeError(f"hashes are a list, not {type(hashes).__name__}")
        if len(bytes.fromhex(key)) > MAX_KEY_BYTES:
            raise ValueError(f"the key has more than {MAX_KEY_BYTES} bytes")
        return cls(key, frozenset(map(str, hashes)), record.get("complete", True) is True)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a model or a manifest; the order tells nothing of the scans."""
        partly = {} if self.complete else {"complete": False}
        return {"key": self.key, "hashes": sorted(self.hashes), **partly}

    def told(self, count: int) -> bool:
        """Whether a number of slices found here tells if a scan was learned from."""
        return self.complete or count > 0

    def count(self, hu: Num[np.ndarray, "slices rows columns"]) -> int:
        """Number of slices in HU that have a hash here."""
        return sum(_hash(self.key, plane) in self.hashes for plane in hu)


def _hash(key: str, plane: Num[np.ndarray, "rows columns"]) -> str:
    whole = np.rint(plane).astype("<i4")
    digest = hashlib.blake2b(key=bytes.fromhex(key), digest_size=DIGEST_BYTES)
    digest.update(repr(whole.shape).encode())
    digest.update(np.ascontiguousarray(whole).data)
    return digest.hexdigest()
