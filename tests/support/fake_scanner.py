"""Fake bodies and scanners for tests of simulation runs: fast, deterministic, failing on request.

Functions at module level, so that worker processes find them by name.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cvsct.core.volume import CTVolume, SimulatedStudy
from cvsct.io.dicom.simulated import write_simulated
from cvsct.simulation.benchmark import Scan, SimulationOptions, Subject
from cvsct.simulation.phantom.lesion import Lesion
from cvsct.simulation.physics.definition import ScannerDefinition
from cvsct.simulation.physics.detector import WaterPaths
from cvsct.simulation.physics.scan import AcquiredRotation
from cvsct.simulation.physics.tube_current import Exposure
from cvsct.simulation.plan import plan
from cvsct.simulation.render_task import Builders
from cvsct.simulation.run import run_simulation


@dataclass(frozen=True)
class FakeNodule:
    centre_mm: tuple[float, float, float] = (80.0, -20.5, -60.0)
    diameter_mm: float = 8.0
    hu: float = -630.0
    shape: str = "spherical"
    volume_mm3: float = 268.1


@dataclass(frozen=True)
class FakePhantom:
    """A disc whose radius is the body's own."""

    subject: Subject

    @property
    def z_range_mm(self) -> tuple[float, float]:
        return -230.0, 110.0

    @property
    def lesion(self) -> Lesion | None:
        traits = self.subject.lesion
        return traits and Lesion((-80.0, 10.25, -61.0), traits, self.subject.seed)

    @property
    def nodules(self) -> tuple[FakeNodule, ...]:
        return (FakeNodule(),) * (self.subject.seed % 3)

    def slab(self, z_mm: float, thickness_mm: float, grid: Any) -> np.ndarray:
        return np.full((2, 4, 4), 1 + self.subject.seed % 7 + z_mm / 1000, np.float32)


def water_paths(mm: np.ndarray) -> WaterPaths:
    return WaterPaths(mm.astype(np.float32), lambda: np.ones(mm.shape, np.float32))


@dataclass(frozen=True)
class FakeScanner:
    """HU that depend on all that they should depend on, and on nothing else."""

    definition: ScannerDefinition
    seconds: float = 0.0

    def paths(self, amounts: np.ndarray, extent_mm: float) -> tuple[np.ndarray, ...]:
        return (amounts,)

    def acquire(
        self, paths: tuple[np.ndarray, ...], exposures: Any, thickness_mm: float,
        rng_of: Any, modulate: bool, variance_share: float,
    ) -> AcquiredRotation:  # fmt: skip
        time.sleep(self.seconds)
        level = 100 * float(paths[0].mean())
        water = {
            kvp: water_paths(level + rng_of(kvp).normal(0, 1000 / mas, (512, 512)))
            for kvp, mas in exposures.items()
        }
        return AcquiredRotation(water, {kvp: Exposure(mas) for kvp, mas in exposures.items()})

    def reconstruct(
        self, water: Any, kernels: Any, grid: Any, reconstructions: Any
    ) -> dict[tuple[float, str, str], np.ndarray]:
        images = {}
        for kvp, paths in water.items():
            for kernel in kernels:
                level = len(kernel) + grid.centre_mm[0]
                image = (level + paths.mm[: grid.size_px, : grid.size_px]).astype(np.float32)
                image[0] = -1000  # air, as every CT shows
                for reconstruction in reconstructions:
                    is_fbp = reconstruction == "fbp"
                    images[kvp, kernel, reconstruction] = image if is_fbp else image / 2
        return images


def slow_scanner(definition: ScannerDefinition) -> FakeScanner:
    return FakeScanner(definition, 0.02)


def body_failing_for_5(subject: Subject) -> FakePhantom:
    if subject.seed == 5:
        raise ValueError("no bones")
    return FakePhantom(subject)


def body_killing_for_5(subject: Subject) -> FakePhantom:
    if subject.seed == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return FakePhantom(subject)


def write_to_a_full_disk(volume: CTVolume, folder: Path, study: SimulatedStudy, first: int) -> None:
    if first == 3:
        raise OSError(28, "No space left on device", str(folder))
    write_simulated(volume, folder, study, first)


FAKE = Builders(FakePhantom, FakeScanner)
SLOW = Builders(FakePhantom, slow_scanner)
FAILING = Builders(body_failing_for_5, FakeScanner)
KILLING = Builders(body_killing_for_5, FakeScanner)

simulate = partial(run_simulation, write=write_simulated)


def tiny(seed: int = 0, options: SimulationOptions = SimulationOptions()) -> tuple[Scan, ...]:  # noqa: B008
    return plan("tiny", seed, options)


if __name__ == "__main__":  # a process of its own, to be killed by a test
    import sys

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
    simulate(tiny(), {"seed": 0}, Path(sys.argv[1]), workers=int(sys.argv[2]), builders=SLOW)
