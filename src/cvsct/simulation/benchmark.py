"""The benchmark as data: which body is scanned where, how thick, how often, into which folder.

Folders: `train/<scanner>`, `test/<scanner>`, `repeat/<scanner>`, `paired/<scanner>`, and under
`kernels/` the first three for `<kernel>`; each holds one folder a series.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

from cvsct.core.names import portable_name

GE, SIEMENS = "ge-revolution-evo", "siemens-somatom-force"
LUNG, BL64, BR40 = ("Lung",), ("Bl64",), ("Br40",)
PAPER_KVPS = (70.0, 80.0, 100.0, 120.0, 140.0)
TRAIN, TEST, REPEAT, PAIRED = "train", "test", "repeat", "paired"
KERNELS = "kernels"
KERNELS_TRAIN, KERNELS_TEST, KERNELS_REPEAT = (
    f"{KERNELS}/{part}" for part in (TRAIN, TEST, REPEAT)
)
PARTS = (TRAIN, TEST, REPEAT, KERNELS_TRAIN, KERNELS_TEST, KERNELS_REPEAT)
"""Made by default."""

FILE_HEADER_BYTES = 4096
"""A file's size above its pixels, rounded up to a block."""
FBP = "fbp"
"""The word for filtered back-projection, the reconstruction that every scanner has."""

BodyKind = Literal["lungman", "patient"]


@dataclass(frozen=True)
class Subject:
    """A virtual body, the same for the same values on any scanner."""

    kind: BodyKind
    seed: int
    parenchyma: bool = False

    @property
    def name(self) -> str:
        """Safe as a folder name and unique among bodies."""
        return f"{self.kind}-{self.seed:04d}" + ("-parenchyma" if self.parenchyma else "")


@dataclass(frozen=True)
class Series:
    """One reconstruction of a scan: its own folder of slices."""

    kvp: float
    mas: float
    kernel: str
    folder: str
    number: int
    reconstruction: str = FBP


@dataclass(frozen=True)
class Scan:
    """One body on one scanner at one slice thickness: one projection serves all kVp and kernels.

    Args:
        part: one of PARTS, or PAIRED.
        number: its place in the plan; makes series numbers unique.
        first_mm: centre of the first slice, from the middle of the body's z range; the others
            follow upwards, one thickness apart.
        mas: for each kVp.
        shift_mm: how far the image grid lies from the isocentre in x and y: misregistration that
            the headers do not tell.
        raster_px: side of the raster that is projected.
        reconstructions: each set of readings is reconstructed in each of these ways: `fbp`, and
            what the scanner's definition offers (`iterative-3`, `denoised-1`).
    """

    part: str
    number: int
    body: Subject
    scanner: str
    thickness_mm: float
    first_mm: float
    slices: int
    kvps: tuple[float, ...]
    mas: tuple[float, ...]
    kernels: tuple[str, ...]
    noise_seed: int
    fov_mm: float
    matrix_px: int
    raster_px: int
    shift_mm: tuple[float, float] = (0.0, 0.0)
    reconstructions: tuple[str, ...] = (FBP,)

    @property
    def name(self) -> str:
        """Which body, how thick."""
        return f"{self.body.name}_{self.thickness_mm:g}mm"

    @property
    def role(self) -> str:
        """Which part on which scanner; with the name unique in a plan."""
        return f"{self.part}/{self.scanner}"

    def __str__(self) -> str:
        return f"{self.role}/{self.name}"

    @property
    def n_images(self) -> int:
        """Slices times kVp times kernels times reconstructions."""
        return self.slices * len(self.kvps) * len(self.kernels) * len(self.reconstructions)

    @property
    def n_bytes(self) -> int:
        """About what its files take on disk."""
        return self.n_images * (2 * self.matrix_px**2 + FILE_HEADER_BYTES)

    def z_mm(self, i: int) -> float:
        """Centre of a slice, from the middle of the body's z range."""
        return self.first_mm + i * self.thickness_mm

    def series(self) -> tuple[Series, ...]:
        """Its reconstructions; the folders are relative to the output."""
        scanner = portable_name(self.scanner)
        by_kernel = self.part.startswith(f"{KERNELS}/")
        found: list[Series] = []
        for kvp, mas in zip(self.kvps, self.mas, strict=True):
            for kernel, how in product(self.kernels, self.reconstructions):
                safe = portable_name(kernel)
                parent = f"{self.part}/{safe if by_kernel else scanner}"
                name = f"{self.body.name}_{kvp:g}kVp_{self.thickness_mm:g}mm_{safe}"
                folder = f"{parent}/{name}" + (f"_{how}" if how != FBP else "")
                number = 100 * (self.number + 1) + len(found) + 1
                found.append(Series(kvp, mas, kernel, folder, number, how))
        return tuple(found)


@dataclass(frozen=True)
class Options:
    """What a user may change about a benchmark.

    Args:
        mas: exposure of one rotation, on both scanners unless `match_dose`.
        match_dose: give the Siemens scanner the mAs that make its CTDIvol the GE scanner's.
        shift_px: misregistration of the test pair: how far the Siemens images lie to the side.
        parenchyma: lungs with texture and vessels' mist instead of air.
        reconstructions: the ways in which each acquisition is reconstructed.
    """

    mas: float = 100.0
    match_dose: bool = False
    shift_px: float = 0.0
    parenchyma: bool = False
    fov_mm: float = 350.0
    reconstructions: tuple[str, ...] = (FBP,)
