"""What features cost: seconds and memory for pairs of slices, cold and from the cache.

`python -m benchmarks.radiomics [--pairs N] [--rois N] [--out FILE]`; the full size is 250 pairs of
5 regions, both sides of each pair. Each line is a process of its own, so that peaks do not mix.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from cvsct.core.files import write_json
from cvsct.core.seeding import random_stream
from cvsct.evaluation.features.cache import FeatureCache
from cvsct.evaluation.features.radiomics import PARALLEL_FROM, Patch, extract, settings_record

ROI_PX = 32
NOISE_HU = 25.0
BLUR_PX = {"source": 0.6, "target": 1.0}
"""Kernels of the two sides, as the blur of white noise."""

_MIB = 2**20
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def texture(pairs: int, rois: int, seed: int) -> list[Patch]:
    """Soft tissue with band-limited noise of one strength, in whole HU, both sides of each pair.

    Filtered back projection leaves little noise at the lowest frequencies: a wide blur is taken
    out again.
    """
    patches = []
    for side, blur_px in BLUR_PX.items():
        rng = random_stream(seed, "benchmark", side)
        for _ in range(pairs * rois):
            white = rng.normal(size=(ROI_PX + 32, ROI_PX + 32))
            fine = ndimage.gaussian_filter(white, blur_px) - ndimage.gaussian_filter(white, 4.0)
            tissue = rng.uniform(20.0, 80.0) + rng.uniform(0.5, 1.5) * NOISE_HU * fine / fine.std()
            hu = np.rint(tissue[16:-16, 16:-16]).astype(np.float32)
            patches.append(Patch(hu, (5.0, 0.7, 0.7)))
    return patches


def measure(report: Connection, patches: list[Patch], workers: int, folder: Path | None) -> None:
    """Extract in this process, and send what it took."""
    start = time.perf_counter()
    table = extract(patches, workers=workers, cache=FeatureCache(folder) if folder else None)
    seconds = time.perf_counter() - start
    own, child = (
        resource.getrusage(who).ru_maxrss * _RSS_UNIT / _MIB
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    report.send(
        {
            "seconds": round(seconds, 3),
            "ms_per_region": round(1000 * seconds / len(patches), 3),
            "peak_mib_main": round(own),
            "peak_mib_largest_worker": round(child),
            "checksum": float(np.nansum(np.log1p(np.abs(table.values)))),
        }
    )


def alone(patches: list[Patch], workers: int, folder: Path | None) -> dict[str, Any]:
    """`measure` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(send, patches, workers, folder))
    process.start()
    send.close()
    result: dict[str, Any] = receive.recv()
    process.join()
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=250)
    parser.add_argument("--rois", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    patches = texture(options.pairs, options.rois, options.seed)
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            runs[f"no cache, {workers} process{'es' * (workers - 1)}"] = alone(
                patches, workers, None
            )
        for state in ("cold", "warm"):
            runs[f"{state} cache, 1 process"] = alone(patches, 1, Path(folder))
        cache_mib = sum(file.stat().st_size for file in Path(folder).iterdir()) / _MIB
    record = {
        "what": "radiomic features",
        "machine": {
            "platform": platform.platform(terse=True),
            "python": platform.python_version(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
        "settings": settings_record(),
        "pairs": options.pairs,
        "rois": options.rois,
        "regions": len(patches),
        "roi_px": ROI_PX,
        "starts_processes": len(patches) >= PARALLEL_FROM,
        "runs": runs,
        "cache_mib": round(cache_mib, 2),
        "same_figures": len({run["checksum"] for run in runs.values()}) == 1,
    }
    if options.out:
        write_json(options.out, record)
    print(json.dumps(record, indent=2))
    shown = "; ".join(f"{name} {run['seconds']:.1f} s" for name, run in runs.items())
    print(f"{len(patches)} regions of {ROI_PX} px x 93 features: {shown}")


if __name__ == "__main__":
    main()
