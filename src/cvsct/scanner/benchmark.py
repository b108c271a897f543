"""The benchmark as data: which body is scanned where, how thick, how often, into which folder.

`paper` is Table 1 of the paper with virtual bodies in the place of its Lungman phantom and its
patients: GE Lung and Siemens Bl64 of different bodies to train on (unpaired), the same 50 slices
of one unseen body on both scanners to test on, and the kernel experiment (Bl64 against Br40 on one
scanner). What the paper could not have is the repeat: each test scan once more, with other noise,
which is the best that any method can reach. `demo` and `tiny` have the same parts, smaller.

Folders: `train/<scanner>`, `test/<scanner>`, `repeat/<scanner>`, and under `kernels/` the same for
`<kernel>`; each holds one folder a series. The numbers of slices a thickness, which the paper does
not give, are chosen so that its totals come out exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cvsct.errors import UsageError
from cvsct.scanner.profile import load_profile

GE, SIEMENS = "ge-revolution-evo", "siemens-somatom-force"
LUNG, BL64, BR40 = ("Lung",), ("Bl64",), ("Br40",)
PAPER_KVPS = (70.0, 80.0, 100.0, 120.0, 140.0)
TRAIN, TEST, REPEAT = "train", "test", "repeat"
KERNELS = "kernels"
KERNELS_TRAIN, KERNELS_TEST, KERNELS_REPEAT = (
    f"{KERNELS}/{part}" for part in (TRAIN, TEST, REPEAT)
)
PARTS = (TRAIN, TEST, REPEAT, KERNELS_TRAIN, KERNELS_TEST, KERNELS_REPEAT)

BODIES_PER_SEED = 10_000
"""Bodies of the benchmark with seed s have the seeds from s times this on."""
FILE_HEADER_BYTES = 4096
"""A file's size above its pixels, rounded up to a block."""

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


@dataclass(frozen=True)
class Scan:
    """One body on one scanner at one slice thickness: one projection serves all kVp and kernels.

    Args:
        part: one of PARTS.
        number: its place in the plan; makes series numbers unique.
        first_mm: centre of the first slice, from the middle of the body's z range; the others
            follow upwards, one thickness apart.
        mas: for each kVp.
        shift_mm: how far the image grid lies from the isocentre in x and y: misregistration that
            the headers do not tell.
        raster_px: side of the raster that is projected.
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
        """Slices times kVp times kernels."""
        return self.slices * len(self.kvps) * len(self.kernels)

    @property
    def n_bytes(self) -> int:
        """About what its files take on disk."""
        return self.n_images * (2 * self.matrix_px**2 + FILE_HEADER_BYTES)

    def z_mm(self, i: int) -> float:
        """Centre of a slice, from the middle of the body's z range."""
        return self.first_mm + i * self.thickness_mm

    def series(self) -> tuple[Series, ...]:
        """Its reconstructions; the folders are relative to the output."""
        by_kernel = self.part.startswith(f"{KERNELS}/")
        found: list[Series] = []
        for kvp, mas in zip(self.kvps, self.mas, strict=True):
            for kernel in self.kernels:
                parent = f"{self.part}/{kernel if by_kernel else self.scanner}"
                name = f"{self.body.name}_{kvp:g}kVp_{self.thickness_mm:g}mm_{kernel}"
                number = 100 * (self.number + 1) + len(found) + 1
                found.append(Series(kvp, mas, kernel, f"{parent}/{name}", number))
        return tuple(found)


@dataclass(frozen=True)
class Options:
    """What a user may change about a benchmark.

    Args:
        mas: exposure of one rotation, on both scanners unless `match_dose`.
        match_dose: give the Siemens scanner the mAs that make its CTDIvol the GE scanner's.
        shift_px: misregistration of the test pair: how far the Siemens images lie to the side.
        parenchyma: lungs with texture and vessels' mist instead of air.
    """

    mas: float = 100.0
    match_dose: bool = False
    shift_px: float = 0.0
    parenchyma: bool = False
    fov_mm: float = 350.0


@dataclass(frozen=True)
class _Row:
    """Slices of one thickness on one scanner.

    Args:
        slices: positions in all, spread evenly over the bodies.
        same_body: rows with the same word here scan one and the same body; others their own.
    """

    part: str
    scanner: str
    kernels: tuple[str, ...]
    kind: BodyKind
    thickness_mm: float
    slices: int
    bodies: int = 1
    kvps: tuple[float, ...] = (120.0,)
    same_body: str = ""


@dataclass(frozen=True)
class _Scale:
    rows: tuple[_Row, ...]
    matrix_px: int = 512
    raster_px: int = 1024


def _lungman_paper() -> tuple[_Row, ...]:
    """GE 11,070 images, Siemens 7,290, each at five kVp; 250 pairs to test on.

    No stack is longer than 250 mm; the chest of the phantom is 235 mm long and more.
    """
    ge = {0.625: (800, 2), 1.25: (600, 3), 2.5: (400, 4), 3.75: (214, 4), 5.0: (200, 4)}
    siemens = {1.0: (600, 3), 1.5: (458, 3), 3.0: (240, 3), 5.0: (160, 4)}
    return (
        *(_Row(TRAIN, GE, LUNG, "lungman", mm, *n, PAPER_KVPS) for mm, n in ge.items()),
        *(_Row(TRAIN, SIEMENS, BL64, "lungman", mm, *n, PAPER_KVPS) for mm, n in siemens.items()),
        _Row(TEST, GE, LUNG, "lungman", 5.0, 50, 1, PAPER_KVPS, same_body=TEST),
        _Row(TEST, SIEMENS, BL64, "lungman", 5.0, 50, 1, PAPER_KVPS, same_body=TEST),
    )


