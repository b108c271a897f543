"""What the study of the slice guard works on: slices, harmonised, and what they read, kept."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import cvsct.guard
import guard_failures
from cvsct.core.files import write_json
from cvsct.core.seeding import random_stream
from cvsct.guard.output_check import SliceChange, measure_change
from cvsct.io.read import find_series, read_series
from cvsct.methods.base import RunOptions
from cvsct.methods.registry import find_method
from cvsct.model.bundle import Bundle
from guard_failures import Failure, Good

MEASURING = (
    "levels.py",
    "clipping.py",
    "displacement.py",
    "drift.py",
    "lattice.py",
    "structures.py",
    "guard_failures.py",
)
"""What shapes a measurement; how limits are set does not."""


@dataclass(frozen=True)
class Slice:
    """A slice before and after the model.

    Args:
        body: who is shown; all slices of a body lie in one fold.
    """

    body: str
    good: Good


def harmonised(args: argparse.Namespace, reverse: bool) -> list[Slice]:
    """All slices of one direction's source, from the cache where they are there."""
    bundle = Bundle.read(args.model)
    mapping = None
    found = []
    for data in args.data:
        for role in filter(lambda name: (data / name).is_dir(), args.roles):
            sides = sorted(path for path in (data / role).iterdir() if path.is_dir())
            source, target = sides[::-1] if reverse else sides
            scanned = {_body(series): series for series in sorted(target.iterdir())}
            for folder in sorted(source.iterdir()):
                (series,) = find_series(folder)
                volume = read_series(series)
                cache = (
                    args.out
                    / "cache"
                    / f"{bundle.sha256[:12]}-{data.name}-{folder.name}-{int(reverse)}.npy"
                )
                if not cache.exists():
                    if mapping is None:
                        mapping = find_method(bundle.method).load(
                            bundle, "b2a" if reverse else "a2b", RunOptions()
                        )
                    cache.parent.mkdir(parents=True, exist_ok=True)
                    np.save(cache, mapping(volume))
                after = np.load(cache)
                who = _body(folder)
                other = read_series(*find_series(scanned[who])).hu if who in scanned else None
                step = slice(None, None, args.every)
                for index in range(len(volume.hu))[step]:
                    good = Good(
                        volume.hu[index],
                        after[index],
                        None if other is None else other[index],
                        volume.pixel_mm,
                        volume.geometry.thickness_mm,
                    )
                    found.append(Slice(f"{data.name}-{who}", good))
    return found


def _body(folder: Path) -> str:
    return folder.name.partition("_")[0]


class Measured:
    """What each planted failure reads, kept in a file: limits can be set anew without measuring."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def changes(
        self, name: str, scans: Sequence[Slice], chosen: Sequence[int], failure: Failure
    ) -> list[SliceChange | None]:
        """One for each chosen slice; `None` where the failure had no place."""
        known = self._known.setdefault(name, {})
        new = [index for index in chosen if str(index) not in known]
        for index in new:
            good = scans[index].good
            pair = failure(good, random_stream(0, name, str(index)))
            known[str(index)] = pair and asdict(measure_change(*pair, good.pixel_mm))
        if new:
            write_json(self._path, self._known)
        records = [known[str(index)] for index in chosen]
        return [record and SliceChange(**record) for record in records]


def code_hash() -> str:
    """Of `MEASURING`."""
    parts = [*Path(cvsct.guard.__file__).parent.glob("*.py"), Path(guard_failures.__file__)]
    texts = [part.read_bytes() for part in sorted(parts) if part.name in MEASURING]
    return hashlib.sha256(b"".join(texts)).hexdigest()[:12]
