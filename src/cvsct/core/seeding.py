"""Independent random streams from one seed, one for each purpose."""

from __future__ import annotations

import hashlib

import numpy as np


def random_stream(seed: int, *names: str) -> np.random.Generator:
    """Random generator for a named purpose, independent of others and fixed by the seed."""
    digest = hashlib.sha256("/".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], dtype=np.uint32).tolist()])
