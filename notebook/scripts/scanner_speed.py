"""Seconds an image takes on one core, how two processes scale, and their memory.

usage: OMP_NUM_THREADS=1 python notebook/scripts/scanner_speed.py
       [--slices 6] [--body lungman|patient]

Times whole slices as `cvsct simulate` makes them: a 5 mm slab of the phantom, one projection, five
tube voltages, one kernel. First in one process, then the same work in each of two at once. From
that, the hours of the `paper` scale on two cores, by its own plan.
"""

from __future__ import annotations

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import numpy as np

from cvsct.simulation.phantom.phantom import Phantom, RasterGrid, lungman, patient
from cvsct.simulation.physics.definition import load_definition
from cvsct.simulation.physics.scan import ImageGrid, VirtualScanner
from cvsct.simulation.plan import plan

KVPS = (70.0, 80.0, 100.0, 120.0, 140.0)
SCANNERS = {"ge-revolution-evo": "Lung", "siemens-somatom-force": "Bl64"}


@cache
def virtual_scanner(name: str) -> VirtualScanner:
    return VirtualScanner(load_definition(name))


@cache
def phantom(body: str) -> Phantom:
    return {"lungman": lungman, "patient": patient}[body](1)


def timed(name: str, body: str, slices: int, kvps: tuple[float, ...]) -> tuple[float, float]:
    """Seconds a slice, without the first (compilation, calibration), and peak memory in MB."""
    start = 0.0
    low, high = phantom(body).z_range_mm
    for i, z_mm in enumerate(np.linspace(low + 40, high - 60, slices + 1)):
        if i == 1:
            start = time.perf_counter()
        slab = phantom(body).slab(float(z_mm), 5.0, RasterGrid())
        virtual_scanner(name).images(
            slab,
            RasterGrid().extent_mm,
            dict.fromkeys(kvps, 100.0),
            (SCANNERS[name],),
            5.0,
            ImageGrid(),
            lambda kvp, i=i: np.random.default_rng([i, int(kvp)]),
        )
    seconds = (time.perf_counter() - start) / slices
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=6)
    parser.add_argument("--body", choices=("lungman", "patient"), default="lungman")
    args = parser.parse_args()
    print("| scanner | s a slice, 5 kVp | s an image | s, 1 kVp alone | two processes | MB each |")
    print("|---|---|---|---|---|---|")
    five, single = {}, {}
    for name in SCANNERS:
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            job = (name, args.body, args.slices)
            alone, _ = pool.submit(timed, *job, KVPS).result()
            one, _ = pool.submit(timed, *job, (120.0,)).result()
            both = [pool.submit(timed, *job, KVPS) for _ in range(2)]
            together = [each.result() for each in both]
        rate = sum(alone / seconds for seconds, _ in together)
        five[name], single[name] = float(np.mean([s for s, _ in together])), one
        memory = max(megabytes for _, megabytes in together)
        print(
            f"| {name} | {alone:.2f} | {alone / len(KVPS):.2f} | {one:.2f} | {rate:.2f}x | "
            f"{memory:.0f} |"
        )
    seconds = 0.0
    for scan in plan("paper", 0):
        more = (five[scan.scanner] - single[scan.scanner]) / (len(KVPS) - 1)
        readings = len(scan.kvps) * len(scan.kernels)
        seconds += scan.slices * (single[scan.scanner] + (readings - 1) * more)
    images = sum(scan.n_images for scan in plan("paper", 0))
    print(f"paper: {images} images, {seconds / 2 / 3600:.1f} h on two cores, files not counted")


if __name__ == "__main__":
    main()