def _patients_paper() -> tuple[_Row, ...]:
    """Siemens: 1,866 images for the main benchmark, 2 x 4,790 for the kernels, 200 pairs.

    No stack is longer than 200 mm; the smallest patient's chest is 180 mm long.
    """
    main = {1.0: (700, 4), 1.5: (500, 4), 3.0: (366, 6), 5.0: (300, 8)}
    kernel = {0.5: (2000, 5), 1.0: (1400, 7), 1.5: (890, 7), 3.0: (500, 8)}
    return (
        *(_Row(TRAIN, SIEMENS, BL64, "patient", mm, *n) for mm, n in main.items()),
        *(
            _Row(KERNELS_TRAIN, SIEMENS, one, "patient", mm, *n)
            for one in (BL64, BR40)
            for mm, n in kernel.items()
        ),
        *(
            _Row(KERNELS_TEST, SIEMENS, BL64 + BR40, "patient", mm, 50, same_body=KERNELS_TEST)
            for mm in kernel
        ),
    )


def _small(slices: int, kernel_slices: int, more_kvps: tuple[float, ...]) -> tuple[_Row, ...]:
    """Every part once: each scanner a phantom and a patient-like body, `slices` of 5 mm each."""
    lungman_kvps = (*more_kvps, 120.0)
    return (
        *(
            row
            for scanner, kernel in ((GE, LUNG), (SIEMENS, BL64))
            for row in (
                _Row(TRAIN, scanner, kernel, "lungman", 5.0, slices, kvps=lungman_kvps),
                _Row(TRAIN, scanner, kernel, "patient", 5.0, slices),
                _Row(TEST, scanner, kernel, "lungman", 5.0, slices, same_body=TEST),
            )
        ),
        *(_Row(KERNELS_TRAIN, SIEMENS, one, "patient", 3.0, kernel_slices) for one in (BL64, BR40)),
        _Row(
            KERNELS_TEST,
            SIEMENS,
            BL64 + BR40,
            "patient",
            3.0,
            kernel_slices,
            same_body=KERNELS_TEST,
        ),
    )


def _with_repeats(rows: tuple[_Row, ...]) -> tuple[_Row, ...]:
    """Every test scan once more; its noise is another, for its stream is named by the part."""
    repeats = {TEST: REPEAT, KERNELS_TEST: KERNELS_REPEAT}
    again = [replace(row, part=repeats[row.part]) for row in rows if row.part in repeats]
    return (*rows, *again)


SCALES = {
    "tiny": _Scale(_with_repeats(_small(3, 2, more_kvps=(80.0,))), matrix_px=128, raster_px=256),
    "demo": _Scale(_with_repeats(_small(8, 3, more_kvps=()))),
    "paper": _Scale(_with_repeats((*_lungman_paper(), *_patients_paper()))),
}


def plan(
    scale: str, seed: int, options: Options = Options(), parts: Sequence[str] = PARTS
) -> tuple[Scan, ...]:
    """Every scan of the benchmark at one scale, or of some of its parts.

    Raises:
        UsageError: if there is no such scale or part.
    """
    if scale not in SCALES:
        raise UsageError(f"no scale {scale!r}; choose one of {', '.join(SCALES)}")
    unknown = set(parts) - set(PARTS)
    if unknown or not parts:
        raise UsageError(
            f"no part {', '.join(sorted(unknown)) or 'given'}; choose from {', '.join(PARTS)}"
        )
    size = SCALES[scale]
    scans: list[Scan] = []
    bodies: dict[str, Subject] = {}
    for row in size.rows:
        for slices in _shares(row.slices, row.bodies):
            body = Subject(row.kind, BODIES_PER_SEED * seed + len(bodies) + 1, options.parenchyma)
            body = bodies.setdefault(row.same_body or str(len(bodies)), body)
            beside = row.part in (TEST, REPEAT) and row.scanner == SIEMENS
            scans.append(
                Scan(
                    part=row.part,
                    number=len(scans),
                    body=body,
                    scanner=row.scanner,
                    thickness_mm=row.thickness_mm,
                    first_mm=-(slices - 1) / 2 * row.thickness_mm,
                    slices=slices,
                    kvps=row.kvps,
                    mas=tuple(_mas(row.scanner, kvp, options) for kvp in row.kvps),
                    kernels=row.kernels,
                    noise_seed=seed,
                    fov_mm=options.fov_mm,
                    matrix_px=size.matrix_px,
                    raster_px=size.raster_px,
                    shift_mm=(beside * options.shift_px * options.fov_mm / size.matrix_px, 0.0),
                )
            )
    return tuple(scan for scan in scans if scan.part in parts)


def _shares(slices: int, bodies: int) -> list[int]:
    """Slices of each body, as even as whole numbers allow."""
    return [slices // bodies + (i < slices % bodies) for i in range(bodies)]


def _mas(scanner: str, kvp: float, options: Options) -> float:
    if not options.match_dose or scanner == GE:
        return options.mas
    dose_mgy = load_profile(GE).protocol.ctdi_vol_mgy_per_100mas[kvp] * options.mas / 100
    return load_profile(scanner).mas_for(dose_mgy, kvp)
